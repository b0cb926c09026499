"""bundle: what is needed to segment another scan with a group's model, see `apply`."""


rule bundle:
    """Weights, plan, class table, training histogram, configuration and versions in one folder."""
    input:
        scans=needs("ingest@reference"),
        histograms=needs("histogram@reference"),
        plan=needs("plan"),
        classes=needs("pseudo_label"),
        table=beside("pseudo_label", "table.npy"),
        stage2=needs("train"),
        stage3=lambda wildcards: (
            []
            if setting("stage3")(wildcards) == "none"
            else upstream(wildcards, "self_correct")
        ),
        verdict=verdict_of,
        curves=beside("train", "train.csv"),
        scm=lambda wildcards: (
            upstream(wildcards, "train_scm")
            if "scm" in setting("refine")(wildcards)
            else []
        ),
    output:
        "results/groups/{group}/bundle/bundle.json",
    log:
        "logs/groups/{group}/bundle.log",
    benchmark:
        "benchmarks/results/groups/{group}/bundle.tsv"
    conda:
        "../../envs/beamseg.yaml"
    resources:
        mem_mb=mem_mb,
        runtime=at_least(20),
    params:
        settings=kept(
            "bundle",
            lambda run: {
                stage: settings_of(stage)(run)
                for stage in (
                    "plan",
                    "pseudo_label",
                    "train",
                    "self_correct",
                    "refine_mpp",
                    "train_scm",
                    "bundle",
                )
            }
            | {"corrections": graph.corrections(run)},
        ),
        made_by=made_by,
        code=code("bundle"),
    script:
        "../../scripts/bundle.py"
