"""beamseg: from reconstructed volumes to labelled volumes, without labels.

The configuration is config/config.yaml of the working directory, else the one beside this file.
"""

import signal

from snakemake.utils import min_version

min_version("9.27")


include: "workflow/rules/common.smk"
include: "workflow/rules/simulate.smk"
include: "workflow/rules/ingest.smk"
include: "workflow/rules/histogram.smk"
include: "workflow/rules/plan.smk"
include: "workflow/rules/normalize.smk"
include: "workflow/rules/pseudo_label.smk"
include: "workflow/rules/assign.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/self_correct.smk"
include: "workflow/rules/segment.smk"
include: "workflow/rules/refine_mpp.smk"
include: "workflow/rules/train_scm.smk"
include: "workflow/rules/refine_scm.smk"
include: "workflow/rules/bundle.smk"
include: "workflow/rules/methods.smk"
include: "workflow/rules/apply.smk"
include: "workflow/rules/compare.smk"
include: "workflow/rules/count.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/export.smk"
include: "workflow/rules/quantities.smk"
include: "workflow/rules/record.smk"
include: "workflow/rules/release.smk"
include: "workflow/rules/simulate_frames.smk"
include: "workflow/rules/frames.smk"
include: "workflow/rules/train_frames.smk"
include: "workflow/rules/segment_frames.smk"
include: "workflow/rules/measure_frames.smk"
include: "workflow/rules/evaluate_frames.smk"
include: "workflow/rules/report_frames.smk"


end_at_once(RemoteExecutor)
refuse_gpus_asked_twice()
announce_stale()


report: "workflow/report/workflow.rst"


localrules:
    all,
    release,


rule all:
    """Every run of the table: metrics, report, labels, quantities if asked for, and the bundle of its group."""
    default_target: True
    input:
        final_outputs(),


onstart:
    signal.signal(signal.SIGTERM, end_with_jobs)
    keep_defaults()


onsuccess:
    conclude(failed=False)


onerror:
    conclude(failed=True)
