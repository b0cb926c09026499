"""segment: the network's labels and confidence for every voxel, slab by slab."""


rule segment:
    """Labels and confidence of one stage's network; one manifest per part."""
    input:
        scan=needs("ingest"),
        plan=needs("plan"),
        grey=ancient(needs("normalize")),
        weights=weights_of,
        compared=ancient(compared),
    output:
        "results/{sample}/segment/{model}/{part}.json",
    log:
        "logs/{sample}/segment/{model}/{part}.log",
    benchmark:
        "benchmarks/results/{sample}/segment/{model}/{part}.tsv"
    priority: 10
    conda:
        "../../envs/beamseg.yaml"
    threads: 8
    resources:
        mem_mb=slice_mem_mb("segment"),
        runtime=by_part(60, voxels_per_s=2e5),
        gpu=gpus,
    params:
        settings=kept("segment", "segment"),
        device=setting("device"),
        code=code("segment"),
    script:
        "../../scripts/segment.py"
