"""segment_frames: a mask for every frame."""


rule segment_frames:
    """Masks as PNG files, and the manifest that names them."""
    input:
        scan=needs("frames"),
        weights=needs("train_frames"),
        movie=simulated_movie,
    output:
        "results/{sample}/segment_frames/masks.json",
    log:
        "logs/{sample}/segment_frames.log",
    benchmark:
        "benchmarks/results/{sample}/segment_frames.tsv"
    wildcard_constraints:
        sample=IMAGES,
    conda:
        "../../envs/beamseg.yaml"
    threads: 8
    resources:
        mem_mb=budget_mem_mb,
        runtime=at_least(480),
        gpu=gpus,
    params:
        settings=kept("segment_frames", settings_of("segment_frames")),
        movie=movie_of,
        device=setting("device"),
        code=code("segment_frames"),
    script:
        "../../scripts/segment_frames.py"
