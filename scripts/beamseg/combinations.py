"""Combinations of settings: what a bundle decides, what has no meaning together, and what turns something else off."""

from __future__ import annotations

from typing import Any

from .errors import InputError
from .layers import PHANTOM
from .palette import class_table, word_for


def without_training(settings: dict[str, Any], origins: dict[str, str], index: dict[str, Any], where: str) -> None:
    """What a bundle decides whatever the layers say: nothing is trained, unless a short stage 3 is asked for.

    `label_source` is `bundle` where the network learned classes of its user and answers in their numbers,
    `bundle_pixels` where these were painted (a label file is then read as one of `pixels`), else `clusters`.
    """
    adapt = settings["apply"]["adapt"]
    trained = index["settings"].get("train")
    learned = trained.get("label_source", "clusters") if isinstance(trained, dict) else "clusters"
    source = "bundle_pixels" if learned in ("pixels", "bundle_pixels") else "bundle"
    source = "clusters" if learned == "clusters" else source
    settings |= {"stage3": "unbiased_teacher" if adapt else "none", "label_source": source}
    origins |= {"stage3": "apply.adapt", "label_source": "bundle"}
    if adapt:
        settings["self_correct"] = {**settings["self_correct"], "steps": settings["apply"]["adapt_steps"]}
        origins["self_correct.steps"] = "apply.adapt_steps"
    if "scm" in settings["refine"] and "scm.safetensors" not in index["files"]:
        raise InputError(
            f"{where}: refine",
            f"{settings['refine']}, with a bundle that holds no SCM",
            "[mpp] or []",
            "remove scm, or train the bundle with refine: [mpp, scm]",
        )


def _combine_images(settings: dict[str, Any], origins: dict[str, str], where: str) -> None:
    """Refuse what has no meaning for frames, or for frames alone."""
    images = settings["kind"] == "images"
    if images and settings["bundle"]:
        raise InputError(
            f"{where}: bundle",
            f"{settings['bundle']} with kind: images",
            "an empty cell",
            "bundles are of volumes; train",
        )
    if images != (settings["label_source"] == "images"):
        raise InputError(
            f"{where}: label_source",
            f"{settings['label_source']} with kind: {settings['kind']}",
            "images for kind: images, clusters or slices for kind: volume",
            "networks of frames learn from labelled frames alone; take one of the presets nanowires_a to nanowires_f",
        )
    if images and settings["refine"]:
        raise InputError(
            f"{where}: refine",
            f"{settings['refine']} with kind: images",
            "[]",
            "frames have no z along which labels could be continued",
        )
    allowed = ("none", "pseudo_labeling") if images else ("none", "unbiased_teacher")
    if settings["stage3"] not in allowed:
        raise InputError(
            f"{where}: stage3",
            f"{settings['stage3']} with kind: {settings['kind']}",
            f"one of {', '.join(allowed)}",
            "pseudo_labeling is for frames, the teacher for volumes",
        )
    if not images:
        return
    if settings["path"] != PHANTOM and not settings["labels"]["path"]:
        raise InputError(f"{where}: labels", "an empty cell", "a folder of masks named as the frames", "label frames")
    training = settings["train_frames"]
    if training["pretrain"] and training["network"] != "frame_pspnet":
        raise InputError(
            f"{where}: train_frames.pretrain",
            f"true with {training['network']}",
            "frame_pspnet",
            "it freezes the ResNet",
        )
    by_prediction = {"object_masking", "context_masking", "guided_cutout", "adversarial"}
    meaningless = by_prediction & set(training["perturbations"])
    if training["objective"] == "cross_consistency" and training["network"] == "frame_unet" and meaningless:
        raise InputError(
            f"{where}: train_frames.perturbations",
            f"{', '.join(sorted(meaningless))} with frame_unet",
            "feature_noise, feature_drop, spatial_dropout",
            "skip connections carry past the perturbation what it would hide",
        )


def combine(settings: dict[str, Any], origins: dict[str, str], where: str) -> None:
    """Refuse combinations without a meaning; slices far apart turn off whatever looks along z."""
    _combine_images(settings, origins, where)
    if not settings["z_continuous"]:
        forced = {"refine": [], "model": {**settings["model"], "n_slices": 1}}
        features = {**settings["pseudo_label"]["features"], "dimensions": 2}
        forced["pseudo_label"] = {**settings["pseudo_label"], "features": features}
        settings.update(forced)
        keys = ("refine", "model.n_slices", "pseudo_label.features.dimensions")
        origins |= dict.fromkeys(keys, "z_continuous: false")
    if settings["refine"] == ["scm"]:
        raise InputError(f"{where}: refine", "[scm]", "[mpp, scm]", "add mpp: SCM learns from what MPP leaves")
    normalize = settings["normalize"]
    corrections = [key for key in ("shading", "rings", "denoise") if normalize[key] != "none"]
    if corrections and normalize["materialize"] == "never":
        raise InputError(
            f"{where}: normalize.materialize",
            f"never, with normalize.{corrections[0]}: {normalize[corrections[0]]}",
            "auto or always: a window of a corrected scan costs whole slices",
            "remove materialize: never",
        )
    if settings["pseudo_label"]["labeler"] == "features" and settings["pseudo_label"]["scope"] != "volume":
        raise InputError(
            f"{where}: pseudo_label.scope",
            f"{settings['pseudo_label']['scope']} with labeler: features",
            "scope: volume",
            "features are clustered over the group; their background takes out shading in the slice",
        )
    trains = not settings["bundle"]
    if trains and settings["train"]["objective"] == "contrastive" and settings["label_source"] == "clusters":
        raise InputError(
            f"{where}: train.objective",
            "contrastive with label_source: clusters",
            "painted pixels",
            "set label_source: pixels, or objective: classification",
        )
    if trains and settings["train"]["objective"] == "contrastive" and settings["gpus"] > 1:
        raise InputError(
            f"{where}: gpus",
            f"{settings['gpus']} with train.objective: contrastive",
            "1: the pixels of a batch are contrasted with each other, and are not shared out",
            "remove `gpus`, or set objective: classification",
        )
    training = settings["train"]
    for key, value in (
        ("piecewise_affine.scale", training["piecewise_affine"]["scale"]),
        ("strong_share", training["strong_share"]),
    ):
        if trains and training["objective"] == "contrastive" and value:
            raise InputError(
                f"{where}: train.{key}",
                f"{value} with objective: contrastive",
                "0: contrastive training transforms by `train.contrastive.transform` alone",
                f"set train.{key}: 0, or objective: classification",
            )
    if trains and training["prior"] and settings["label_source"] in ("slices", "clusters"):
        raise InputError(
            f"{where}: train.prior",
            f"{training['prior']} with label_source: {settings['label_source']}",
            "0: clusters speak only beside painted pixels",
            "set train.prior: 0, or label_source: pixels",
        )
    word = word_for(settings["label_source"])
    class_table(settings["pseudo_label"]["n_clusters"], settings["classes"], f"{where}: classes", word)
