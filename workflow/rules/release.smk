"""release: the cache of normalized grey levels goes once its last reader has ended."""


def readers_of_cache(wildcards):
    """Reports of every run that reads this scan's normalized grey levels."""
    names = RUNS.sharers("normalize", wildcards.sample)
    return [f"results/{name}/report.html" for name in names] + [
        f"results/{name}/labels.json" for name in names
    ]


rule release:
    """Delete slab files that can be rebuilt from the scan and the plan; their manifests stay."""
    input:
        readers_of_cache,
        grey=needs("normalize"),
    output:
        "results/{sample}/released.json",
    log:
        "logs/{sample}/release.log",
    benchmark:
        "benchmarks/results/{sample}/release.tsv"
    conda:
        "../../envs/beamseg.yaml"
    params:
        code=code("release"),
    script:
        "../../scripts/release.py"
