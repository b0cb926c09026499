"""Labels that a user gives: to train on (`labels`) or to be judged by (`truth`). Two openers, one reader."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError
from .readers import Labels, open_labels
from .readers.source import planes
from .slabs import UNLABELLED
from .volumes import OUTSIDE, Volume


class SliceLabels:
    """A label file as a volume of the scan's shape; 255 where there is no label.

    Parameters
    ----------
    labels : Labels
        The file.
    shape : (z, y, x)
        Of the scan.
    slices : list of int
        For each slice of the file, which slice of the scan it stands for.
    table : dict
        Value in the file -> label 0 … 254, or 255.
    grey : Volume, optional
        Normalized scan; voxels that lie outside its field of view become 255.

    Attributes
    ----------
    values : list of int
        Labels that occur, in increasing order, 255 left out.
    mapping : dict
        Label -> '#rrggbb' for colour masks, else empty.
    warnings : list of str
    """

    def __init__(
        self,
        labels: Labels,
        shape: tuple[int, int, int],
        slices: Sequence[int],
        table: dict[int, int],
        grey: Volume | None = None,
    ) -> None:
        self.labels, self.shape, self.table, self.grey = labels, shape, table, grey
        self.slices = sorted(slices)
        self.values = sorted(set(table.values()) - {UNLABELLED})
        self.mapping = labels.mapping
        self.warnings: list[str] = []
        self._place = {z: i for i, z in enumerate(slices)}
        self._keys = np.array(sorted(table))
        self._targets = np.array([table[k] for k in sorted(table)], dtype=np.uint8)

    def read(self, z0: int, z1: int, y: slice = slice(None), x: slice = slice(None)) -> np.ndarray:
        """Labels of slices z0 … z1 (clipped to the volume) of the window y, x; uint8 (z, y, x)."""
        z0, z1 = max(0, z0), min(self.shape[0], z1)
        rows, columns = (len(range(*s.indices(n))) for s, n in zip((y, x), self.shape[1:], strict=True))
        block = np.full((max(0, z1 - z0), rows, columns), UNLABELLED, np.uint8)
        for z in range(z0, z1):
            if z not in self._place:
                continue
            place = self._place[z]
            raw = self.labels.read(place, place + 1, y, x)[0]
            block[z - z0] = self._targets[np.searchsorted(self._keys, raw)]
            if self.grey is not None:
                block[z - z0][self.grey.read(z, z + 1, y, x)[0] == OUTSIDE] = UNLABELLED
        return block


def open_training_labels(
    label_source: str,
    settings: dict[str, Any],
    grey: Volume,
    pseudo_labels: Volume | None = None,
    path: str | Path | None = None,
) -> Volume:
    """The labels that stage 2 trains on, a volume of uint8 with 255 where there is none.

    Parameters
    ----------
    label_source : str
        `clusters` or `slices`.
    settings : dict
        Section `labels`: dataset, unlabelled, slices.
    grey : Volume
        The normalized scan.
    pseudo_labels : Volume, optional
        For source `clusters`.
    path : path, optional
        The label file, resolved, for source `slices`.

    Raises
    ------
    InputError
        If the source lacks what it needs, or the file does not fit the scan.
    """
    if label_source == "clusters":
        if pseudo_labels is None:
            raise InputError("label_source", "clusters, but no pseudo-labels", "a table", "run pseudo_label")
        return pseudo_labels
    if not path:
        raise InputError(
            "label_source", "slices, but no label file", "a path in the column `labels`", "give it, or use clusters"
        )
    return open_slices(path, settings["dataset"], grey.shape, settings["slices"], settings["unlabelled"], grey)


def open_truth(
    path: str | Path,
    dataset: str | None,
    shape: tuple[int, int, int],
    slices: Sequence[int] | None = None,
    unlabelled: int | None = None,
) -> SliceLabels:
    """The truth of a scan, a volume of uint8 with 255 where there is none. For `evaluate` alone.

    See `open_slices` for the parameters and what is refused.
    """
    return open_slices(path, dataset, shape, slices, unlabelled)


def open_slices(
    path: str | Path,
    dataset: str | None,
    shape: tuple[int, int, int],
    slices: Sequence[int] | None = None,
    unlabelled: int | None = None,
    grey: Volume | None = None,
) -> SliceLabels:
    """Open a label file of some or all slices of a scan; its values are looked through once.

    Parameters
    ----------
    path, dataset
        Any format that readers know; colour masks become 0, 1, … in the order of (red, green, blue).
    shape : (z, y, x)
        Of the scan.
    slices : list of int, optional
        Which slices of the scan the file's slices stand for, where it holds fewer.
    unlabelled : int, optional
        Value that marks voxels without a label. By default 255, except in masks of 0 and 255 alone, where 255 is
        class 1.

    Raises
    ------
    InputError
        If the shape does not fit the scan, `slices` does not fit the file, or a value is no label (below 0, or above
        254 and not `unlabelled`).
    """
    path = Path(path)
    shape = (int(shape[0]), int(shape[1]), int(shape[2]))
    labels = open_labels(path, dataset)
    chosen = _chosen(path, labels.shape, shape, slices)
    found = _distinct(labels)
    warnings: list[str] = []
    table = {value: value for value in found}
    if unlabelled is not None:
        table[unlabelled] = UNLABELLED
    elif found == [0, UNLABELLED]:
        table[UNLABELLED] = 1
        warnings.append("a mask of 0 and 255 alone: 255 is read as class 1")
    if unlabelled not in (None, UNLABELLED) and table.get(UNLABELLED) == UNLABELLED:
        raise InputError(
            path,
            f"the value 255 besides {unlabelled}, which marks what has no label",
            "classes 0 … 254",
            "renumber class 255",
        )
    wrong = [value for value, label in table.items() if not 0 <= label <= UNLABELLED]
    if wrong:
        raise InputError(
            path,
            f"values {', '.join(map(str, wrong[:5]))}{' …' if len(wrong) > 5 else ''}",
            "classes 0 … 254",
            "renumber the classes, or name the value that marks what has no label (`unlabelled`)",
        )
    result = SliceLabels(labels, shape, chosen, table, grey)
    result.warnings = [*labels.source.warnings, *warnings]
    return result


def _chosen(
    path: Path, found: tuple[int, int, int], shape: tuple[int, int, int], slices: Sequence[int] | None
) -> list[int]:
    """The scan's slice for each slice of the file."""
    if found[1:] != shape[1:] or (slices is None and found[0] != shape[0]):
        raise InputError(
            path,
            f"labels of shape {found}",
            f"the scan's shape, {shape}",
            "give labels of this scan; if they are of some of its slices, say of which (`slices`)",
        )
    if slices is None:
        return list(range(shape[0]))
    chosen = [int(z) for z in slices]
    if len(chosen) != found[0] or len(set(chosen)) != len(chosen) or not all(0 <= z < shape[0] for z in chosen):
        raise InputError(
            path,
            f"{found[0]} slices in the file, `slices` is {chosen}",
            f"{found[0]} different numbers from 0 to {shape[0] - 1}",
            "correct `slices`",
        )
    return chosen


def _distinct(labels: Labels) -> list[int]:
    """The values of a label file, in increasing order."""
    found: set[int] = set()
    for z0, z1 in planes(labels.source, 0, labels.shape[0], 8.0):
        block = labels.read(z0, z1)
        if block.dtype == np.uint8:
            found.update(np.flatnonzero(np.bincount(block.ravel(), minlength=256)).tolist())
        else:
            found.update(np.unique(block).tolist())
        if len(found) > 4096:
            break
    return sorted(found)
