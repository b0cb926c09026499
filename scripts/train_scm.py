"""Rule train_scm: a spatial continuity model learns what MPP does, from the masks around a slice."""

from beamseg.inputs import chosen_labels, label_files, many, per_scan, user_labels
from beamseg.job import job
from beamseg.provenance import identity, read_json
from beamseg.slabs import SlabVolume
from beamseg.train_scm import train_scm

if __name__ == "__main__":
    with job(snakemake):
        files, params = snakemake.input, snakemake.params
        settings = params.settings
        labels = chosen_labels(files)
        raw = [SlabVolume(paths, "labels") for paths in per_scan(labels)]
        pairs = list(zip(params.labels, raw, strict=True))
        inputs = {"raw": labels, "mpp": many(files.mpp), "user": label_files(files, *params.labels)}
        train_scm(
            raw,
            [SlabVolume(paths, "labels") for paths in per_scan(files.mpp)],
            [user_labels(settings | {"labels": settings["labels"] | own}, own["path"], v.shape) for own, v in pairs],
            snakemake.output.weights,
            snakemake.output.curves,
            settings["refine_scm"],
            n_classes=read_json(files.classes)["n_clusters"],
            seed=settings["seed"],
            device=params.device,
            mem_budget_mb=params.mem_budget_mb,
            identity=identity("train_scm", None, inputs),
        )
