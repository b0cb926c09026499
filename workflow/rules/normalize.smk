"""normalize: grey levels of the group's range, as slab files that may be deleted and rebuilt."""


rule normalize:
    """uint16 grey levels, 0 outside the field of view; one manifest per part."""
    input:
        scan=needs("ingest"),
        plan=needs("plan"),
    output:
        "results/{sample}/normalize/{part}.json",
    log:
        "logs/{sample}/normalize/{part}.log",
    benchmark:
        "benchmarks/results/{sample}/normalize/{part}.tsv"
    conda:
        "../../envs/beamseg.yaml"
    threads: 4
    resources:
        mem_mb=mem_mb,
        disk_mb=cache_mb,
        runtime=240,
    params:
        materialize=setting("normalize.materialize"),
        scratch_mb=setting("normalize.scratch_mb"),
        mem_budget_mb=setting("mem_budget_mb"),
        code=code("normalize"),
    script:
        "../../scripts/normalize.py"
