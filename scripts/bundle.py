"""Rule bundle: what is needed to segment another scan with a group's model."""

from beamseg.bundle import bundle
from beamseg.ended import made_with
from beamseg.inputs import many, verdict_of
from beamseg.job import job
from beamseg.palette import class_table, word_for
from beamseg.provenance import read_json

if __name__ == "__main__":
    with job(snakemake):
        files, settings = snakemake.input, snakemake.params.settings
        verdict = verdict_of(files.verdict)
        stage = "stage2" if verdict is None else verdict["use"]
        bundle(
            snakemake.output[0],
            weights=files[stage],
            plan=files.plan,
            classes=files.classes,
            table=files.table,
            curves=files.curves,
            scans=many(files.scans),
            histograms=many(files.histograms),
            class_table=class_table(
                read_json(files.classes)["n_clusters"],
                settings["bundle"]["classes"],
                word=word_for(settings["train"]["label_source"]),
            ),
            settings=settings,
            verdict=verdict,
            scm=next(iter(many(files.scm)), None),
            versions=(made_with(snakemake.params.made_by) or {}).get("versions"),
        )
