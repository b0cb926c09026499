"""Rule export: the product, as files that other programs open."""

from pathlib import Path

from beamseg.export import export
from beamseg.inputs import grey_levels, stage_volumes
from beamseg.job import job
from beamseg.provenance import read_json

if __name__ == "__main__":
    with job(snakemake):
        files = snakemake.input
        metrics = read_json(files.metrics)
        product = metrics["product"]
        export(
            stage_volumes(files, grey_levels(files))[product["stage"]],
            table=metrics["classes"],
            stage=product,
            voxel_size_um=read_json(files.scan)["voxel_size_um"],
            folder=Path(snakemake.output[0]).with_suffix(""),
            out_json=snakemake.output[0],
            formats=snakemake.params.formats,
            mem_budget_mb=snakemake.params.mem_budget_mb,
        )
