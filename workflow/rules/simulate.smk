"""simulate: a scan as a beamline makes it, with its truth beside it."""


rule simulate:
    """Make a phantom: projections, noise, rings, filtered back-projection; its truth, and the same as labels."""
    output:
        scan="results/{sample}/phantom.h5",
        truth="results/{sample}/phantom_truth.h5",
        labels="results/{sample}/phantom_labels.h5",
    log:
        "logs/{sample}/simulate.log",
    benchmark:
        "benchmarks/results/{sample}/simulate.tsv"
    conda:
        "../../envs/beamseg.yaml"
    threads: 8
    resources:
        mem_mb=budget_mem_mb,
        runtime=at_least(60),
    params:
        settings=kept("simulate", "phantom"),
        code=code("simulate"),
    script:
        "../../scripts/simulate.py"
