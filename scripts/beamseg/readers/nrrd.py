"""NRRD: a text header `.nhdr` beside raw voxels, or both in one `.nrrd`."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from ..errors import InputError
from .raw import mapped, text_fields, whole_number, whole_numbers
from .source import ReadOptions, Source, begins_with, native, refuse_outside, said_size, sizes_um

HEAD = 65536
MAGIC = b"NRRD000"
TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "f4": ("float",),
    "f8": ("double",),
}
NAMES = {name: code for code, names in TYPES.items() for name in names}


def matches(path: Path) -> bool:
    """Whether the file begins as a NRRD does."""
    return begins_with(path, MAGIC)


def open_source(path: Path, options: ReadOptions) -> Source:
    """Open a raw-encoded NRRD of three axes, the first fastest; see `beamseg.readers.open_source`.

    Lengths bear `space units`; where only `space` is given (left-posterior-superior …) they are millimetres.
    """
    with open(path, "rb") as file:
        head = file.read(HEAD)
    blank = re.search(rb"\r?\n\r?\n", head)
    end = blank.end() if blank else len(head)
    fields = text_fields(head[:end].decode(errors="replace"), ":")
    x, y, z = whole_numbers(path, fields, "sizes", 3)
    encoding, kind = fields.get("encoding", ""), fields.get("type", "").lower()
    if encoding.lower() != "raw":
        raise InputError(path, f"encoding {encoding}", "encoding raw", "save it without compression")
    if kind not in NAMES:
        raise InputError(path, f"type {kind}", f"one of {', '.join(n[0] for n in TYPES.values())}", "convert the file")
    dtype = np.dtype(NAMES[kind]).newbyteorder(">" if fields.get("endian", "little").lower() == "big" else "<")
    name = fields.get("data file") or fields.get("datafile")
    if name is not None and ("%" in name or name.split()[:1] == ["LIST"]):
        raise InputError(path, f"data file: {name}", "one data file", "save the volume as one raw file")
    voxels = path if name is None else path.parent / name
    refuse_outside(path, "data file", [voxels], options)
    offset = end if name is None else whole_number(path, fields, "byte skip")
    if offset == -1:
        offset = voxels.stat().st_size - x * y * z * dtype.itemsize if voxels.exists() else 0
    size, doubts = said_size(lambda: _size(fields))
    return Source(
        format="nrrd",
        shape=(z, y, x),
        dtype=native(dtype),
        files=[path] if name is None else [path, voxels],
        read_window=mapped(voxels, (z, y, x), dtype, offset, exact=True),
        voxel_size_um=size,
        size_warnings=doubts,
    )


def _size(fields: dict[str, str]) -> tuple[list[float] | None, list[str]]:
    """([z, y, x] in micrometres or None, warnings) from `space directions`, else `spacings`."""
    vectors = re.findall(r"\(([^)]*)\)", fields.get("space directions", ""))
    if len(vectors) == 3:
        spacing = [float(np.linalg.norm([float(part) for part in vector.split(",")])) for vector in vectors]
    else:
        words = fields.get("spacings", "").split()
        spacing = [float(word) for word in words] if len(words) == 3 else []
    if len(spacing) != 3:
        return None, []
    named = re.findall(r'"([^"]*)"', fields.get("space units", "") or fields.get("units", ""))
    units = named if len(named) == 3 else [named[0] if named else "mm" if "space" in fields else ""] * 3
    return sizes_um(spacing[::-1], units[::-1])
