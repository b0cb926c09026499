"""Rule train: stage 2, a network learns from the pseudo-labels or from the user's labels."""

from functools import partial

from beamseg.crops import labelled_slices
from beamseg.distributed import need_gpus, rank_of_environment, run_on
from beamseg.inputs import label_files, many, phase_transition, reference_volumes, training_labels
from beamseg.job import job
from beamseg.ledger import described as described_round
from beamseg.provenance import digest, file_digest, identity, read_json
from beamseg.rounds import keep_round, painted_pixels, previous
from beamseg.train import train
from beamseg.train_contrastive import train_contrastive

if __name__ == "__main__":
    by_contrast = snakemake.params.settings["train"]["objective"] == "contrastive"
    gpus = snakemake.resources.get("processes", 0)
    run_on(gpus)
    with job(snakemake):
        need_gpus(gpus)
        files, params = snakemake.input, snakemake.params
        settings = params.settings
        volumes = reference_volumes(files)
        inputs = {"scans": many(files.scans), "plan": files.plan, "table": files.table}
        inputs["user"] = label_files(files, *params.labels)
        inputs["assigned"] = many(files.assigned)
        classes = read_json(files.classes)
        source, n_classes = settings["label_source"], classes["n_clusters"]
        labels = training_labels(files, settings, params.labels, volumes, n_classes)
        if by_contrast:
            learn = train_contrastive
        else:
            labelled = labelled_slices(labels, n_classes) if source == "slices" else ()
            transition = phase_transition(files, settings, classes)
            learn = partial(train, labelled_slices=labelled, sparse=source == "pixels", transition=transition)
        weights, task = snakemake.output.weights, identity("train", None, inputs)
        by_rounds = settings["train"]["start_from"] == "previous"
        user = inputs["user"] if by_rounds else []
        named = [{key: own[key] for key in own if key not in ("files", "stamp")} for own in params.labels]
        painted = digest([settings["labels"], named, [file_digest(path) for path in user]])
        start_from = previous(weights, painted, painted_pixels(many(files.scans), labels)) if by_rounds else None
        learn(
            volumes,
            labels,
            weights,
            snakemake.output.curves,
            settings=settings["train"],
            model_settings=settings["model"],
            n_classes=n_classes,
            seed=settings["seed"],
            device=params.device,
            mem_budget_mb=params.mem_budget_mb,
            identity=task,
            start_from=start_from,
        )
        if by_rounds and rank_of_environment()[0] == 0:
            kept = keep_round(weights, painted, volumes, labels, many(files.scans), n_classes, params.device)
            print(described_round(kept))
