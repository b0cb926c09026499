"""Rule measure_frames: the geometry of every frame."""

from beamseg.frames import short_keys
from beamseg.job import job
from beamseg.measure_frames import measure_frames

if __name__ == "__main__":
    with job(snakemake):
        files, settings = snakemake.input, short_keys(snakemake.params.settings)
        measure_frames(files.scan, files.masks, snakemake.output[0], settings, settings["seed"])
