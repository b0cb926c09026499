"""NumPy's .npy: one array, mapped into memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import InputError
from .raw import check_type, in_place
from .source import AGAIN, ReadOptions, Source, begins_with, native

MAGIC = b"\x93NUMPY"


def matches(path: Path) -> bool:
    """Whether the file begins as a .npy file does."""
    return begins_with(path, MAGIC)


def open_source(path: Path, options: ReadOptions) -> Source:
    """Open a .npy file of a 3-D array; it has no voxel size. See `beamseg.readers.open_source`."""
    try:
        voxels = np.lib.format.open_memmap(path, mode="r")
    except ValueError as error:
        size = path.stat().st_size
        raise InputError(
            path, f"a truncated or damaged .npy file of {size} bytes ({error})", "a whole .npy file", AGAIN
        ) from error
    check_type(path, voxels.dtype)
    if voxels.ndim != 3 or 0 in voxels.shape:
        raise InputError(path, f"an array of shape {voxels.shape}", "a 3-D array (z, y, x)", "save one volume per file")

    def read_window(z0: int, z1: int, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        return voxels[z0:z1, y0:y1, x0:x1]

    in_c_order = voxels.flags.c_contiguous
    return Source(
        format="npy",
        shape=voxels.shape,
        dtype=native(voxels.dtype),
        files=[path],
        read_window=in_place(path, voxels, voxels.offset) if in_c_order else read_window,
    )
