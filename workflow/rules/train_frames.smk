"""train_frames: a network learns wire and droplet from labelled frames, and from the others."""


rule train_frames:
    """Weights and curves, from the reference scans of the group."""
    input:
        scans=needs("frames@reference"),
        movies=simulated_movies,
    output:
        weights="results/groups/{group}/frames.safetensors",
        curves="results/groups/{group}/train_frames.csv",
    log:
        "logs/groups/{group}/train_frames.log",
    benchmark:
        "benchmarks/results/groups/{group}/train_frames.tsv"
    conda:
        "../../envs/beamseg.yaml"
    threads: 8
    resources:
        mem_mb=budget_mem_mb,
        runtime=at_least(1440),
        gpu=gpus,
    params:
        settings=kept("train_frames", settings_of("train_frames")),
        movies=movie_paths,
        files=movie_files("train_frames", 1, reference=True),
        device=setting("device"),
        code=code("train_frames"),
    script:
        "../../scripts/train_frames.py"
