"""histogram: the one pass that reads every voxel of a scan."""


rule histogram:
    """Histogram, mean and spread per slice, digest of the decoded voxels."""
    input:
        scan=needs("ingest"),
    output:
        "results/{sample}/histogram.npz",
    log:
        "logs/{sample}/histogram.log",
    benchmark:
        "benchmarks/results/{sample}/histogram.tsv"
    conda:
        "../../envs/beamseg.yaml"
    threads: 4
    resources:
        mem_mb=mem_mb,
        runtime=240,
    params:
        code=code("histogram"),
    script:
        "../../scripts/histogram.py"
