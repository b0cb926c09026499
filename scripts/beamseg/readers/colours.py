"""Label and truth files: integer volumes as they are, colour masks as class numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .source import Source, planes

MOST_COLOURS = 64


@dataclass
class Labels:
    """A label file, open for reading: integers of the file's own shape.

    Parameters
    ----------
    source : Source
    colours : ndarray, optional
        For colour masks, the packed colours 0xRRGGBB in increasing order; the class of a voxel is the place of its
        colour in this array.
    mapping : dict
        Class number -> '#rrggbb'; empty for masks of integers.
    """

    source: Source
    colours: np.ndarray | None = None
    mapping: dict[int, str] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        return self.source.shape

    @property
    def dtype(self) -> np.dtype:
        """uint8 for colour masks, int64 for floating-point files of whole numbers, else the file's."""
        if self.colours is not None:
            return np.dtype(np.uint8)
        return np.dtype(np.int64) if self.source.dtype.kind == "f" else self.source.dtype

    @property
    def files(self) -> list[Path]:
        """All files that hold voxels."""
        return self.source.files

    def read(self, z0: int, z1: int, y: slice = slice(None), x: slice = slice(None)) -> np.ndarray:
        """Slices z0 … z1 (clipped to the volume) and the window y, x; integers."""
        block = self.source.read(z0, z1, y, x)
        if self.colours is not None:
            packed = pack(block)
            place = np.searchsorted(self.colours, packed)
            return place.astype(np.uint8)
        if block.dtype.kind == "f":
            whole = np.rint(block)
            if not np.array_equal(whole, block):
                raise InputError(
                    self.files[0], "values that are no whole numbers", "class numbers", "give a file of labels"
                )
            return whole.astype(np.int64)
        return block


def pack(block: np.ndarray) -> np.ndarray:
    """Colours (…, 3) uint8 as uint32 0xRRGGBB, (…)."""
    wide = block.astype(np.uint32)
    return (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]


def open_labels(path: str | Path, dataset: str | None = None, **how: Any) -> Labels:
    """Open a label or truth file: any format of `open_source` (and its keywords, `how`), and colour masks.

    Masks of integers keep their values (a 0/255 mask stays 0 and 255). Colour masks become 0, 1, … in the order of
    (red, green, blue); `mapping` says which colour is which.

    Raises
    ------
    InputError
        As `open_source`; and for colour masks of more than 64 colours (smoothed or JPEG-compressed ones).
    """
    from . import open_source

    source = open_source(path, dataset, colours=True, **how)
    if not source.channels:
        return Labels(source)
    if source.dtype != np.uint8:
        raise InputError(Path(path), f"colours of {source.dtype.name}", "8 bits per channel", "save the masks as RGB8")
    found = np.empty(0, np.uint32)
    for z0, z1 in planes(source, 0, source.shape[0], 8.0):
        found = np.union1d(found, np.unique(pack(source.read(z0, z1))))
        if len(found) > MOST_COLOURS:
            raise InputError(
                Path(path),
                f"more than {MOST_COLOURS} colours",
                "a few, one per class",
                "save the masks without smoothing and without JPEG compression",
            )
    mapping: dict[int, Any] = {number: f"#{colour:06x}" for number, colour in enumerate(found.tolist())}
    return Labels(source, found, mapping)
