"""count: all stages counted in one pass over the volumes; windows, slabs and parts in any order sum exactly."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from . import metrics
from .errors import InputError
from .label_values import MAX_TRUTH, UNLABELLED
from .progress import Progress
from .provenance import atomic_path
from .regions import LeastCertain
from .volumes import Volume

# Codes of the truth beside its values: what is left out is counted in the same table.
OUT_OF_VIEW, TRAINED_ON = 253, 254


class Counts:
    """Additive counts of all stages over windows of the volume; `add` in any order, sums are exact.

    `per_slice` holds the labels below `n_labels` alone, since it is what grows with the volume.
    """

    def __init__(self, names: list[str], shape: tuple[int, int, int], n_labels: int) -> None:
        n_slices = shape[0]
        self.names, self.n_labels = names, n_labels
        self.truth = {name: np.zeros((256, 256), np.int64) for name in names}
        self.pairs = {(a, b): np.zeros((256, 256), np.int64) for i, a in enumerate(names) for b in names[i + 1 :]}
        self.per_slice = {name: np.zeros((n_slices, n_labels), np.int64) for name in names}
        self.disputed = np.zeros(n_slices, np.int64)
        self.compared = np.zeros(n_slices, np.int64)
        self.held_out = np.zeros(n_slices, np.int64)
        self.confidence = {name: np.zeros(256, np.int64) for name in names}
        self.least_certain = LeastCertain(shape)

    def add(self, z: int, window: Window) -> None:
        """Add what one window (y, x) of slice `z` holds, see `counted`."""
        stages, last = self.names, len(self.names)
        for (i, j), table in window.pairs.items():
            sums = self.truth[stages[i]] if j == last else self.pairs[stages[i], stages[j]]
            sums[np.ix_(window.values[i], window.values[j])] += table
            if j == last:
                self.per_slice[stages[i]][z] += table.sum(axis=1)[: self.n_labels]
        for name, held, sums in zip(stages, window.values, window.confidence, strict=False):
            self.confidence[name][held] += sums
        self.compared[z] += window.pairs[0, last][:, window.values[last] <= MAX_TRUTH].sum()
        self.disputed[z] += np.count_nonzero(window.disputed)

    def arrays(self) -> dict[str, np.ndarray]:
        """All sums, by names that `numpy.savez` takes."""
        found: dict[str, np.ndarray] = {"disputed": self.disputed, "compared": self.compared, "held_out": self.held_out}
        for name in self.names:
            found |= {f"truth {name}": self.truth[name], f"per_slice {name}": self.per_slice[name]}
            found[f"confidence {name}"] = self.confidence[name]
        return found | {f"pairs {a} {b}": sums for (a, b), sums in self.pairs.items()}

    def save(self, path: str | Path) -> None:
        """Write the sums of a part."""
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **{"least_certain": self.least_certain.state(), **self.arrays()})  # type: ignore[arg-type]

    def add_saved(self, path: str | Path) -> None:
        """Add the sums of a part that `save` wrote."""
        with np.load(path, allow_pickle=False) as saved:
            for name, sums in self.arrays().items():
                sums += saved.get(name, 0)  # parts of an earlier version hold nothing out
            self.least_certain.add_state(saved["least_certain"])


@dataclass(frozen=True)
class Window:
    """What a window (y, x) of a slice holds: `pairs` of stages i < j, and of stage i and the truth, the last."""

    values: list[np.ndarray]
    pairs: dict[tuple[int, int], np.ndarray]
    confidence: list[np.ndarray]
    disputed: np.ndarray


def counted(labels: list[np.ndarray], truth: np.ndarray, confidence: np.ndarray | None, n_labels: int) -> Window:
    """Count one window.

    Parameters
    ----------
    labels : list of ndarray
        uint8 (y, x) per stage, below `n_labels` or 255.
    truth : ndarray
        uint8 (y, x), its codes.
    confidence : ndarray, optional
        uint8 (y, x); it is summed per label.
    """
    present = np.flatnonzero(np.bincount(truth.ravel(), minlength=256))
    place = np.zeros(256, np.uint8)
    place[present] = np.arange(len(present))
    images = [*(np.minimum(label, n_labels) for label in labels), place[truth]]
    values = [np.append(np.arange(n_labels), UNLABELLED)] * len(labels) + [present]
    sizes = [len(held) for held in values]
    last = len(labels)
    pairs = [(i, j) for i in range(last) for j in range(i + 1, last + 1)]
    if math.prod(sizes) > truth.size:
        tables = {(i, j): metrics.joint_counts([images[i], images[j]], [sizes[i], sizes[j]]) for i, j in pairs}
        stages = [] if confidence is None else images[:last]
        sums = [metrics.joint_counts([image], [n_labels + 1], confidence) for image in stages]
    else:
        # One table of all, that every pair is read off: one pass over the window in place of one for each pair.
        everything = range(last + 1)
        whole = metrics.joint_counts(images, sizes)
        tables = {pair: whole.sum(axis=tuple(k for k in everything if k not in pair)) for pair in pairs}
        sums = []
        if confidence is not None:
            weighed = metrics.joint_counts(images[:last], sizes[:last], confidence)
            sums = [weighed.sum(axis=tuple(k for k in range(last) if k != i)) for i in range(last)]
    # Sums of at most 2**31 whole numbers: exact in float64.
    return Window(values, tables, [of.astype(np.int64) for of in sums], metrics.disputed(labels))


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


def windows(
    shape: tuple[int, int, int], bytes_per_voxel: float, budget_mb: float, slabs: Sequence[tuple[int, int]]
) -> Iterator[tuple[int, int, slice]]:
    """Windows (z0, z1, rows) that fit the budget, along the chunks of slabs: eights of slices, whole or in bands."""
    room = max(1, int(budget_mb * 2**20 / bytes_per_voxel / shape[2]))  # rows of voxels
    depth, rows = 8, room // 8
    if rows >= shape[1]:
        depth, rows = room // shape[1] // 8 * 8, shape[1]
    elif rows == 0:
        depth, rows = 1, min(room, shape[1])
    elif rows > 256:
        rows = rows // 256 * 256
    for start, end in slabs:
        for z in range(start, end, depth):
            for y in range(0, shape[1], rows):
                yield z, min(z + depth, end), slice(y, min(y + rows, shape[1]))


def count(
    stages: dict[str, Volume],
    to_class: np.ndarray,
    truth: Volume | None,
    training_labels: Volume | None,
    confidence: Volume | None,
    *,
    mem_budget_mb: float = 512,
    slabs: Sequence[tuple[int, int]] | None = None,
    parts: Sequence[str | Path] = (),
) -> Counts:
    """The one pass: counts of every stage against the truth and each other.

    Parameters
    ----------
    stages, truth, training_labels, confidence
        As for `evaluate`.
    to_class : ndarray
        uint8 (256,): the class of each label, 255 of none.
    mem_budget_mb : float
        MiB that may be held of the volumes at once.
    slabs : sequence of (z0, z1), optional
        The slices to count, by default all; each begins at a multiple of 8.
    parts : sequence of path, optional
        What `Counts.save` left of parts that make the volume together: summed, and nothing is counted.

    Raises
    ------
    InputError
        If shapes differ.
    """
    shape = next(iter(stages.values())).shape
    held_out = getattr(training_labels, "held_out", [])
    extra = {"truth": truth, "labels": training_labels, "confidence": confidence}
    check_shapes(shape, {**stages, **{name: volume for name, volume in extra.items() if volume is not None}})
    n_labels = int(np.max(to_class, where=to_class != UNLABELLED, initial=0)) + 1
    counts = Counts(list(stages), shape, n_labels)
    for path in parts:
        counts.add_saved(path)
    if parts:
        return counts
    # Per voxel: a byte per stage and its class, truth (read and coded), labels, confidence, and room for the indices.
    per_voxel = 2 * len(stages) + 24
    slabs = [(0, shape[0])] if slabs is None else slabs
    total = sum(z1 - z0 for z0, z1 in slabs) * shape[1] * shape[2]
    with Progress(total, "voxels", "count") as progress:
        for z0, z1, rows in windows(shape, per_voxel, mem_budget_mb, slabs):
            labels = [to_class[volume.read(z0, z1, rows)] for volume in stages.values()]
            codes = np.full(labels[0].shape, UNLABELLED, np.uint8)
            if truth is not None:
                codes = np.array(truth.read(z0, z1, rows))
                if training_labels is not None:
                    codes[(training_labels.read(z0, z1, rows) != UNLABELLED) & (codes != UNLABELLED)] = TRAINED_ON
            outside = labels[0] == UNLABELLED
            codes[outside] = OUT_OF_VIEW
            for z in set(held_out) & set(range(z0, z1)):
                unseen = codes[z - z0] <= MAX_TRUTH
                counts.held_out[z] += np.count_nonzero(unseen)
                codes[z - z0][unseen] = UNLABELLED
            for label in labels[1:]:
                label[outside] = UNLABELLED
            trust = None if confidence is None else confidence.read(z0, z1, rows)
            for i, z in enumerate(range(z0, z1)):
                window = counted(
                    [label[i] for label in labels], codes[i], None if trust is None else trust[i], n_labels
                )
                counts.add(z, window)
                if trust is not None:
                    counts.least_certain.add(z, rows.start, trust[i], window.disputed, ~outside[i])
            progress.update(codes.size)
    return counts


def spread_out(share: np.ndarray, gap: int, most: int = 8) -> list[int]:
    """Slices by falling share of voxels in dispute, each at least `gap` slices from those before it."""
    chosen: list[int] = []
    for z in np.argsort(-share, kind="stable"):
        if share[z] > 0 and all(abs(int(z) - other) >= gap for other in chosen):
            chosen.append(int(z))
        if len(chosen) == most:
            break
    return chosen
