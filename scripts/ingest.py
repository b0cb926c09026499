"""Rule ingest: what a scan is, from its headers and a few slices."""

from pathlib import Path

from beamseg.ingest import ingest
from beamseg.job import job

if __name__ == "__main__":
    with job(snakemake):
        params = snakemake.params
        histogram = Path(snakemake.output.scan).with_name("histogram.npz")
        ingest(
            params.path,
            params.dataset,
            params.settings,
            snakemake.output.scan,
            snakemake.output.source,
            name=snakemake.wildcards.sample,
            voxel_size_um=params.voxel_size_um,
            correct=params.correct,
            n_slices=params.n_slices,
            histogram=histogram if histogram.exists() else None,
        )
