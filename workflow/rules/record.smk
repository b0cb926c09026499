"""record: everything that a result was made from."""


rule record:
    """Effective settings, code, packages, device, seed, digests of input and weights; enough to repeat the run."""
    input:
        scan=lambda wildcards: upstream(
            wildcards, "frames" if is_movie(wildcards) else "ingest"
        ),
        histograms=histograms_of,
        weights=lambda wildcards: list(weights_by_stage(wildcards).values()),
        labels=product,
        bundle=lambda wildcards: (
            upstream(wildcards, "apply") if setting("bundle")(wildcards) else []
        ),
    output:
        "results/{sample}/provenance.json",
    log:
        "logs/{sample}/record.log",
    benchmark:
        "benchmarks/results/{sample}/record.tsv"
    priority: 50
    conda:
        "../../envs/beamseg.yaml"
    resources:
        mem_mb=mem_mb,
        runtime=at_least(20),
    params:
        group=lambda wildcards: run_of(wildcards).group,
        settings=kept("record", effective),
        scans=recorded_scans,
        names=scans_of,
        stages=lambda wildcards: list(weights_by_stage(wildcards)),
        codes=codes,
        code=code("record"),
    script:
        "../../scripts/record.py"
