"""Rule refine_scm: the spatial continuity model over every slice."""

from beamseg.inputs import chosen_labels, label_files, many, user_labels
from beamseg.job import job
from beamseg.provenance import identity, read_json
from beamseg.refine_scm import refine_scm
from beamseg.slabs import SlabVolume

if __name__ == "__main__":
    with job(snakemake):
        files = snakemake.input
        settings, given = snakemake.params.settings, snakemake.params.given
        labels, mpp = chosen_labels(files), many(files.mpp)
        raw = SlabVolume(labels, "labels")
        inputs = {"labels": labels, "mpp": mpp, "weights": files.weights}
        inputs["user"] = label_files(files, snakemake.params.labels)
        refine_scm(
            snakemake.output[0],
            raw,
            files.weights,
            settings,
            slab_depth=read_json(files.scan)["slab_depth"],
            part=snakemake.wildcards.part,
            identity=identity("refine_scm", [settings, given], inputs),
            device=snakemake.params.device,
            mpp=SlabVolume(mpp, "labels"),
            user=given and user_labels(given, given["file"], raw.shape),
        )
