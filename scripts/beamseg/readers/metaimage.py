"""MetaImage (ITK): a text header `.mhd` beside raw voxels, or both in one `.mha`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import InputError
from .raw import mapped, text_fields, whole_number, whole_numbers
from .source import ReadOptions, Source, native, refuse_outside, said_size, sizes_um

HEAD = 65536
TYPES = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
LAST = b"ElementDataFile"  # the header's last field, by the format's definition


def _head(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(HEAD)


def matches(path: Path) -> bool:
    """Whether the file begins with fields and names its data file."""
    return path.is_file() and LAST in (head := _head(path)) and b"DimSize" in head.split(LAST)[0]


def open_source(path: Path, options: ReadOptions) -> Source:
    """Open a MetaImage; lengths are millimetres, as ITK reads them. See `beamseg.readers.open_source`."""
    head = _head(path)
    end = head.find(b"\n", head.find(LAST)) + 1 or len(head)
    fields = text_fields(head[:end].decode(errors="replace"), "=")
    x, y, z = whole_numbers(path, fields, "dimsize", 3)
    kind = fields.get("elementtype", "")
    if kind not in TYPES or fields.get("elementnumberofchannels", "1") != "1":
        raise InputError(
            path,
            f"ElementType {kind or 'missing'}, {fields.get('elementnumberofchannels', '1')} channels",
            f"one channel of {', '.join(TYPES)}",
            "save one grey value per voxel",
        )
    if fields.get("compresseddata", "false").lower() == "true":
        raise InputError(
            path, "compressed voxels", "raw voxels", "save it without compression (CompressedData = False)"
        )
    big = any(fields.get(k, "false").lower() == "true" for k in ("binarydatabyteordermsb", "elementbyteordermsb"))
    dtype = np.dtype(TYPES[kind]).newbyteorder(">" if big else "<")
    name = fields["elementdatafile"]
    if name.split()[:1] == ["LIST"] or "%" in name:
        raise InputError(path, f"ElementDataFile = {name}", "one data file", "save the volume as one raw file")
    local = name == "LOCAL"
    voxels = path if local else path.parent / name
    refuse_outside(path, "ElementDataFile", [voxels], options)
    offset = end if local else whole_number(path, fields, "headersize")
    if offset == -1:
        offset = voxels.stat().st_size - x * y * z * dtype.itemsize if voxels.exists() else 0
    spacing = (fields.get("elementspacing") or fields.get("elementsize") or "").split()
    size, doubts = said_size(lambda: sizes_um([float(v) for v in spacing[::-1]], "mm") if spacing else (None, []))
    return Source(
        format="metaimage",
        shape=(z, y, x),
        dtype=native(dtype),
        files=[path] if local else [path, voxels],
        read_window=mapped(voxels, (z, y, x), dtype, offset, exact=True),
        voxel_size_um=size,
        size_warnings=doubts,
    )
