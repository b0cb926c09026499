"""export: the product, as files that other programs open."""


rule export:
    """The formats that are asked for, and labels.json, which says what they are and where they came from."""
    input:
        unpack(chosen_labels),
        scan=needs("ingest"),
        plan=needs("plan"),
        grey=ancient(needs("normalize")),
        table=beside("pseudo_label", "table.npy"),
        assigned=assigned("assign"),
        mpp=label_manifests("mpp"),
        scm=label_manifests("scm"),
        metrics="results/{sample}/metrics.json",
    output:
        "results/{sample}/labels.json",
    log:
        "logs/{sample}/export.log",
    benchmark:
        "benchmarks/results/{sample}/export.tsv"
    priority: 50
    conda:
        "../../envs/beamseg.yaml"
    resources:
        mem_mb=volume_mem_mb,
        runtime=by_scan(120, voxels_per_s=50e6),
    params:
        formats=setting("export.formats"),
        mem_budget_mb=setting("mem_budget_mb"),
        code=code("export"),
    script:
        "../../scripts/export.py"
