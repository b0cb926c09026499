"""evaluate: all stages measured; with `count` the only rule that opens the truth."""


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
        truth=simulated_truth,
        labels=simulated_labels,
        counts=counts_of,
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
        mem_mb=volume_mem_mb,
        runtime=counting_time,
    params:
        settings=kept("evaluate", measured_settings),
        truth=user_file("evaluate", truth_of),
        labels=user_file("evaluate", labels_of),
        mem_budget_mb=setting("mem_budget_mb"),
        code=code("evaluate"),
    script:
        "../../scripts/evaluate.py"
