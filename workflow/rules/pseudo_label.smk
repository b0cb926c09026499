"""pseudo_label: clusters of the pooled histogram, as a table from grey level to cluster, or of features."""


rule pseudo_label:
    """Cluster the grey levels of the group's reference scans, or features of their voxels."""
    input:
        scans=needs("ingest@reference"),
        plan=needs("plan"),
        histograms=needs("histogram@reference"),
        grey=ancient(grey_of_features),
    output:
        classes="results/groups/{group}/classes.json",
        table="results/groups/{group}/table.npy",
    log:
        "logs/groups/{group}/pseudo_label.log",
    benchmark:
        "benchmarks/results/groups/{group}/pseudo_label.tsv"
    conda:
        "../../envs/beamseg.yaml"
    resources:
        mem_mb=volume_mem_mb,
        runtime=at_least(20),
    params:
        settings=kept("pseudo_label", "pseudo_label"),
        seed=setting("seed"),
        code=code("pseudo_label"),
    script:
        "../../scripts/pseudo_label.py"
