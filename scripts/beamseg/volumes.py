"""Volumes: anything with a shape (z, y, x) and `read(z0, z1, y, x)`; nobody holds a whole one unless it fits."""

from __future__ import annotations

from typing import Protocol

import numpy as np

OUTSIDE = 0  # grey level outside the field of view
MAX_GREY = 65535


class Volume(Protocol):
    """What every stage reads: a shape and a window."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        ...

    def read(self, z0: int, z1: int, y: slice = slice(None), x: slice = slice(None)) -> np.ndarray:
        """Slices z0 … z1 (clipped to the volume) of the window y, x; shape (z, y, x)."""
        ...


class ArrayVolume:
    """An array in memory as a volume."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.shape: tuple[int, int, int] = array.shape  # type: ignore[assignment]

    def read(self, z0: int, z1: int, y: slice = slice(None), x: slice = slice(None)) -> np.ndarray:
        """A view of the window."""
        return self.array[max(0, z0) : max(0, z1), y, x]


class TableVolume:
    """Each grey level looked up in a table: pseudo-labels, which are never stored.

    Parameters
    ----------
    volume : Volume
        Of uint16 grey levels.
    table : ndarray, uint8, (65536,)
        Grey level -> label; 255 is unlabelled.
    """

    def __init__(self, volume: Volume, table: np.ndarray) -> None:
        self.volume, self.table = volume, table
        self.shape = volume.shape

    def read(self, z0: int, z1: int, y: slice = slice(None), x: slice = slice(None)) -> np.ndarray:
        """Labels of the window, uint8."""
        return self.table[self.volume.read(z0, z1, y, x)]


def in_memory(volume: Volume, budget_mb: float, itemsize: int = 2) -> Volume:
    """The volume held as an array if it fits `budget_mb`, else the volume itself."""
    if isinstance(volume, ArrayVolume) or np.prod(volume.shape, dtype=float) * itemsize > budget_mb * 2**20:
        return volume
    return ArrayVolume(volume.read(0, volume.shape[0]))
