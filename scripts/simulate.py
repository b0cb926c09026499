"""Rule simulate: a scan as a beamline makes it."""

from beamseg.job import job
from beamseg.simulate import simulate

if __name__ == "__main__":
    with job(snakemake):
        out = snakemake.output
        simulate(out.scan, out.truth, snakemake.params.settings, snakemake.threads, labels_out=out.labels)
