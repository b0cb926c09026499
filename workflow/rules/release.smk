"""release: the cache of normalized grey levels goes once its last reader has ended."""


rule release:
    """Delete slab files that can be rebuilt from the scan and the plan; their manifests stay."""
    input:
        ancient(readers_of_cache),
        scan=needs("ingest"),
        grey=needs("normalize"),
    output:
        "results/{sample}/released.json",
    log:
        "logs/{sample}/release.log",
    benchmark:
        "benchmarks/results/{sample}/release.tsv"
    priority: 60
    conda:
        "../../envs/beamseg.yaml"
    params:
        code=code("release"),
    script:
        "../../scripts/release.py"
