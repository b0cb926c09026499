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
        mem_mb=slice_mem_mb("histogram"),
        runtime=by_scan(60, voxels_per_s=10e6),
    params:
        code=code("histogram"),
    script:
        "../../scripts/histogram.py"
