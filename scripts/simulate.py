"""Rule simulate: a scan as a beamline makes it."""

from beamseg.job import job
from beamseg.simulate import simulate

if __name__ == "__main__":
    with job(snakemake):
        simulate(snakemake.output.scan, snakemake.output.truth, snakemake.params.settings, snakemake.threads)
