"""Rule train_frames: a network learns wire and droplet from labelled frames."""

from beamseg.frame_batches import Item
from beamseg.frames import class_of_grey, frames_by_part, open_frames, paired, short_keys, split
from beamseg.inputs import many
from beamseg.job import job
from beamseg.provenance import file_digest, identity
from beamseg.train_frames import train_frames

if __name__ == "__main__":
    with job(snakemake):
        files, params = snakemake.input, snakemake.params
        settings = params.settings
        parts = {"train": [], "validation": [], "unlabelled": []}
        masks_used = []
        for path, folder, dataset in params.movies:
            frames = open_frames(path, dataset)
            masks = paired(frames.names, folder)
            found = split(list(masks), settings["seed"], short_keys(settings))
            for part in ("train", "validation"):
                parts[part] += [Item(frames, name, masks[name]) for name in found[part]]
                masks_used += [file_digest(masks[name]) for name in found[part]]
            learnt = found | {"train": found["train"] + found["hidden"], "hidden": []}
            near = frames_by_part(frames.names, learnt)["train"]
            parts["unlabelled"] += [Item(frames, name) for name in near if name not in found["train"]]
        print(*(f"{len(items)} frames for {part}" for part, items in parts.items()), sep="\n")
        train_frames(
            *parts.values(),
            snakemake.output.weights,
            snakemake.output.curves,
            settings=settings["train_frames"],
            size=settings["frames.size"],
            grey_to_class=class_of_grey(settings["labels"]["map"]),
            stage3=settings["stage3"],
            seed=settings["seed"],
            device=params.device,
            identity=identity("train_frames", masks_used, {"scans": many(files.scans)}),
        )
