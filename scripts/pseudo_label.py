"""Rule pseudo_label: clusters of the pooled histogram, as a table from grey level to cluster."""

from beamseg.inputs import many
from beamseg.job import job
from beamseg.pseudo_label import pseudo_label

if __name__ == "__main__":
    with job(snakemake):
        pseudo_label(
            snakemake.input.plan,
            many(snakemake.input.histograms),
            snakemake.output.classes,
            snakemake.output.table,
            snakemake.params.settings,
            snakemake.params.seed,
        )
