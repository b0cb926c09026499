"""Rule self_correct: stage 3, a teacher and a student, without pseudo-labels, with the user's labels if any."""

from beamseg.config import BY_HAND
from beamseg.distributed import need_gpus, run_on
from beamseg.inputs import label_files, many, reference_volumes
from beamseg.job import job
from beamseg.provenance import identity, read_json
from beamseg.self_correct import self_correct
from beamseg.training_labels import open_training_labels

if __name__ == "__main__":
    run_on(snakemake.resources.get("processes", 0))
    with job(snakemake):
        need_gpus(snakemake.resources.get("processes", 0))
        files, params = snakemake.input, snakemake.params
        settings = params.settings
        inputs = {"scans": many(files.scans), "plan": files.plan, "weights": files.weights}
        inputs["user"] = label_files(files, *params.labels)
        volumes = reference_volumes(files)
        n_classes = read_json(files.classes)["n_clusters"]
        labels = None
        given = settings["labels"]
        if (source := settings["label_source"]) in BY_HAND:
            labels = [
                open_training_labels(source, given | file, volume, None, n_classes, settings["seed"])
                for volume, file in zip(volumes, params.labels, strict=True)
            ]
        self_correct(
            volumes,
            files.weights,
            snakemake.output.weights,
            snakemake.output.curves,
            snakemake.output.verdict,
            settings=settings["self_correct"],
            seed=settings["seed"],
            device=params.device,
            mem_budget_mb=params.mem_budget_mb,
            identity=identity("self_correct", None, inputs),
            labels=labels,
            label_source=source,
        )
