"""Rule release: the cache of normalized grey levels goes once its last reader has ended."""

from beamseg.inputs import many
from beamseg.job import job
from beamseg.release import release

if __name__ == "__main__":
    with job(snakemake):
        release(many(snakemake.input.grey), snakemake.output[0])
