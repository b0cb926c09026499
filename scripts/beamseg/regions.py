"""Regions of a volume in which the network is least certain, from one pass over it."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Any

import numpy as np

SIZE = (8, 64, 64)
"""Voxels of a region: z, y, x. Slabs begin at multiples of 8, so no region is cut by one."""
KEPT, SHOWN = 64, 6


class LeastCertain:
    """Mean confidence and share of disputed voxels per block of `SIZE`; of the volume only the lowest blocks are kept.

    Windows (y, x) of slices come in bands of rows, in any order within eight slices and those in rising z.
    """

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape = tuple(int(n) for n in shape)
        tiles = [-(-n // size) for n, size in zip(self.shape[1:], SIZE[1:], strict=True)]
        self._sums = np.zeros((3, *tiles), np.int64)  # confidence, disputed, voxels
        self._columns = np.arange(0, self.shape[2], SIZE[2])
        self._layer = 0
        self._found: list[tuple[float, int, int, int, float, int]] = []

    def add(self, z: int, y: int, confidence: np.ndarray, disputed: np.ndarray, inside: np.ndarray) -> None:
        """Count one window of slice `z` from row `y`: confidence uint8, and two masks, all (rows, x)."""
        if z // SIZE[0] != self._layer:
            self._finish()
            self._layer = z // SIZE[0]
        rows = (y + np.arange(len(confidence))) // SIZE[1]
        for sums, values in zip(self._sums, (confidence * inside, disputed & inside, inside), strict=True):
            np.add.at(sums, rows, np.add.reduceat(values, self._columns, axis=1, dtype=np.int64))

    def _finish(self) -> None:
        confidence, disputed, voxels = self._sums
        least = np.prod([min(n, size) for n, size in zip(self.shape, SIZE, strict=True)]) // 4
        for i, j in np.argwhere(voxels >= max(least, 1)):
            n = int(voxels[i, j])
            place = (self._layer, int(i), int(j))
            self._found.append((float(confidence[i, j]) / (255 * n), *place, float(disputed[i, j]) / n, n))
        self._found = heapq.nsmallest(KEPT, self._found)
        self._sums[:] = 0

    def state(self) -> np.ndarray:
        """The lowest blocks found, float64 (n, 6), for `add_state` of another."""
        self._finish()
        return np.array(self._found, np.float64).reshape(-1, 6)

    def add_state(self, state: np.ndarray) -> None:
        """Take in what another has found in other slices."""
        found = [(c, int(layer), int(i), int(j), apart, int(n)) for c, layer, i, j, apart, n in state.tolist()]
        self._found = heapq.nsmallest(KEPT, self._found + found)

    def regions(self) -> list[dict[str, Any]]:
        """The least certain blocks that do not touch, by rising mean confidence.

        Returns
        -------
        list of dict
            z, y, x (each [first, end)), confidence and disputed (shares), voxels. A block of which less than a quarter
            lies in the field of view is left out.
        """
        self._finish()
        chosen: list[tuple[float, int, int, int, float, int]] = []
        for entry in self._found:
            if all(max(abs(entry[k] - other[k]) for k in (1, 2, 3)) > 1 for other in chosen):
                chosen.append(entry)
        found = []
        for confidence, *place, disputed, voxels in chosen[:SHOWN]:
            borders = {
                axis: [index * size, min((index + 1) * size, n)]
                for axis, index, size, n in zip("zyx", place, SIZE, self.shape, strict=True)
            }
            found.append({**borders, "confidence": confidence, "disputed": disputed, "voxels": voxels})
        return found
