"""Rule record: everything that a result was made from."""

from beamseg.ended import code_of, device_of, made_with
from beamseg.inputs import many
from beamseg.job import job
from beamseg.record import record

if __name__ == "__main__":
    with job(snakemake):
        files, params = snakemake.input, snakemake.params
        record(
            snakemake.output[0],
            name=snakemake.wildcards.sample,
            group=params.group,
            settings=params.settings,
            scans=params.scans,
            histograms=dict(zip(params.names, many(files.histograms), strict=True)),
            weights=dict(zip(params.stages, many(files.weights), strict=True)),
            labels=files.labels,
            code={stage: code_of(stage, each["who"]) or each["code"] for stage, each in params.codes.items()},
            device={stage: where for stage, each in params.codes.items() if (where := device_of(stage, each["who"]))},
            bundle=next(iter(many(files.bundle)), None),
            made=made_with({stage: each["who"] for stage, each in params.codes.items()}),
        )
