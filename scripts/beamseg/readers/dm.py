"""Gatan's DM3 and DM4 (electron microscopes): a tree of tags, and the voxels in one block."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .raw import mapped
from .source import AGAIN, ReadOptions, Source, native, sizes_um, to_micrometres

HEADER = {3: 12, 4: 16}  # bytes: version, length, byte order
SUFFIXES = (".dm3", ".dm4")
TYPES = {1: "i2", 2: "f4", 3: "c8", 6: "u1", 7: "i4", 9: "i1", 10: "u2", 11: "u4", 12: "f8", 13: "c16", 14: "b1"}
THUMBNAIL = 23  # colours; the first image of a file is a small one of these


def matches(path: Path) -> bool:
    """Whether the file begins as DM files do: version 3 or 4, a length, and the byte order."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        head = file.read(16)
    version = int.from_bytes(head[:4], "big")
    if version not in HEADER or len(head) < HEADER[version]:
        return False
    end = HEADER[version]
    length, order = int.from_bytes(head[4 : end - 4], "big"), int.from_bytes(head[end - 4 : end], "big")
    # The length leaves out the header and, by program, up to 16 bytes more.
    return order in (0, 1) and (path.suffix.lower() in SUFFIXES or 0 <= path.stat().st_size - length - end <= 16)


def open_source(path: Path, options: ReadOptions) -> Source:
    """Open the image of a DM file, a single one as one slice; see `beamseg.readers.open_source`.

    The last of the stored dimensions is z. Where its unit is no length (a movie's seconds), y's size stands for it.
    """
    tags, image = _image(path)
    sizes = [int(tags[name]) for n in range(1, 6) if (name := f"{image}.Dimensions.{n}") in tags]
    if len(sizes) not in (2, 3):
        raise InputError(path, "an image of other than two or three dimensions", "z, y, x", "export the slices alone")
    code = int(tags[f"{image}.DataType"])
    if code not in TYPES:
        raise InputError(path, f"voxels of DM's type {code}", "one grey value per voxel", "save it as real numbers")
    columns, rows, depth = (*sizes, 1)[:3]
    stored = (depth, rows, columns)
    dtype = np.dtype(TYPES[code]).newbyteorder("<")
    size, doubts = _size(tags, image, len(sizes))
    return Source(
        format="dm",
        shape=stored,
        dtype=native(dtype),
        files=[path],
        read_window=mapped(path, stored, dtype, int(tags[f"{image}.Data.arrayOffset"])),
        voxel_size_um=size,
        size_warnings=doubts,
    )


def _image(path: Path) -> tuple[dict[str, Any], str]:
    """All tags, and the prefix of those of the one image that is no thumbnail."""
    from ncempy.io.dm import fileDM  # brings Matplotlib, most of a second of every process that reads anything

    try:
        with fileDM(path, on_memory=False) as file:
            tags = file.allTags
    except Exception as error:  # the parser meets a damaged tree in many ways; all mean that the file cannot be read
        raise InputError(
            path, f"a damaged DM file, or one of big-endian order ({error})", "a little-endian DM3 or DM4 file", AGAIN
        ) from error
    found = [name.removesuffix(".DataType") for name in tags if name.endswith(".ImageData.DataType")]
    images = [
        name for name in found if int(tags[f"{name}.DataType"]) != THUMBNAIL and f"{name}.Data.arrayOffset" in tags
    ]
    if len(images) != 1:
        raise InputError(path, f"{len(images)} images", "one image or series", "save each under a name of its own")
    return tags, images[0]


def _size(tags: dict[str, Any], image: str, dimensions: int) -> tuple[list[float] | None, list[str]]:
    def calibration(number: int) -> tuple[float, str]:
        prefix = f"{image}.Calibrations.Dimension.{number}"
        return float(tags.get(f"{prefix}.Scale", 0)), str(tags.get(f"{prefix}.Units", "")).replace("\0", "")

    x, y = calibration(1), calibration(2)
    z, doubts = (calibration(3) if dimensions == 3 else y), []
    if to_micrometres(*y) is not None and to_micrometres(*z) is None:
        doubts = [
            f"the third dimension is given in {z[1]!r}; y's size is taken for z, unless `voxel_size_um` says more"
        ]
        z = y
    size, others = sizes_um([z[0], y[0], x[0]], [z[1], y[1], x[1]])
    return size, doubts + others
