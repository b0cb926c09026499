"""plan: grey range, clipping and drift over the reference scans of a group."""


rule plan:
    """One grey range for the group, and what is measured of drift and cupping."""
    input:
        scans=needs("ingest@reference"),
        histograms=needs("histogram@reference"),
    output:
        "results/groups/{group}/plan.json",
    log:
        "logs/groups/{group}/plan.log",
    benchmark:
        "benchmarks/results/groups/{group}/plan.tsv"
    conda:
        "../../envs/beamseg.yaml"
    resources:
        mem_mb=mem_mb,
        runtime=at_least(20),
    params:
        settings=kept("plan", "plan"),
        dtype=setting("normalize.dtype"),
        code=code("plan"),
    script:
        "../../scripts/plan.py"
