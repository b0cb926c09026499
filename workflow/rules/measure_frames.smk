"""measure_frames: the geometry of every frame, with the contact angle."""


rule measure_frames:
    """A row per frame: angle, interval, lengths, or the reason why there is none."""
    input:
        scan=needs("frames"),
        masks=needs("segment_frames"),
    output:
        "results/{sample}/geometry.csv",
    log:
        "logs/{sample}/measure_frames.log",
    benchmark:
        "benchmarks/results/{sample}/measure_frames.tsv"
    wildcard_constraints:
        sample=IMAGES,
    conda:
        "../../envs/beamseg.yaml"
    resources:
        mem_mb=budget_mem_mb,
        runtime=at_least(60),
    params:
        settings=kept("measure_frames", settings_of("measure_frames")),
        code=code("measure_frames"),
    script:
        "../../scripts/measure_frames.py"
