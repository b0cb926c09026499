"""frames: what a movie is: its frames, their sizes, what is wrong with them."""


rule frames:
    """Names, sizes and saturation of the frames, and the pixel size."""
    input:
        movie=simulated_movie,
    output:
        "results/{sample}/frames.json",
    log:
        "logs/{sample}/frames.log",
    benchmark:
        "benchmarks/results/{sample}/frames.tsv"
    wildcard_constraints:
        sample=IMAGES,
    conda:
        "../../envs/beamseg.yaml"
    resources:
        mem_mb=budget_mem_mb,
        runtime=at_least(60),
    params:
        movie=movie_of,
        files=movie_files("frames", 0),
        pixel_nm=setting("frames.pixel_nm"),
        code=code("frames"),
    script:
        "../../scripts/frames.py"
