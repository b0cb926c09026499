"""Rule report_frames: the angle over time, pictures, and the first page of a movie."""

from pathlib import Path

from beamseg.frames import open_frames, short_keys
from beamseg.job import job
from beamseg.report_frames import report_frames
from beamseg.seen import is_gone

if __name__ == "__main__":
    with job(snakemake):
        files, out = snakemake.input, snakemake.output
        movie, dataset = snakemake.params.movie
        report_frames(
            frames=None if is_gone(Path(movie)) else open_frames(movie, dataset),
            scan=files.scan,
            masks=files.masks,
            geometry=files.geometry,
            metrics=files.metrics,
            curves=files.curves,
            settings=short_keys(snakemake.params.settings),
            out_angle=out.angle,
            out_sheet=out.sheet,
            out_movie=out.movie,
            out_html=out.html,
        )
