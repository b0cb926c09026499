"""report: pictures, and the first page of a run."""


rule report:
    """Figures of one run and the page that holds them; it opens without a network."""
    input:
        unpack(chosen_labels),
        scan=needs("ingest"),
        histogram=needs("histogram"),
        plan=needs("plan"),
        grey=ancient(needs("normalize")),
        table=beside("pseudo_label", "table.npy"),
        classes=needs("pseudo_label"),
        assigned=assigned("assign"),
        train=beside("train", "train.csv"),
        self_correct=lambda wildcards: (
            []
            if setting("stage3")(wildcards) == "none"
            else beside("self_correct", "self_correct.csv")(wildcards)
        ),
        mpp=label_manifests("mpp"),
        scm=label_manifests("scm"),
        verdict=verdict_of,
        metrics="results/{sample}/metrics.json",
        truth="results/{sample}/truth_slices.npz",
        weights=explained_weights,
        compared=compared,
        quantities=measured_quantities,
    output:
        html=report(
            "results/{sample}/report.html",
            caption="../report/report.rst",
            category="{sample}",
        ),
        thumbnail=report(
            "results/{sample}/figures/thumbnail.png",
            caption="../report/thumbnail.rst",
            category="{sample}",
        ),
        stages=report(
            "results/{sample}/figures/stages.png",
            caption="../report/stages.rst",
            category="{sample}",
        ),
        overlays=report(
            "results/{sample}/figures/overlays.png",
            caption="../report/overlays.rst",
            category="{sample}",
        ),
        disputes=report(
            "results/{sample}/figures/disputes.png",
            caption="../report/disputes.rst",
            category="{sample}",
        ),
        views=report(
            "results/{sample}/figures/views.png",
            caption="../report/views.rst",
            category="{sample}",
        ),
        trust=report(
            "results/{sample}/figures/trust.png",
            caption="../report/trust.rst",
            category="{sample}",
        ),
        histogram=report(
            "results/{sample}/figures/histogram.png",
            caption="../report/histogram.rst",
            category="{sample}",
        ),
        shading=report(
            "results/{sample}/figures/shading.png",
            caption="../report/shading.rst",
            category="{sample}",
        ),
        elbow=report(
            "results/{sample}/figures/elbow.png",
            caption="../report/elbow.rst",
            category="{sample}",
        ),
        curves=report(
            "results/{sample}/figures/curves.png",
            caption="../report/curves.rst",
            category="{sample}",
        ),
        matching=report(
            "results/{sample}/figures/matching.png",
            caption="../report/matching.rst",
            category="{sample}",
        ),
        profile=report(
            "results/{sample}/figures/profile.png",
            caption="../report/profile.rst",
            category="{sample}",
        ),
    log:
        "logs/{sample}/report.log",
    benchmark:
        "benchmarks/results/{sample}/report.tsv"
    wildcard_constraints:
        sample=VOLUMES,
    priority: 50
    conda:
        "../../envs/beamseg.yaml"
    resources:
        mem_mb=volume_mem_mb,
        runtime=by_scan(60, voxels_per_s=50e6),
    params:
        settings=kept("report", "report"),
        label_source=setting("label_source"),
        mem_budget_mb=setting("mem_budget_mb"),
        code=code("report"),
    script:
        "../../scripts/report.py"
