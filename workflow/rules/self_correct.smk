"""self_correct: stage 3, a teacher and a student without the pseudo-labels."""


rule self_correct:
    """Weights and curves of stage 3, and the verdict of the watch against collapse."""
    input:
        scans=needs("ingest@reference"),
        plan=needs("plan"),
        grey=ancient(needs("normalize@reference")),
        weights=needs("train"),
        classes=needs("pseudo_label"),
        labels=simulated_supervision,
    output:
        weights="results/groups/{group}/stage3.safetensors",
        curves="results/groups/{group}/self_correct.csv",
        verdict="results/groups/{group}/verdict.json",
    log:
        "logs/groups/{group}/self_correct.log",
    benchmark:
        "benchmarks/results/groups/{group}/self_correct.tsv"
    conda:
        "../../envs/beamseg.yaml"
    threads: 8
    resources:
        mem_mb=training_mem_mb,
        runtime=at_least(1440),
        gpu=training_gpus,
        processes=training_gpus,
    params:
        settings=kept("self_correct", settings_of("self_correct")),
        labels=group_labels("self_correct", by_hand=True),
        device=setting("device"),
        mem_budget_mb=setting("mem_budget_mb"),
        code=code("self_correct"),
    script:
        "../../scripts/self_correct.py"
