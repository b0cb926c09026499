"""train_scm: a spatial continuity model learns what MPP does, from the masks around a slice."""


rule train_scm:
    """Weights and curves of the SCM, from the reference scans of the group."""
    input:
        scans=needs("ingest@reference"),
        classes=needs("pseudo_label"),
        stage2=lambda wildcards: upstream(wildcards, "segment_stage2@reference"),
        stage3=lambda wildcards: (
            []
            if setting("stage3")(wildcards) == "none"
            else upstream(wildcards, "segment_stage3@reference")
        ),
        verdict=verdict_of,
        mpp=needs("refine_mpp@reference"),
        labels=simulated_group_labels,
    output:
        weights="results/groups/{group}/scm.safetensors",
        curves="results/groups/{group}/train_scm.csv",
    log:
        "logs/groups/{group}/train_scm.log",
    benchmark:
        "benchmarks/results/groups/{group}/train_scm.tsv"
    conda:
        "../../envs/beamseg.yaml"
    threads: 8
    resources:
        mem_mb=volume_mem_mb,
        runtime=at_least(480),
        gpu=gpus,
    params:
        settings=kept("train_scm", settings_of("train_scm")),
        labels=group_labels("train_scm"),
        device=setting("device"),
        mem_budget_mb=setting("mem_budget_mb"),
        code=code("train_scm"),
    script:
        "../../scripts/train_scm.py"
