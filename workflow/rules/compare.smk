"""compare: whether a scan is like those that a bundle was trained on."""


rule compare:
    """Distance of grey levels and voxel size from the bundle's; refuses a scan that the network cannot know."""
    input:
        scan=needs("ingest"),
        histogram=needs("histogram"),
        plan=needs("plan"),
        index=needs("apply"),
        arrays=beside("apply", "arrays.safetensors"),
    output:
        "results/{sample}/compare.json",
    log:
        "logs/{sample}/compare.log",
    benchmark:
        "benchmarks/results/{sample}/compare.tsv"
    conda:
        "../../envs/beamseg.yaml"
    resources:
        mem_mb=mem_mb,
        runtime=at_least(20),
    params:
        settings=kept("compare", "apply"),
        code=code("compare"),
    script:
        "../../scripts/compare.py"
