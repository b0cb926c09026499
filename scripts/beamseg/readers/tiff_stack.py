"""TIFF stack: a folder of one file per slice, in natural order."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .numbering import in_order, same_kind
from .source import ReadOptions, Source, native, said_size
from .tiff_pages import check_page, check_type, open_tiff, page_channels, plane, voxel_size

SUFFIXES = (".tif", ".tiff")


def matches(path: Path) -> bool:
    """Whether the path is a folder."""
    return path.is_dir()


def open_source(path: Path, options: ReadOptions) -> Source:
    """Open a folder of TIFF slices; every header is read, no voxel is. See `beamseg.readers.open_source`.

    A slice of another shape or type, of several pages, or cut off is an error; so are gaps in the numbering unless
    they are allowed.
    """
    files, warnings = in_order(path, SUFFIXES, options.allow_gaps)
    kinds: list[tuple[tuple[int, ...], np.dtype]] = []
    size: list[float] | None = None
    doubts: list[str] = []
    layout: list[tuple[int, np.dtype] | None] = []
    compressed, channels = False, 0
    for file in files:
        with open_tiff(file) as tiff:
            page: Any = tiff.pages.first
            if len(tiff.pages) > 1:
                raise InputError(
                    file, f"{len(tiff.pages)} pages", "one slice per file", "split the file, or give it as the scan"
                )
            check_type(file, page.dtype)
            check_page(file, page)
            if not kinds:
                channels = page_channels(file, page)
                size, doubts = said_size(partial(voxel_size, tiff))
            kinds.append((tuple(page.shape), np.dtype(page.dtype)))
            compressed |= page.compression != 1
            flat = page.is_memmappable and not channels
            layout.append((page.dataoffsets[0], np.dtype(page.dtype).newbyteorder(tiff.byteorder)) if flat else None)
    same_kind(files, kinds)
    shape, dtype = kinds[0]
    rows, columns = shape[:2]
    in_place = list(zip(files, layout, strict=True))

    def read_window(z0: int, z1: int, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        planes = []
        for file, flat in in_place[z0:z1]:
            if flat is None:
                with open_tiff(file) as tiff:
                    planes.append(plane(file, tiff.pages.first)[y0:y1, x0:x1])
            else:
                offset, stored = flat
                lines = np.fromfile(file, stored, (y1 - y0) * columns, offset=offset + y0 * columns * stored.itemsize)
                if lines.size < (y1 - y0) * columns:
                    raise InputError(file, "a file that became shorter since it was opened", "voxels", "copy it again")
                planes.append(lines.reshape(-1, columns)[:, x0:x1])
        return np.stack(planes)

    return Source(
        format="tiff_stack",
        shape=(len(files), rows, columns),
        dtype=native(dtype),
        files=files,
        read_window=read_window,
        voxel_size_um=size,
        warnings=warnings,
        size_warnings=doubts,
        compressed=compressed,
        chunks=(1, rows if compressed else 1, columns),
        channels=channels,
    )
