"""refine_mpp: morphological post-processing by continuity along z."""


rule refine_mpp:
    """Labels after MPP, and what it changed per class; one manifest per part."""
    input:
        unpack(chosen_labels),
        scan=needs("ingest"),
        classes=needs("pseudo_label"),
        verdict=verdict_of,
        labels=simulated_given,
    output:
        "results/{sample}/refine_mpp/{part}.json",
    log:
        "logs/{sample}/refine_mpp/{part}.log",
    benchmark:
        "benchmarks/results/{sample}/refine_mpp/{part}.tsv"
    priority: 20
    conda:
        "../../envs/beamseg.yaml"
    threads: 2
    resources:
        mem_mb=volume_mem_mb,
        runtime=by_part(60, voxels_per_s=1e6),
    params:
        settings=kept("refine_mpp", "refine_mpp"),
        given=kept_given("refine_mpp"),
        labels=given_file("refine_mpp"),
        mem_budget_mb=setting("mem_budget_mb"),
        code=code("refine_mpp"),
    script:
        "../../scripts/refine_mpp.py"
