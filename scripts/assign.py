"""Rule assign: pseudo-labels voxel by voxel, where one table of grey levels does not give them."""

from beamseg.assign import assign
from beamseg.inputs import many
from beamseg.job import job
from beamseg.provenance import identity, read_json
from beamseg.volumes import open_normalized

if __name__ == "__main__":
    with job(snakemake):
        files, params = snakemake.input, snakemake.params
        settings = params.settings
        inputs = {"scan": files.scan, "plan": files.plan, "classes": files.classes}
        assign(
            snakemake.output[0],
            open_normalized(files.scan, files.plan, many(files.grey)),
            read_json(files.classes),
            settings=settings["pseudo_label"],
            seed=settings["seed"],
            slab_depth=read_json(files.scan)["slab_depth"],
            part=snakemake.wildcards.part,
            identity=identity("assign", settings, inputs),
            threads=snakemake.threads,
            mem_budget_mb=params.mem_budget_mb,
        )
