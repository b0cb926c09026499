"""What stage 2 trains on: pseudo-labels, the user's labels, or these and what clusters suggest beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .errors import InputError
from .label_values import SUGGESTED, UNLABELLED
from .labels import open_user_labels
from .slice_labels import SliceLabels
from .volumes import Volume

AGREED = 0.8
"""Of a cluster's painted pixels, that bear one class for the cluster to stand for it."""


def open_training_labels(
    label_source: str,
    settings: dict[str, Any],
    grey: Volume,
    pseudo_labels: Volume | None = None,
    n_classes: int | None = None,
    seed: int = 0,
) -> Volume:
    """The labels that stage 2 trains on, a volume of uint8 with 255 where there is none.

    Parameters
    ----------
    label_source : str
        `clusters`, `slices` or `pixels`.
    settings : dict
        Section `labels`, its `path` resolved; of the user's labels, a scan without a path has none.
    grey : Volume
        The normalized scan.
    pseudo_labels : Volume, optional
        For source `clusters`.
    n_classes : int, optional
        Of the network; labels beyond it are refused.
    seed : int
        Says what `labels.pool` and `labels.rate` hide.

    Raises
    ------
    InputError
        If the source lacks what it needs, or the file does not fit the scan.
    """
    if label_source == "clusters":
        if pseudo_labels is None:
            raise InputError("label_source", "clusters, but no pseudo-labels", "a table", "run pseudo_label")
        return pseudo_labels
    if not settings["path"]:
        return Unlabelled(grey.shape)
    painted = label_source == "pixels"
    return open_user_labels(settings, settings["path"], grey.shape, grey, n_classes, painted=painted, seed=seed)


def check_painted(labels: Sequence[Volume], n_classes: int, where: str = "labels") -> list[str]:
    """Warnings about the painted voxels of all training scans together.

    Raises
    ------
    InputError
        If fewer than two classes are painted where the scan has grey levels.
    """
    by_user = [v for v in labels if isinstance(v, SliceLabels)]
    painted = {label for volume in by_user for label in volume.visible()}
    if len(painted) < 2:
        found = f"class {min(painted)} alone" if painted else "nothing"
        held = {label for volume in by_user for label in volume.counts}
        inside = " inside the field of view" if held > painted else ""
        remedy = "paint some of each class, background included"
        raise InputError(where, f"{found} painted{inside}", "voxels of two classes or more", remedy)
    missing = [str(c) for c in range(n_classes) if c not in painted]
    if not missing:
        return []
    return [f"labels: class {', '.join(missing)} is painted nowhere, so the network will never find it"]


def described(labels: Volume) -> list[str]:
    """Lines for the log: warnings, painted voxels per class; none for pseudo-labels."""
    if not isinstance(labels, SliceLabels):
        return []
    total, done = int(np.prod(labels.shape, dtype=np.int64)), sum(labels.counts.values())
    listed = ", ".join(f"class {label}: {count}" for label, count in sorted(labels.counts.items()))
    name = labels.labels.files[0].name
    return [
        *(f"{name}: {warning}" for warning in labels.warnings),
        f"{name}: painted voxels: {listed or 'none'}; {done} of {total} ({100 * done / total:.3g} %)",
    ]


class Suggestions:
    """Painted labels and, where nothing is painted, the classes that clusters suggest, as SUGGESTED + class.

    Parameters
    ----------
    painted, clusters : Volume
        uint8, 255 unlabelled.
    table : ndarray, (256,)
        Cluster -> SUGGESTED + class, or 255 where the painted pixels do not agree on one.
    """

    def __init__(self, painted: Volume, clusters: Volume, table: np.ndarray) -> None:
        self.painted, self.clusters, self.table = painted, clusters, table
        self.shape = painted.shape
        self.slices: list[int] = list(getattr(painted, "slices", range(painted.shape[0])))

    def read(self, z0: int, z1: int, y: slice = slice(None), x: slice = slice(None)) -> np.ndarray:
        """Labels of the window, uint8 (z, y, x)."""
        painted = self.painted.read(z0, z1, y, x)
        return np.where(painted == UNLABELLED, self.table[self.clusters.read(z0, z1, y, x)], painted)


def suggest(painted: Sequence[Volume], clusters: Sequence[Volume]) -> tuple[list[Volume], str]:
    """The painted labels with suggestions of the clusters, and a line for the log.

    A cluster stands for the class that AGREED or more of its painted pixels bear, over all scans, each class weighing
    as much however much of it is painted.
    """
    counts = np.zeros((256, 256), np.int64)
    for own, cluster in zip(painted, clusters, strict=True):
        for z in getattr(own, "slices", range(own.shape[0])):
            label, found = own.read(z, z + 1).ravel(), cluster.read(z, z + 1).ravel()
            seen = label != UNLABELLED
            counts += np.bincount(found[seen] * np.int64(256) + label[seen], minlength=65536).reshape(256, 256)
    share = counts / np.maximum(1, counts.sum(axis=0))
    share /= np.maximum(1e-12, share.sum(axis=1, keepdims=True))
    table = np.where(share.max(axis=1) >= AGREED, SUGGESTED + share.argmax(axis=1), UNLABELLED).astype(np.uint8)
    table[UNLABELLED] = UNLABELLED
    named = [f"cluster {k} class {table[k] - SUGGESTED}" for k in range(UNLABELLED) if table[k] != UNLABELLED]
    said = f"where nothing is painted: {', '.join(named) or 'no cluster is one class'}"
    return [Suggestions(own, cluster, table) for own, cluster in zip(painted, clusters, strict=True)], said


class Unlabelled:
    """A volume without any label, of a scan's shape."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self.slices: list[int] = []

    def read(self, z0: int, z1: int, y: slice = slice(None), x: slice = slice(None)) -> np.ndarray:
        """255 everywhere, uint8 (z, y, x)."""
        depth = max(0, min(self.shape[0], z1) - max(0, z0))
        rows, columns = (len(range(*s.indices(n))) for s, n in zip((y, x), self.shape[1:], strict=True))
        return np.full((depth, rows, columns), UNLABELLED, np.uint8)
