"""quantities: volumes, surfaces, components, connectivity and thickness of the classes."""


rule quantities:
    """Numbers of the product, as JSON, CSV and a figure; only where quantities.measure asks for some."""
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
        json="results/{sample}/quantities.json",
        csv="results/{sample}/quantities.csv",
        sizes="results/{sample}/component_sizes.csv",
        figure="results/{sample}/figures/quantities.png",
    log:
        "logs/{sample}/quantities.log",
    benchmark:
        "benchmarks/results/{sample}/quantities.tsv"
    conda:
        "../../envs/beamseg.yaml"
    resources:
        mem_mb=volume_mem_mb,
        runtime=by_scan(240, voxels_per_s=1e6),
    params:
        settings=kept("quantities", "quantities"),
        mem_budget_mb=setting("mem_budget_mb"),
        code=code("quantities"),
    script:
        "../../scripts/quantities.py"
