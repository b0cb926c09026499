"""Rule histogram: the one pass that reads every voxel of a scan."""

from beamseg.histogram import histogram
from beamseg.job import job

if __name__ == "__main__":
    with job(snakemake):
        histogram(snakemake.input.scan, snakemake.output[0], threads=snakemake.threads)
