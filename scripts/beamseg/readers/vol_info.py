"""PyHST volumes of the ESRF: raw voxels and a text file beside them, `scan.vol` and `scan.vol.info`."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import InputError
from .raw import mapped, text_fields, whole_numbers
from .source import ReadOptions, Source, native, sizes_um

TYPES: dict[int, np.dtype] = {4: np.dtype(np.float32), 2: np.dtype(np.uint16), 1: np.dtype(np.uint8)}


def _pair(path: Path) -> tuple[Path, Path]:
    """(voxels, description) of either of them."""
    return (path.with_suffix(""), path) if path.suffix == ".info" else (path, path.with_name(path.name + ".info"))


def matches(path: Path) -> bool:
    """Whether the file is described by, or is, a text file that names NUM_X."""
    info = _pair(path)[1]
    if not (path.is_file() and info.is_file()):
        return False
    with open(info, "rb") as file:
        return b"NUM_X" in file.read(4096)


def open_source(path: Path, options: ReadOptions) -> Source:
    """Open a volume by its voxels or its description; see `beamseg.readers.open_source`.

    The voxel size stands in micrometres. PyHST writes float32; the description names no type, so that 8- and 16-bit
    conversions are told by the size of the file.
    """
    voxels, info = _pair(path)
    fields = text_fields(info.read_text(errors="replace"), "=")
    shape = tuple(whole_numbers(info, fields, f"num_{axis}", 1)[0] for axis in "zyx")
    if not voxels.exists():
        raise InputError(
            voxels, "no such file", f"the voxels that {info.name} describes", "copy that file too, or rename it so"
        )
    count = int(np.prod(shape, dtype=np.int64))
    dtype = next((t for n, t in TYPES.items() if n * count == voxels.stat().st_size), TYPES[4])
    dtype = dtype.newbyteorder(">" if fields.get("byteorder", "").upper().startswith("HIGH") else "<")
    try:
        size, doubts = sizes_um([float(fields["voxelsize"])] * 3, "µm")
    except (KeyError, ValueError):
        size, doubts = None, []
    return Source(
        format="vol_info",
        shape=(shape[0], shape[1], shape[2]),
        dtype=native(dtype),
        files=[voxels, info],
        read_window=mapped(voxels, (shape[0], shape[1], shape[2]), dtype, 0, exact=True),
        voxel_size_um=size,
        size_warnings=doubts,
    )
