"""Rule report_frames: the angle over time, pictures, and the first page of a movie."""

from beamseg.frames import open_frames, short_keys
from beamseg.job import job
from beamseg.report_frames import report_frames

if __name__ == "__main__":
    with job(snakemake):
        files, out = snakemake.input, snakemake.output
        report_frames(
            frames=open_frames(*snakemake.params.movie),
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
