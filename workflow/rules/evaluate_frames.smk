"""evaluate_frames: masks and angles against a human's; of frames, the only rule that opens the truth."""


rule evaluate_frames:
    """Scores on the frames that no training saw."""
    input:
        masks=needs("segment_frames"),
        geometry=needs("measure_frames"),
        scan=needs("frames"),
        movie=simulated_movie,
    output:
        "results/{sample}/metrics.json",
    log:
        "logs/{sample}/evaluate_frames.log",
    benchmark:
        "benchmarks/results/{sample}/evaluate_frames.tsv"
    wildcard_constraints:
        sample=IMAGES,
    conda:
        "../../envs/beamseg.yaml"
    resources:
        mem_mb=budget_mem_mb,
        runtime=at_least(60),
    params:
        settings=kept("evaluate_frames", settings_of("evaluate_frames")),
        masks=human_masks,
        files=movie_files("evaluate_frames", 1, 2),
        code=code("evaluate_frames"),
    script:
        "../../scripts/evaluate_frames.py"
