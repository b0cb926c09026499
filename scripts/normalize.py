"""Rule normalize: grey levels of the group's range, as slab files."""

from beamseg.job import job
from beamseg.normalize import normalize
from beamseg.provenance import identity

if __name__ == "__main__":
    with job(snakemake):
        params = snakemake.params
        files = {"scan": snakemake.input.scan, "plan": snakemake.input.plan}
        normalize(
            snakemake.output[0],
            snakemake.input.scan,
            snakemake.input.plan,
            {key: params[key] for key in ("materialize", "scratch_mb", "mem_budget_mb")},
            snakemake.wildcards.part,
            identity("normalize", [params.materialize, params.code], files),
            threads=snakemake.threads,
        )
