"""Rule count: all stages of one part counted against the truth and each other, for `evaluate`."""

from beamseg.count import count
from beamseg.inputs import measured
from beamseg.job import job
from beamseg.palette import class_ids, class_table
from beamseg.provenance import read_json
from beamseg.slabs import parse_part, slab_borders

if __name__ == "__main__":
    with job(snakemake):
        files, params = snakemake.input, snakemake.params
        stages, against = measured(files, params.settings, params.truth, params.labels)
        scan, n_clusters = read_json(files.scan), read_json(files.classes)["n_clusters"]
        index, parts = parse_part(snakemake.wildcards.part)
        count(
            stages,
            class_ids(class_table(n_clusters, params.settings["classes"])),
            **against,
            mem_budget_mb=params.mem_budget_mb,
            slabs=slab_borders(scan["shape"][0], scan["slab_depth"])[index::parts],
        ).save(snakemake.output[0])
