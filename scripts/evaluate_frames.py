"""Rule evaluate_frames: masks and angles against a human's."""

from beamseg.evaluate_frames import evaluate_frames
from beamseg.frames import class_of_grey, frames_by_part, paired, short_keys, split
from beamseg.job import job
from beamseg.provenance import read_json

if __name__ == "__main__":
    with job(snakemake):
        files, params = snakemake.input, snakemake.params
        settings = params.settings
        names = [frame["name"] for frame in read_json(files.scan)["frames"]]
        labels, truth = params.masks
        masks = paired(names, labels)
        parts = split(list(masks), settings["seed"], short_keys(settings))
        known = (paired(names, truth) if truth else {}) | masks
        tested = {name: known[name] for name in frames_by_part(names, parts)["test"] if name in known}
        evaluate_frames(
            files.masks,
            files.geometry,
            tested,
            snakemake.output[0],
            grey_to_class=class_of_grey(settings["labels"]["map"]),
            seed=settings["seed"],
        )
