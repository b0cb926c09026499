"""Rule train: stage 2, a network learns from the pseudo-labels or from the user's labels."""

import numpy as np

from beamseg.inputs import many, reference_volumes
from beamseg.job import job
from beamseg.labels import described, open_training_labels
from beamseg.provenance import identity, read_json
from beamseg.train import train

if __name__ == "__main__":
    with job(snakemake):
        files, params = snakemake.input, snakemake.params
        settings = params.settings
        volumes = reference_volumes(files)
        table = np.load(files.table)
        inputs = {"scans": many(files.scans), "plan": files.plan, "table": files.table, "user": many(files.labels)}
        n_classes = read_json(files.classes)["n_clusters"]
        labels = [
            open_training_labels(settings["label_source"], settings["labels"], volume, table, path or None, n_classes)
            for volume, path in zip(volumes, params.labels, strict=True)
        ]
        print(*(line for volume in labels for line in described(volume)), sep="\n")
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
        )
