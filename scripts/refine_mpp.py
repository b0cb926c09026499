"""Rule refine_mpp: morphological post-processing by continuity along z."""

from beamseg.inputs import chosen_labels, label_files, user_labels
from beamseg.job import job
from beamseg.provenance import identity, read_json
from beamseg.refine_mpp import refine_mpp
from beamseg.slabs import SlabVolume

if __name__ == "__main__":
    with job(snakemake):
        files = snakemake.input
        settings, given = snakemake.params.settings, snakemake.params.given
        labels = chosen_labels(files)
        scan = read_json(files.scan)
        n_classes = read_json(files.classes)["n_clusters"]
        inputs = {"labels": labels, "user": label_files(files, snakemake.params.labels)}
        refine_mpp(
            snakemake.output[0],
            SlabVolume(labels, "labels"),
            n_classes,
            settings,
            slab_depth=scan["slab_depth"],
            part=snakemake.wildcards.part,
            identity=identity("refine_mpp", [settings, given], inputs),
            voxel_size_um=scan["voxel_size_um"],
            user=given and user_labels(given, given["file"], tuple(scan["shape"]), n_classes),
        )
