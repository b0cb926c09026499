"""Rule compare: whether a scan is like those that a bundle was trained on."""

from beamseg.compare import compare
from beamseg.job import job

if __name__ == "__main__":
    with job(snakemake):
        files = snakemake.input
        compare(
            index=files.index,
            arrays=files.arrays,
            plan=files.plan,
            scan=files.scan,
            histogram=files.histogram,
            settings=snakemake.params.settings,
            out=snakemake.output[0],
        )
