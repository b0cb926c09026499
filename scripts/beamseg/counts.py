"""Counts of all stages in one pass over the volumes: windows, slabs and parts in any order sum exactly."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from . import metrics
from .errors import InputError
from .progress import Progress
from .regions import LeastCertain
from .slabs import UNLABELLED
from .volumes import Volume

# Codes of the truth beside its values: what is left out is counted in the same table.
OUT_OF_VIEW, TRAINED_ON = 253, 254
MAX_TRUTH = 252


class Counts:
    """Additive counts of all stages over windows of the volume; `add` in any order, sums are exact.

    `per_slice` holds the labels below `n_labels` alone, since it is what grows with the volume.
    """

    def __init__(self, names: list[str], n_slices: int, n_labels: int) -> None:
        self.names = names
        self.truth = {name: np.zeros((256, 256), np.int64) for name in names}
        self.pairs = {(a, b): np.zeros((256, 256), np.int64) for i, a in enumerate(names) for b in names[i + 1 :]}
        self.per_slice = {name: np.zeros((n_slices, n_labels), np.int64) for name in names}
        self.disputed = np.zeros(n_slices, np.int64)
        self.compared = np.zeros(n_slices, np.int64)
        self.confidence = {name: np.zeros(256, np.int64) for name in names}
        self.regions: list[dict[str, Any]] = []

    def add(self, z: int, labels: list[np.ndarray], truth: np.ndarray, confidence: np.ndarray | None) -> None:
        """Count one window (y, x) of slice `z`: uint8 labels per stage, truth codes, confidence."""
        for i, (name, label) in enumerate(zip(self.names, labels, strict=True)):
            counts = metrics.contingency(label, truth)
            self.truth[name] += counts
            per_slice = self.per_slice[name][z]
            per_slice += counts.sum(axis=1)[: len(per_slice)]
            for j in range(i + 1, len(labels)):
                self.pairs[name, self.names[j]] += metrics.contingency(label, labels[j])
            if confidence is not None:
                # Sums of at most 2**31 whole numbers: exact in float64.
                self.confidence[name] += np.bincount(label.ravel(), confidence.ravel(), 256).astype(np.int64)
        self.compared[z] += np.count_nonzero(truth <= MAX_TRUTH)
        self.disputed[z] += np.count_nonzero(disputed(labels))


def check_shapes(shape: tuple[int, int, int], volumes: dict[str, Volume]) -> None:
    """Raise InputError for a volume, named, that is not of the scan's shape (z, y, x)."""
    for name, volume in volumes.items():
        if tuple(volume.shape) != tuple(shape):
            raise InputError(
                name,
                f"shape {tuple(volume.shape)} (z, y, x)",
                f"{tuple(shape)}, the scan's",
                "give a volume on the scan's own grid; slices without labels are filled with 255",
            )


def windows(shape: tuple[int, int, int], bytes_per_voxel: float, budget_mb: float) -> Iterator[tuple[int, int, slice]]:
    """Windows (z0, z1, rows) that fit the budget, along the chunks of slabs: eights of slices, whole or in bands."""
    room = max(1, int(budget_mb * 2**20 / bytes_per_voxel / shape[2]))  # rows of voxels
    depth, rows = 8, room // 8
    if rows >= shape[1]:
        depth, rows = room // shape[1] // 8 * 8, shape[1]
    elif rows == 0:
        depth, rows = 1, min(room, shape[1])
    elif rows > 256:
        rows = rows // 256 * 256
    for z in range(0, shape[0], depth):
        for y in range(0, shape[1], rows):
            yield z, min(z + depth, shape[0]), slice(y, min(y + rows, shape[1]))


def count(
    stages: dict[str, Volume],
    to_class: np.ndarray,
    truth: Volume | None,
    training_labels: Volume | None,
    confidence: Volume | None,
    mem_budget_mb: float = 512,
) -> Counts:
    """The one pass: counts of every stage, its labels looked up in `to_class` (256,), against truth and each other."""
    shape = next(iter(stages.values())).shape
    n_labels = int(np.max(to_class, where=to_class != UNLABELLED, initial=0)) + 1
    counts = Counts(list(stages), shape[0], n_labels)
    least_certain = LeastCertain(shape)
    # Per voxel: a byte per stage and its class, truth (read and coded), labels, confidence, and room for the indices.
    per_voxel = 2 * len(stages) + 24
    with Progress(math.prod(shape), "voxels", "evaluate") as progress:
        for z0, z1, rows in windows(shape, per_voxel, mem_budget_mb):
            labels = [to_class[volume.read(z0, z1, rows)] for volume in stages.values()]
            codes = np.full(labels[0].shape, UNLABELLED, np.uint8)
            if truth is not None:
                codes = np.array(truth.read(z0, z1, rows))
                if training_labels is not None:
                    codes[(training_labels.read(z0, z1, rows) != UNLABELLED) & (codes != UNLABELLED)] = TRAINED_ON
            outside = labels[0] == UNLABELLED
            codes[outside] = OUT_OF_VIEW
            for label in labels[1:]:
                label[outside] = UNLABELLED
            trust = None if confidence is None else confidence.read(z0, z1, rows)
            for i, z in enumerate(range(z0, z1)):
                counts.add(z, [label[i] for label in labels], codes[i], None if trust is None else trust[i])
                if trust is not None:
                    least_certain.add(z, rows.start, trust[i], disputed([label[i] for label in labels]), ~outside[i])
            progress.update(codes.size)
    if confidence is not None:
        counts.regions = least_certain.regions()
    return counts


def disputed(labels: list[np.ndarray]) -> np.ndarray:
    """Where not all label images agree, bool (y, x)."""
    found = np.zeros(labels[0].shape, bool)
    for label in labels[1:]:
        found |= label != labels[0]
    return found


def spread_out(share: np.ndarray, gap: int, most: int = 8) -> list[int]:
    """Slices by falling share of voxels in dispute, each at least `gap` slices from those before it."""
    chosen: list[int] = []
    for z in np.argsort(-share, kind="stable"):
        if share[z] > 0 and all(abs(int(z) - other) >= gap for other in chosen):
            chosen.append(int(z))
        if len(chosen) == most:
            break
    return chosen
