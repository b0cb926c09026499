"""simulate_frames: a movie of a growing nanowire, with its truth beside it."""


rule simulate_frames:
    """Make frames, masks and angles."""
    output:
        directory("results/{sample}/phantom_frames"),
    log:
        "logs/{sample}/simulate_frames.log",
    benchmark:
        "benchmarks/results/{sample}/simulate_frames.tsv"
    wildcard_constraints:
        sample=IMAGES,
    conda:
        "../../envs/beamseg.yaml"
    resources:
        mem_mb=budget_mem_mb,
        runtime=at_least(60),
    params:
        settings=kept("simulate_frames", "frames.phantom"),
        seed=setting("phantom.seed"),
        code=code("simulate_frames"),
    script:
        "../../scripts/simulate_frames.py"
