"""Rule simulate_frames: a movie of a growing nanowire."""

from beamseg.job import job
from beamseg.simulate_frames import simulate_frames

if __name__ == "__main__":
    with job(snakemake):
        simulate_frames(snakemake.output[0], snakemake.params.settings, snakemake.params.seed)
