"""Rule self_correct: stage 3, a teacher and a student without the pseudo-labels."""

from beamseg.distributed import run_on
from beamseg.inputs import many, reference_volumes
from beamseg.job import job
from beamseg.provenance import identity
from beamseg.self_correct import self_correct

if __name__ == "__main__":
    run_on(snakemake.resources.get("gpu", 0))
    with job(snakemake):
        files, params = snakemake.input, snakemake.params
        inputs = {"scans": many(files.scans), "plan": files.plan, "weights": files.weights}
        self_correct(
            reference_volumes(files),
            files.weights,
            snakemake.output.weights,
            snakemake.output.curves,
            snakemake.output.verdict,
            settings=params.settings["self_correct"],
            seed=params.settings["seed"],
            device=params.device,
            mem_budget_mb=params.mem_budget_mb,
            identity=identity("self_correct", params.code, inputs),
        )
