"""train: stage 2, a network learns from the pseudo-labels or from the user's labels."""


rule train:
    """Weights and curves of stage 2, from the reference scans of the group."""
    input:
        scans=needs("ingest@reference"),
        plan=needs("plan"),
        histograms=needs("histogram@reference"),
        grey=ancient(needs("normalize@reference")),
        classes=needs("pseudo_label"),
        table=beside("pseudo_label", "table.npy"),
        assigned=trained_on_assigned,
        labels=simulated_group_labels,
    output:
        weights="results/groups/{group}/stage2.safetensors",
        curves="results/groups/{group}/train.csv",
    log:
        "logs/groups/{group}/train.log",
    benchmark:
        "benchmarks/results/groups/{group}/train.tsv"
    conda:
        "../../envs/beamseg.yaml"
    threads: 8
    resources:
        mem_mb=training_mem_mb,
        runtime=at_least(1440),
        gpu=training_gpus,
        processes=training_gpus,
    params:
        settings=kept("train", settings_of("train")),
        labels=group_labels("train"),
        device=setting("device"),
        mem_budget_mb=setting("mem_budget_mb"),
        code=code("train"),
    script:
        "../../scripts/train.py"
