"""Rule train: stage 2, a network learns from the pseudo-labels or from the user's labels."""

from beamseg.crops import labelled_slices
from beamseg.distributed import run_on
from beamseg.inputs import many, reference_pseudo_labels, reference_volumes
from beamseg.job import job
from beamseg.labels import check_painted, described, open_training_labels
from beamseg.provenance import identity, read_json
from beamseg.train import train

if __name__ == "__main__":
    run_on(snakemake.resources.get("gpu", 0))
    with job(snakemake):
        files, params = snakemake.input, snakemake.params
        settings = params.settings
        volumes = reference_volumes(files)
        inputs = {"scans": many(files.scans), "plan": files.plan, "table": files.table, "user": many(files.labels)}
        inputs["assigned"] = many(files.assigned)
        pseudo = reference_pseudo_labels(files, volumes)
        n_classes = read_json(files.classes)["n_clusters"]
        source = settings["label_source"]
        labels = [
            open_training_labels(source, settings["labels"], volume, own, path or None, n_classes)
            for volume, own, path in zip(volumes, pseudo, params.labels, strict=True)
        ]
        print(*(line for given in labels for line in described(given)), sep="\n")
        if source != "clusters":
            print(*check_painted(labels, n_classes), sep="\n")
        train(
            volumes,
            labels,
            snakemake.output.weights,
            snakemake.output.curves,
            settings=settings["train"],
            model_settings=settings["model"],
            n_classes=n_classes,
            seed=settings["seed"],
            device=params.device,
            mem_budget_mb=params.mem_budget_mb,
            identity=identity("train", params.code, inputs),
            labelled_slices=labelled_slices(labels, n_classes) if source == "slices" else (),
        )
