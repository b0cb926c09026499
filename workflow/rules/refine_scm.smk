"""refine_scm: the spatial continuity model over every slice."""


rule refine_scm:
    """Labels after SCM, and what it changed per class; one manifest per part."""
    input:
        unpack(chosen_labels),
        scan=needs("ingest"),
        verdict=verdict_of,
        mpp=needs("refine_mpp"),
        weights=needs("train_scm"),
        labels=simulated_given,
    output:
        "results/{sample}/refine_scm/{part}.json",
    log:
        "logs/{sample}/refine_scm/{part}.log",
    benchmark:
        "benchmarks/results/{sample}/refine_scm/{part}.tsv"
    priority: 30
    conda:
        "../../envs/beamseg.yaml"
    threads: 8
    resources:
        mem_mb=volume_mem_mb,
        runtime=by_part(60, voxels_per_s=2e5),
        gpu=gpus,
    params:
        settings=kept("refine_scm", "refine_scm"),
        given=kept_given("refine_scm"),
        labels=given_file("refine_scm"),
        device=setting("device"),
        code=code("refine_scm"),
    script:
        "../../scripts/refine_scm.py"
