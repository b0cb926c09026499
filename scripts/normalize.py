"""Rule normalize: grey levels of the group's range, as slab files."""

from beamseg.job import job
from beamseg.normalize import normalize, scratch_mb
from beamseg.provenance import identity

if __name__ == "__main__":
    with job(snakemake):
        params = snakemake.params
        files = {"scan": snakemake.input.scan, "plan": snakemake.input.plan}
        normalize(
            snakemake.output[0],
            snakemake.input.scan,
            snakemake.input.plan,
            {"materialize": params.materialize, "mem_budget_mb": params.mem_budget_mb, "scratch_mb": scratch_mb()},
            snakemake.wildcards.part,
            identity("normalize", params.materialize, files),
            threads=snakemake.threads,
        )
