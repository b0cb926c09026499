"""What scripts do with the files that the workflow hands them."""

from __future__ import annotations

import os
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from .clusters import rows_in_words, transition_matrix
from .labels import open_truth, open_user_labels
from .partial_volume import UnsharedVolume
from .provenance import read_json
from .slabs import SlabVolume
from .slice_labels import SliceLabels
from .training_labels import check_painted, described, open_training_labels, suggest
from .volumes import TableVolume, Volume, cached, grey_counts, open_normalized


def many(files: Any) -> list[str]:
    """An input that is one file, several or none, as a list."""
    return [files] if isinstance(files, str) else list(files or [])


def label_files(files: Any, *given: dict[str, Any] | None) -> list[str]:
    """Files of labels that a job reads: those that `simulate` left, and those of the user that are there."""
    return many(files.labels) + [file for own in given if own for file in own["files"] if os.path.exists(file)]


def verdict_of(files: Any) -> dict[str, Any] | None:
    """The verdict of stage 3's watch; None where a run has no stage 3."""
    paths = many(files)
    return read_json(paths[0]) if paths else None


def chosen_labels(files: Any) -> list[str]:
    """Manifests of the labels that refinement starts from: stage 3's, unless there is none or the watch refused it."""
    verdict = verdict_of(files.get("verdict"))
    stage = "stage2" if verdict is None else verdict["use"]
    return many(files.get(stage))


def per_scan(manifests: Any) -> list[list[str]]:
    """Manifests of several scans' parts, one list per scan: parts of a scan lie in one folder, next to each other."""
    return [list(parts) for _, parts in groupby(many(manifests), key=os.path.dirname)]


def pseudo_labels(grey: Volume, table: str, manifests: list[str]) -> Volume:
    """Pseudo-labels of a scan: the slabs that `assign` left, or the table of grey levels."""
    return SlabVolume(manifests, "labels") if manifests else TableVolume(grey, np.load(table))


def grey_levels(files: Any) -> Volume | None:
    """Normalized volume of a scan; None where it was archived away and the cache released."""
    manifests = many(files.grey)
    source = read_json(Path(files.scan).with_name("source.json"))["path"]
    if not Path(source).exists() and not cached(manifests):
        return None
    return open_normalized(files.scan, files.plan, manifests)


def stage_volumes(files: Any, grey: Volume | None, label_source: str = "clusters") -> dict[str, Volume]:
    """Labels of every stage of a run, in order: pseudo_labels, stage2, stage3, mpp, scm, as far as it has them.

    Where the network was trained on the user's labels, its classes are the user's and the clusters are no stage.
    Without `grey` those pseudo-labels that are looked up by grey level are left out too.
    """
    stages: dict[str, Volume] = {}
    if label_source == "clusters":
        if manifests := many(files.assigned):
            stages["pseudo_labels"] = SlabVolume(manifests, "labels")
        elif grey is not None:
            stages["pseudo_labels"] = TableVolume(grey, np.load(files.table))
    for name in ("stage2", "stage3", "mpp", "scm"):
        if manifests := many(files.get(name)):
            stages[name] = SlabVolume(manifests, "labels")
    return stages


def reference_volumes(files: Any) -> list[Volume]:
    """Normalized volumes of the reference scans that a group's stage trains on."""
    scans = many(files.scans)
    pairs = zip(scans, per_scan(files.grey), strict=True)
    return [open_normalized(scan, files.plan, manifests) for scan, manifests in pairs]


def reference_pseudo_labels(files: Any, volumes: list[Volume]) -> list[Volume]:
    """Pseudo-labels of the reference scans, whose grey levels are `volumes`."""
    manifests = per_scan(files.assigned) or [[] for _ in volumes]
    return [pseudo_labels(grey, files.table, own) for grey, own in zip(volumes, manifests, strict=True)]


def training_labels(
    files: Any, settings: dict[str, Any], given: list[dict[str, Any]], volumes: list[Volume], n_classes: int
) -> list[Volume]:
    """Labels of the reference scans that stage 2 trains on; what is to be known of the user's is printed.

    Parameters
    ----------
    settings : dict
        Holds `label_source`, `seed` and the sections `labels` and `train`.
    given : list of dict
        What the section `labels` says of each scan's file; its `path` is empty where there is none.
    volumes : list of Volume
        Grey levels of the scans.
    """
    source, pseudo = settings["label_source"], reference_pseudo_labels(files, volumes)
    if half := settings["train"]["partial_volume_px"]:
        pseudo = [UnsharedVolume(given, half) for given in pseudo]
    labels = [
        open_training_labels(source, settings["labels"] | file, volume, own, n_classes, settings["seed"])
        for volume, own, file in zip(volumes, pseudo, given, strict=True)
    ]
    lines = [line for given in labels for line in described(given)]
    if source != "clusters":
        lines += check_painted(labels, n_classes)
    if source == "pixels" and settings["train"]["prior"]:
        labels, said = suggest(labels, pseudo)
        lines.append(said)
    print(*lines, sep="\n")
    return labels


def phase_transition(files: Any, settings: dict[str, Any], classes: dict[str, Any]) -> np.ndarray | None:
    """How often each phase bears each cluster's label, for stage 2 to correct; None where that is not known or asked.

    `files` are the inputs of the rule train, `settings` holds `label_source` and the section `train`, `classes` is the
    group's `classes.json`. Clusters of features have no such matrix, nor have those of each slab or slice.
    """
    if settings["label_source"] != "clusters" or not settings["train"]["forward_correction"]:
        return None
    if many(files.assigned):
        print("train.forward_correction: not for these clusters, which grey levels of the whole volume do not decide")
        return None
    counts = grey_counts(read_json(files.plan), many(files.histograms))
    found = transition_matrix(counts, np.load(files.table), classes)
    print("train.forward_correction: of the voxels of each phase, in the order of grey, bear the label of each cluster")
    print(rows_in_words(found))
    return found


def user_labels(
    settings: dict[str, Any], path: str, shape: tuple[int, int, int], n_classes: int | None = None
) -> SliceLabels | None:
    """The user's labels of a scan, 255 where there is none; None where the user gave no file.

    `settings` holds the section `labels`, `label_source` and `seed`.
    """
    if not path:
        return None
    painted = settings["label_source"] in ("pixels", "bundle_pixels")
    return open_user_labels(
        settings["labels"], path, shape, n_classes=n_classes, painted=painted, seed=settings["seed"]
    )


def user_truth(settings: dict[str, Any], path: str, shape: tuple[int, int, int]) -> SliceLabels | None:
    """The truth of a scan, 255 where there is none; None without a file. For `count` and `evaluate` alone."""
    if not path:
        return None
    return open_truth(
        path,
        settings["truth_dataset"],
        shape,
        settings["truth_slices"],
        settings["truth_unlabelled"],
        axes=settings.get("truth_axes"),
        flip=settings.get("truth_flip"),
        renumber=settings["truth_map"],
    )


def measured(
    files: Any, settings: dict[str, Any], truth: dict[str, Any], labels: dict[str, Any]
) -> tuple[dict[str, Volume], dict[str, Volume | None]]:
    """What `count` and `evaluate` measure: labels of every stage, and truth, training labels and confidence.

    `settings` holds the section `evaluate`, and what `user_labels` reads; `path` of `truth` and `labels` is empty
    where there is none.
    """
    grey = open_normalized(files.scan, files.plan, many(files.grey))
    stages = stage_volumes(files, grey, settings["label_source"])
    shape = stages["stage2"].shape
    return stages, {
        "truth": user_truth(settings["evaluate"], truth["path"], shape),
        "training_labels": user_labels(settings, labels["path"], shape),
        "confidence": SlabVolume(chosen_labels(files), "confidence"),
    }
