"""Rule report: pictures, and the first page of a run."""

from beamseg.inputs import chosen_labels, grey_levels, many, stage_volumes
from beamseg.job import job
from beamseg.report import FIGURES, report
from beamseg.slabs import SlabVolume

if __name__ == "__main__":
    with job(snakemake):
        files, params = snakemake.input, snakemake.params
        grey = grey_levels(files)
        curves = {"stage2": files.train}
        if many(files.self_correct):
            curves["stage3"] = many(files.self_correct)[0]
        report(
            metrics=files.metrics,
            scan=files.scan,
            plan=files.plan,
            classes=files.classes,
            histogram=files.histogram,
            curves=curves,
            stages=stage_volumes(files, grey, params.label_source),
            grey=grey,
            truth_slices=files.truth,
            confidence=SlabVolume(chosen_labels(files), "confidence"),
            settings=params.settings,
            out_figures={name: snakemake.output[name] for name in FIGURES},
            out_html=snakemake.output.html,
            weights=dict(zip(("stage2", "stage3"), many(files.weights), strict=False)),
            compared=next(iter(many(files.compared)), None),
            quantities=next(iter(many(files.quantities)), None),
            mem_budget_mb=params.mem_budget_mb,
        )
