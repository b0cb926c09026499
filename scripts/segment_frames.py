"""Rule segment_frames: a mask for every frame."""

from beamseg.frames import class_of_grey, open_frames
from beamseg.job import job
from beamseg.provenance import identity
from beamseg.segment_frames import segment_frames

if __name__ == "__main__":
    with job(snakemake):
        files, params = snakemake.input, snakemake.params
        inputs = {"scan": files.scan, "weights": files.weights}
        segment_frames(
            open_frames(*params.movie),
            files.weights,
            snakemake.output[0],
            grey_to_class=class_of_grey(params.settings["labels.map"]),
            remove_bars=params.settings["frames.remove_bars"],
            identity=identity("segment_frames", params.settings, inputs),
            device=params.device,
        )
