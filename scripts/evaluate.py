"""Rule evaluate: all stages measured in one pass; the only rule that opens the truth."""

from beamseg.changes import summarize
from beamseg.evaluate import evaluate
from beamseg.inputs import chosen_labels, many, stage_volumes, user_labels, user_truth, verdict_of
from beamseg.job import job
from beamseg.provenance import read_json
from beamseg.slabs import SlabVolume
from beamseg.volumes import open_normalized

if __name__ == "__main__":
    with job(snakemake):
        files, params = snakemake.input, snakemake.params
        settings = params.settings
        grey = open_normalized(files.scan, files.plan, many(files.grey))
        stages = stage_volumes(files, grey, settings["label_source"])
        shape = stages["stage2"].shape
        evaluate(
            stages,
            n_clusters=read_json(files.classes)["n_clusters"],
            settings=settings["evaluate"],
            out_json=snakemake.output.metrics,
            out_csv=snakemake.output.table,
            out_truth=snakemake.output.truth,
            classes=settings["classes"],
            truth=user_truth(settings["evaluate"], params.truth, shape),
            training_labels=user_labels(settings, params.labels, shape),
            confidence=SlabVolume(chosen_labels(files), "confidence"),
            verdict=verdict_of(files.verdict),
            refinement={name: summarize(many(files.get(name))) for name in ("mpp", "scm") if name in stages},
            mem_budget_mb=params.mem_budget_mb,
            by_number=settings["label_source"] != "clusters",
        )
