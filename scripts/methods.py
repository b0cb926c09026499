"""Rule methods: sentences for a paper's methods section, of what a group's model was made with."""

from beamseg.job import job
from beamseg.methods import write_methods
from beamseg.provenance import read_json

if __name__ == "__main__":
    with job(snakemake):
        files = snakemake.input
        write_methods(
            snakemake.output[0],
            snakemake.wildcards.group,
            read_json(files.bundle),
            read_json(files.plan),
            snakemake.params.settings,
        )
