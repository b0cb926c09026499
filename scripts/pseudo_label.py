"""Rule pseudo_label: clusters of the pooled histogram, as a table from grey level to cluster, or of features."""

from beamseg.inputs import many, reference_volumes
from beamseg.job import job
from beamseg.pseudo_label import pseudo_label

if __name__ == "__main__":
    with job(snakemake):
        files = snakemake.input
        pseudo_label(
            files.plan,
            many(files.histograms),
            snakemake.output.classes,
            snakemake.output.table,
            snakemake.params.settings,
            snakemake.params.seed,
            volumes=reference_volumes(files) if many(files.grey) else (),
        )
