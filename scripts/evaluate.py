"""Rule evaluate: all stages measured, and which of them is the product."""

from beamseg.changes import summarize
from beamseg.evaluate import evaluate
from beamseg.inputs import many, measured, verdict_of
from beamseg.job import job
from beamseg.palette import word_for
from beamseg.provenance import read_json

if __name__ == "__main__":
    with job(snakemake):
        files, params = snakemake.input, snakemake.params
        settings = params.settings
        stages, against = measured(files, settings, params.truth, params.labels)
        evaluate(
            stages,
            n_clusters=read_json(files.classes)["n_clusters"],
            settings=settings["evaluate"],
            out_json=snakemake.output.metrics,
            out_csv=snakemake.output.table,
            out_truth=snakemake.output.truth,
            classes=settings["classes"],
            **against,
            verdict=verdict_of(files.verdict),
            refinement={name: summarize(many(files.get(name))) for name in ("mpp", "scm") if name in stages},
            mem_budget_mb=params.mem_budget_mb,
            word=word_for(settings["label_source"]),
            parts=many(files.counts),
        )
