"""report_frames: the angle over time, pictures, and the first page of a movie."""


rule report_frames:
    """Curve, contact sheet, overlay movie and the page that holds them."""
    input:
        scan=needs("frames"),
        masks=needs("segment_frames"),
        geometry=needs("measure_frames"),
        metrics=needs("evaluate_frames"),
        curves=beside("train_frames", "train_frames.csv"),
        movie=simulated_movie,
    output:
        html=report(
            "results/{sample}/report.html",
            caption="../report/report_frames.rst",
            category="{sample}",
        ),
        angle=report(
            "results/{sample}/figures/angle.png",
            caption="../report/angle.rst",
            category="{sample}",
        ),
        sheet="results/{sample}/figures/contact_sheet.png",
        movie="results/{sample}/figures/overlay.gif",
    log:
        "logs/{sample}/report_frames.log",
    benchmark:
        "benchmarks/results/{sample}/report_frames.tsv"
    wildcard_constraints:
        sample=IMAGES,
    priority: 50
    conda:
        "../../envs/beamseg.yaml"
    resources:
        mem_mb=budget_mem_mb,
        runtime=at_least(60),
    params:
        settings=kept("report_frames", settings_of("measure_frames")),
        movie=movie_of,
        code=code("report_frames"),
    script:
        "../../scripts/report_frames.py"
