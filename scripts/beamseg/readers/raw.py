"""Voxels in one uncompressed block of a file: what npy, MRC, flat TIFF and raw volumes share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..errors import InputError
from .source import AGAIN

Window = Callable[[int, int, int, int, int, int], np.ndarray]


def check_type(path: Path, dtype: np.dtype) -> None:
    """Raise InputError unless voxels are real numbers."""
    if dtype.kind not in "uifb":
        kind = "complex numbers" if dtype.kind == "c" else f"voxels of type {dtype}"
        raise InputError(
            path, kind, "integers or floating-point numbers", "save the real quantity (modulus, phase) alone"
        )


def mapped(path: Path, shape: tuple[int, int, int], dtype: np.dtype, offset: int, *, exact: bool = False) -> Window:
    """A `read_window` over the voxels of a file that begin at a byte offset.

    Parameters
    ----------
    path : Path
    shape : (int, int, int)
        As stored, the last axis fastest.
    dtype : dtype
        With byte order.
    offset : int
        Bytes before the voxels.
    exact : bool
        Whether bytes after the voxels are refused: where the shape stands in another file, they mean a wrong one.

    Raises
    ------
    InputError
        If the file is too short (or too long), or holds no real numbers.
    """
    check_type(path, dtype)
    if not path.exists():
        raise InputError(path, "no such file", "the voxels that the header describes", "copy that file too")
    size = path.stat().st_size
    wanted = offset + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if min(shape) < 1:
        raise InputError(path, f"a volume of shape {shape}", "voxels", "write the volume again")
    if size < wanted:
        raise InputError(
            path, f"a truncated file of {size} bytes", f"{wanted} bytes for {shape} {dtype.newbyteorder('=')}", AGAIN
        )
    if exact and size > wanted:
        raise InputError(
            path,
            f"{size} bytes",
            f"{wanted} bytes for {shape} {dtype.newbyteorder('=')}, as the header says",
            "give the header of this file, or correct its sizes and its type",
        )
    return in_place(path, np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=shape), offset)


def in_place(path: Path, voxels: np.ndarray, offset: int) -> Window:
    """A `read_window` over a mapped array, (z, y, x) or (z, y, x, channel), in C order from a byte offset of its file.

    Whole lines are read, since pages that a map has touched count as the process's memory; narrower windows, as crops
    are, come from the map.
    """
    _, rows, columns, *tail = voxels.shape
    line = int(np.prod([columns, *tail], dtype=np.int64))

    def lines(z: int, y: int, count: int) -> np.ndarray:
        """Lines that follow each other, from line y of slice z on."""
        found = np.fromfile(path, voxels.dtype, count * line, offset=offset + (z * rows + y) * line * voxels.itemsize)
        if found.size < count * line:
            raise InputError(path, "a file that became shorter since it was opened", "voxels", "copy it again")
        return found

    def read_window(z0: int, z1: int, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        if (x0, x1) != (0, columns):
            return voxels[z0:z1, y0:y1, x0:x1]
        if (y0, y1) == (0, rows):
            return lines(z0, 0, (z1 - z0) * rows).reshape(z1 - z0, *voxels.shape[1:])
        return np.stack([lines(z, y0, y1 - y0) for z in range(z0, z1)]).reshape(z1 - z0, y1 - y0, *voxels.shape[2:])

    return read_window


def text_fields(text: str, separator: str) -> dict[str, str]:
    """`key separator value` lines as a dict of lower-case keys; lines without a separator are left out."""
    fields = {}
    for line in text.splitlines():
        key, found, value = line.partition(separator)
        if found and not line.lstrip().startswith(("#", "!")):
            fields[key.strip().lower()] = value.strip()
    return fields


def whole_number(path: Path, fields: dict[str, str], key: str) -> int:
    """A whole number of a header field, 0 if there is none; −1 is one too. Raises InputError for anything else."""
    value = fields.get(key, "0")
    if not value.lstrip("-").isdecimal():
        raise InputError(path, f"{key} is {value!r}", "a whole number", "mend the header, or export the scan again")
    return int(value)


def whole_numbers(path: Path, fields: dict[str, str], key: str, count: int) -> tuple[int, ...]:
    """`count` positive whole numbers of a header field; raises InputError for anything else."""
    value = fields.get(key, "")
    try:
        numbers = tuple(int(part) for part in value.split())
    except ValueError:
        numbers = ()
    if len(numbers) != count or min(numbers) < 1:
        raise InputError(
            path, f"{key} is {value!r}", f"{count} positive whole numbers", "mend the header, or export the scan again"
        )
    return numbers
