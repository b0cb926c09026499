"""Rule self_correct: stage 3, a teacher and a student, without pseudo-labels, with the user's labels if any."""

from beamseg.distributed import run_on
from beamseg.inputs import many, reference_volumes
from beamseg.job import job
from beamseg.provenance import identity, read_json
from beamseg.self_correct import self_correct
from beamseg.training_labels import open_training_labels

if __name__ == "__main__":
    run_on(snakemake.resources.get("gpu", 0))
    with job(snakemake):
        files, params = snakemake.input, snakemake.params
        settings = params.settings
        inputs = {"scans": many(files.scans), "plan": files.plan, "weights": files.weights, "user": many(files.labels)}
        volumes = reference_volumes(files)
        n_classes = read_json(files.classes)["n_clusters"]
        labels = None
        given = settings["labels"]
        if (source := settings["label_source"]) != "clusters":
            labels = [
                open_training_labels(
                    source, settings["labels"], volume, None, path or None, n_classes, settings["seed"]
                )
                for volume, path in zip(volumes, params.labels, strict=True)
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
            identity=identity("self_correct", params.code, inputs),
            labels=labels,
            sparse=source == "pixels",
        )
