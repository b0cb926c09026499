"""assign: pseudo-labels voxel by voxel, where one table of grey levels does not give them."""


rule assign:
    """Pseudo-labels of one scan by features, or by clusters of each slab or slice; one manifest per part."""
    input:
        scan=needs("ingest"),
        plan=needs("plan"),
        grey=ancient(needs("normalize")),
        classes=needs("pseudo_label"),
    output:
        "results/{sample}/assign/{part}.json",
    log:
        "logs/{sample}/assign/{part}.log",
    benchmark:
        "benchmarks/results/{sample}/assign/{part}.tsv"
    conda:
        "../../envs/beamseg.yaml"
    threads: 4
    resources:
        mem_mb=volume_mem_mb,
        runtime=by_part(240, voxels_per_s=2e5),
    params:
        settings=kept("assign", settings_of("assign")),
        mem_budget_mb=setting("mem_budget_mb"),
        code=code("assign"),
    script:
        "../../scripts/assign.py"
