"""methods: sentences for a paper's methods section, of what a group's model was made with."""


rule methods:
    """Methods actually used, parameters, versions and citations of a group."""
    input:
        scan=needs("ingest"),
        bundle=needs("bundle"),
        plan=needs("plan"),
    output:
        "results/groups/{group}/methods.md",
    log:
        "logs/groups/{group}/methods.log",
    benchmark:
        "benchmarks/results/groups/{group}/methods.tsv"
    conda:
        "../../envs/beamseg.yaml"
    resources:
        mem_mb=mem_mb,
        runtime=at_least(10),
    params:
        settings=kept(
            "methods",
            lambda run: {
                key: run.get(key)
                for key in (
                    "seed",
                    "plan",
                    "pseudo_label",
                    "label_source",
                    "model",
                    "train",
                    "stage3",
                    "self_correct",
                    "segment",
                    "refine",
                    "refine_mpp",
                    "refine_scm",
                )
            },
        ),
        code=code("methods"),
    script:
        "../../scripts/methods.py"
