"""Rule apply: take over a bundle in place of a group's training."""

from pathlib import Path

from beamseg.apply import apply
from beamseg.job import job

if __name__ == "__main__":
    with job(snakemake):
        apply(Path(snakemake.input[0]).parent, dict(snakemake.output.items()))
