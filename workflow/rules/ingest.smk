"""ingest: what a scan is, from its headers and a few slices."""


# A checkpoint, so that the graph is looked at again once it is known whether the scan has changed: a touched or
# restored file leaves the same scan.json, and nothing below it runs.
checkpoint ingest:
    """Shape, axes, voxel size, field of view and slab depth of one scan."""
    input:
        scan=simulated_scan,
    output:
        scan="results/{sample}/scan.json",
        source="results/{sample}/source.json",
    log:
        "logs/{sample}/ingest.log",
    benchmark:
        "benchmarks/results/{sample}/ingest.tsv"
    conda:
        "../../envs/beamseg.yaml"
    resources:
        mem_mb=mem_mb,
        runtime=at_least(240),
    params:
        scan=user_scan,
        path=lambda wildcards: str(graph.scan_path(run_of(wildcards))),
        dataset=lambda wildcards: (
            None if is_phantom(wildcards) else setting("dataset")(wildcards)
        ),
        settings=kept(
            "ingest",
            lambda run: {**run.get("ingest"), "slab_depth": run.get("slab_depth")},
        ),
        correct=kept("ingest", graph.corrections, "correct"),
        voxel_size_um=setting("voxel_size_um"),
        n_slices=setting("model.n_slices"),
        code=code("ingest"),
    script:
        "../../scripts/ingest.py"
