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
        mem_mb=slice_mem_mb("histogram"),
        disk_mb=cache_mb,
        runtime=by_part(60, voxels_per_s=10e6),
    params:
        materialize=setting("normalize.materialize"),
        mem_budget_mb=setting("mem_budget_mb"),
        code=code("normalize"),
    script:
        "../../scripts/normalize.py"
