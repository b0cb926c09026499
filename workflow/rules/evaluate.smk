"""evaluate: all stages measured in one pass; the only rule that opens the truth."""


rule evaluate:
    """Metrics of every stage, which of them is the product, and why."""
    input:
        unpack(chosen_labels),
        scan=needs("ingest"),
        plan=needs("plan"),
        grey=ancient(needs("normalize")),
        table=beside("pseudo_label", "table.npy"),
        classes=needs("pseudo_label"),
        assigned=assigned("assign"),
        mpp=label_manifests("mpp"),
        scm=label_manifests("scm"),
        verdict=verdict_of,
        truth=user_truth,
        labels=user_labels,
    output:
        metrics="results/{sample}/metrics.json",
        table="results/{sample}/metrics.csv",
        truth="results/{sample}/truth_slices.npz",
    log:
        "logs/{sample}/evaluate.log",
    benchmark:
        "benchmarks/results/{sample}/evaluate.tsv"
    wildcard_constraints:
        sample=VOLUMES,
    priority: 40
    conda:
        "../../envs/beamseg.yaml"
    resources:
        mem_mb=mem_mb,
        runtime=by_scan(120, voxels_per_s=5e6),
    params:
        settings=kept(
            "evaluate", lambda run: settings_of("evaluate")(run) | {"truth": None}
        ),
        truth=truth_of,
        labels=lambda wildcards: labels_path(wildcards.sample),
        mem_budget_mb=setting("mem_budget_mb"),
        code=code("evaluate"),
    script:
        "../../scripts/evaluate.py"
