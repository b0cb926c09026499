"""Rule quantities: volumes, surfaces, components, connectivity and thickness of the classes."""

from beamseg.inputs import grey_levels, stage_volumes
from beamseg.job import job
from beamseg.provenance import read_json
from beamseg.quantities import quantities

if __name__ == "__main__":
    with job(snakemake):
        files, outputs = snakemake.input, snakemake.output
        metrics, scan = read_json(files.metrics), read_json(files.scan)
        product = metrics["product"]
        quantities(
            stage_volumes(files, grey_levels(files))[product["stage"]],
            table=metrics["classes"],
            stage=product,
            fov=scan["fov"],
            voxel_size_um=scan["voxel_size_um"],
            settings=snakemake.params.settings,
            out_json=outputs.json,
            out_csv=outputs.csv,
            out_sizes=outputs.sizes,
            out_figure=outputs.figure,
            mem_budget_mb=snakemake.params.mem_budget_mb,
        )
