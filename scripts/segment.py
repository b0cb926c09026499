"""Rule segment: labels and confidence of one stage's network, slab by slab."""

from beamseg.inputs import many
from beamseg.job import job
from beamseg.provenance import identity, read_json
from beamseg.segment import segment
from beamseg.volumes import open_normalized

if __name__ == "__main__":
    with job(snakemake):
        files = snakemake.input
        settings = snakemake.params.settings
        inputs = {"scan": files.scan, "plan": files.plan, "weights": files.weights}
        segment(
            snakemake.output[0],
            open_normalized(files.scan, files.plan, many(files.grey)),
            files.weights,
            settings=settings,
            slab_depth=read_json(files.scan)["slab_depth"],
            part=snakemake.wildcards.part,
            identity=identity("segment", settings, inputs),
            stage=snakemake.wildcards.model,
            device=snakemake.params.device,
        )
