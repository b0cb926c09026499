"""A label file as a volume of the scan's shape, whichever slices and whichever window of them it covers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .crops import keyed_rng
from .errors import InputError
from .label_values import UNLABELLED
from .readers import Labels
from .volumes import OUTSIDE, Volume

PATCHES = 10
"""Patches along y and along x that `labels.rate` cuts a slice into; 100 in all (few-pixel paper, section 4.2)."""


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
    corner : (y, x)
        Where the file's rows and columns begin in the scan.

    Attributes
    ----------
    values : list of int
        Labels that occur, in increasing order, 255 left out.
    counts : dict
        Label -> voxels of the file that bear it, 255 left out.
    mapping : dict
        Label -> '#rrggbb' for colour masks, else empty.
    warnings : list of str
    held_out : list of int
        Slices that no measure may count, whatever of them is labelled; see `hide`.
    """

    def __init__(
        self,
        labels: Labels,
        shape: tuple[int, int, int],
        slices: Sequence[int],
        table: dict[int, int],
        grey: Volume | None = None,
        corner: tuple[int, int] = (0, 0),
    ) -> None:
        self.labels, self.shape, self.table, self.grey, self.corner = labels, shape, table, grey, corner
        self.slices = sorted(slices)
        self.values = sorted(set(table.values()) - {UNLABELLED})
        self.counts: dict[int, int] = {}
        self.mapping = {table[n]: colour for n, colour in labels.mapping.items() if table[n] != UNLABELLED}
        self.warnings: list[str] = []
        self.held_out: list[int] = []
        self._visible: dict[int, np.ndarray] = {}
        self._place = {z: i for i, z in enumerate(slices)}
        self._keys = np.array(sorted(table))
        self._targets = np.array([table[k] for k in sorted(table)], dtype=np.uint8)

    def read(self, z0: int, z1: int, y: slice = slice(None), x: slice = slice(None)) -> np.ndarray:
        """Labels of slices z0 … z1 (clipped to the volume) of the window y, x; uint8 (z, y, x)."""
        z0, z1 = max(0, z0), min(self.shape[0], z1)
        spans = [s.indices(n)[:2] for s, n in zip((y, x), self.shape[1:], strict=True)]
        block = np.full((max(0, z1 - z0), *(max(0, b - a) for a, b in spans)), UNLABELLED, np.uint8)
        # The window's part that the file covers, counted in the scan, in the file and in the block.
        part = [
            (max(a, c), min(b, c + n)) for (a, b), c, n in zip(spans, self.corner, self.labels.shape[1:], strict=True)
        ]
        if any(b <= a for a, b in part):
            return block
        inside = tuple(slice(a - first, b - first) for (a, b), (first, _) in zip(part, spans, strict=True))
        file_y, file_x = (slice(a - c, b - c) for (a, b), c in zip(part, self.corner, strict=True))
        for z in range(z0, z1):
            if z not in self._place:
                continue
            place = self._place[z]
            raw = self.labels.read(place, place + 1, file_y, file_x)[0]
            block[z - z0][inside] = self._targets[np.searchsorted(self._keys, raw)]
            if z in self._visible:
                rows, columns = (
                    np.arange(a, b) * PATCHES // n for (a, b), n in zip(spans, self.shape[1:], strict=True)
                )
                block[z - z0][~self._visible[z][rows[:, None], columns]] = UNLABELLED
            if self.grey is not None:
                block[z - z0][self.grey.read(z, z + 1, y, x)[0] == OUTSIDE] = UNLABELLED
        return block

    def visible(self) -> set[int]:
        """Labels that occur inside the field of view; it looks until it has seen all that the file holds."""
        found: set[int] = set()
        for z in self.slices:
            if found >= set(self.counts):
                break
            found |= set(np.unique(self.read(z, z + 1)).tolist()) - {UNLABELLED}
        return found

    def hide(self, pool: int, rate: float, seed: int) -> None:
        """Keep one slice of `pool` (0: all), and of each slice the share `rate` of its patches; the rest is unpainted.

        As the few-pixel paper hides the annotation of a full slice (its section 4.2). The pool's slices are evenly
        spaced; pairs of them are the folds (one to train, one that the paper validates on), and the seed says which
        fold it is and which patches are seen. Of each class at least one patch is. Both slices of the pair are held out
        whole: of the first, the losses without labels see the hidden patches too.
        """
        if pool:
            if not 2 <= pool <= len(self.slices):
                raise InputError(
                    "labels.pool",
                    f"{pool} of {len(self.slices)} labelled slices",
                    "2 or more, all labelled",
                    "lower it",
                )
            fold = seed % (pool // 2)
            self.held_out = [self.slices[(4 * fold + k) * len(self.slices) // (2 * pool)] for k in (1, 3)]
            self.slices = self.held_out[:1]
            self._place = {z: self._place[z] for z in self.slices}
        grey, self.grey = self.grey, None  # `evaluate`, which has no grey levels, must hide the same
        for z in self.slices if rate < 1 else []:
            self._visible[z] = seen_patches(self.read(z, z + 1)[0], rate, keyed_rng(seed, "pixels", z))
        self.grey = grey
        self._recount()

    def keep_every(self, every: int) -> None:
        """Hide all labelled slices but each `every`-th, from number every // 2 on, so that none is far from one.

        What is hidden is 255 for every reader, so it is neither trained on nor left out of the metrics.
        """
        self.slices = self.slices[min(every // 2, len(self.slices) - 1) :: every]
        self._place = {z: self._place[z] for z in self.slices}
        self._recount()

    def _recount(self) -> None:
        grey, self.grey = self.grey, None
        counts = np.zeros(256, np.int64)
        for z in self.slices:
            counts += np.bincount(self.read(z, z + 1).ravel(), minlength=256)
        self.grey = grey
        self.counts = {label: int(counts[label]) for label in range(UNLABELLED) if counts[label]}
        self.values = sorted(self.counts)


def seen_patches(plane: np.ndarray, rate: float, rng: np.random.Generator) -> np.ndarray:
    """Which patches of a labelled slice (y, x) stay visible, bool (PATCHES, PATCHES).

    The share `rate` of the patches that hold a label, one at least for each class; drawn first are those that show a
    class which none of the others drawn so far does, the rarest class before the others.
    """
    rows, columns = (np.arange(n) * PATCHES // n for n in plane.shape)
    patch = (rows[:, None] * PATCHES + columns)[plane != UNLABELLED]
    held = np.zeros((PATCHES * PATCHES, UNLABELLED), bool)
    held[patch, plane[plane != UNLABELLED]] = True
    order = rng.permutation(np.flatnonzero(held.any(axis=1)))
    seen: list[int] = []
    for label in sorted(np.flatnonzero(held.any(axis=0)), key=lambda c: int(held[:, c].sum())):
        if not held[seen, label].any():
            seen.append(int(next(p for p in order if held[p, label])))
    wanted = round(rate * len(order))
    seen += [int(p) for p in order if p not in seen][: max(0, wanted - len(seen))]
    visible = np.zeros(PATCHES * PATCHES, bool)
    visible[seen] = True
    return visible.reshape(PATCHES, PATCHES)
