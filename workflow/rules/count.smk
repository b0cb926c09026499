"""count: all stages of one part counted, where a run is cut into parts; `evaluate` then adds up."""


rule count:
    """Counts of one part, of every stage against the truth and the other stages."""
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
    output:
        "results/{sample}/count/{part}.npz",
    log:
        "logs/{sample}/count/{part}.log",
    benchmark:
        "benchmarks/results/{sample}/count/{part}.tsv"
    wildcard_constraints:
        sample=VOLUMES,
    priority: 40
    conda:
        "../../envs/beamseg.yaml"
    resources:
        mem_mb=volume_mem_mb,
        runtime=by_part(120, voxels_per_s=5e6),
    params:
        settings=kept("count", counted_settings),
        truth=user_file("count", truth_of),
        labels=user_file("count", labels_of),
        mem_budget_mb=setting("mem_budget_mb"),
        code=code("count"),
    script:
        "../../scripts/count.py"
