"""apply: take over a bundle in place of a group's training."""


rule apply:
    """Look at a bundle and lay out its files as the stages downstream read them."""
    input:
        bundle_of,
    output:
        index="results/groups/{group}/apply/bundle.json",
        arrays="results/groups/{group}/apply/arrays.safetensors",
        plan="results/groups/{group}/apply/plan.json",
        classes="results/groups/{group}/apply/classes.json",
        table="results/groups/{group}/apply/table.npy",
        weights="results/groups/{group}/apply/model.safetensors",
        curves="results/groups/{group}/apply/train.csv",
    log:
        "logs/groups/{group}/apply/bundle.log",
    benchmark:
        "benchmarks/results/groups/{group}/apply/bundle.tsv"
    conda:
        "../../envs/beamseg.yaml"
    resources:
        mem_mb=mem_mb,
        runtime=at_least(20),
    params:
        code=code("apply"),
    script:
        "../../scripts/apply.py"


use rule apply as apply_scm with:
    output:
        scm="results/groups/{group}/apply/scm.safetensors",
    log:
        "logs/groups/{group}/apply/scm.log",
    benchmark:
        "benchmarks/results/groups/{group}/apply/scm.tsv"
