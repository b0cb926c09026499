"""Rule plan: grey range, clipping and drift over the reference scans of a group."""

from beamseg.inputs import many
from beamseg.job import job
from beamseg.plan import plan

if __name__ == "__main__":
    with job(snakemake):
        plan(
            many(snakemake.input.scans),
            many(snakemake.input.histograms),
            snakemake.output[0],
            snakemake.params.settings,
            snakemake.params.dtype,
        )
