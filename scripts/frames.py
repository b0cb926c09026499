"""Rule frames: names, sizes and saturation of the frames of a movie."""

from beamseg.frames import describe, open_frames
from beamseg.job import job
from beamseg.provenance import write_json

if __name__ == "__main__":
    with job(snakemake):
        frames = open_frames(*snakemake.params.movie)
        pixel_nm = snakemake.params.pixel_nm or frames.pixel_nm
        content = {"name": snakemake.wildcards.sample, "pixel_nm": pixel_nm, "frames": describe(frames)}
        write_json(snakemake.output[0], content)
