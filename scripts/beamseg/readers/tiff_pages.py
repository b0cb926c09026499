"""TIFF: one file of many pages, and what both TIFF readers share."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile

from ..errors import InputError
from .raw import check_type, in_place
from .source import AGAIN, ReadOptions, Source, begins_with, native, refuse_outside, said_size, sizes_um, to_micrometres

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PRINTERS = (1, 72, 96, 150, 200, 300, 600)  # pixels per unit that programs write without a thought


def matches(path: Path) -> bool:
    """Whether the file begins as a TIFF or BigTIFF does."""
    return begins_with(path, *MAGIC)


def open_tiff(path: Path) -> tifffile.TiffFile:
    """Open a TIFF; raises InputError if it is none, or cut off within its directory."""
    try:
        file = tifffile.TiffFile(path)
        if not len(file.pages):
            raise ValueError("no pages")
    except PermissionError:
        raise
    except (tifffile.TiffFileError, ValueError, OSError, IndexError, KeyError, TypeError) as error:
        raise InputError(
            path, f"a truncated or damaged TIFF of {path.stat().st_size} bytes ({error})", "a whole TIFF file", AGAIN
        ) from error
    return file


def check_page(path: Path, page: Any) -> None:
    """Raise InputError if the voxels of a page lie beyond the end of the file."""
    size = path.stat().st_size
    ends = [o + n for o, n in zip(page.dataoffsets, page.databytecounts, strict=False)]
    if not ends or max(ends) > size:
        raise InputError(path, f"a truncated file of {size} bytes", f"at least {max(ends, default=0)} bytes", AGAIN)


def open_source(path: Path, options: ReadOptions) -> Source:
    """Open a multi-page TIFF, slices in the order of its pages; see `beamseg.readers.open_source`."""
    file = open_tiff(path)
    _check_chain(path, file)
    series = file.series[0]
    shape, channels = _volume_shape(path, file, series)
    check_type(path, series.dtype)
    offset = series.dataoffset if len(file.series) == 1 else None
    itemsize = series.dtype.itemsize
    files: list[Path] = []  # besides this one: OME lets pages lie in others
    if offset is not None:
        expected = offset + int(np.prod(series.shape, dtype=np.int64)) * itemsize
        if path.stat().st_size < expected:
            raise InputError(
                path, f"a truncated file of {path.stat().st_size} bytes", f"at least {expected} bytes", AGAIN
            )
        stored = np.dtype(series.dtype).newbyteorder(file.byteorder)
        voxels = np.memmap(
            path, dtype=stored, mode="r", offset=offset, shape=(*shape, *([channels] if channels else []))
        )

        read_window = in_place(path, voxels, offset)
    else:
        pages = list(series.pages) if len(file.series) == 1 else [one.pages[0] for one in file.series]
        planar = not channels and is_planar(file)
        if not planar and (len(pages) != shape[0] or any(page is None for page in pages)):
            raise InputError(path, f"{len(pages)} pages", f"{shape[0]}, one per slice", "save it as plain TIFF")
        for page in pages:
            check_page(Path(page.parent.filehandle.path), page)
            page.parent.filehandle.lock = True  # tasks share the file's one position
        files = sorted({Path(page.parent.filehandle.path) for page in pages} - {path})
        refuse_outside(path, "OME", files, options)

        def read_window(z0: int, z1: int, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
            if planar:
                return decoded(path, pages[0])[z0:z1, y0:y1, x0:x1]
            return np.stack([plane(path, pages[z])[y0:y1, x0:x1] for z in range(z0, z1)])

    size, doubts = said_size(lambda: voxel_size(file))
    compressed = file.pages.first.compression != 1
    return Source(
        format="tiff",
        shape=shape,
        dtype=native(series.dtype),
        files=[path, *files],
        read_window=read_window,
        voxel_size_um=size,
        warnings=["the file holds one slice"] if shape[0] == 1 else [],
        size_warnings=doubts,
        compressed=compressed,
        chunks=(1, 1, 1) if offset is not None else (1, shape[1], shape[2]),
        channels=channels,
    )


def _check_chain(path: Path, file: tifffile.TiffFile) -> None:
    """Raise InputError if the chain of pages leads out of the file: tifffile would give the pages before the cut."""
    at = file.pages.next_page_offset
    if at is None:
        return
    file.filehandle.seek(at)
    raw = file.filehandle.read(file.tiff.offsetsize)
    if len(raw) < file.tiff.offsetsize or struct.unpack(file.tiff.offsetformat, raw)[0]:
        size = path.stat().st_size
        raise InputError(
            path, f"a truncated file of {size} bytes, cut after page {len(file.pages)}", "all pages", AGAIN
        )


def plane(path: Path, page: Any) -> np.ndarray:
    """Decode a page (y, x) or (y, x, 3); raises InputError where that fails."""
    image = decoded(path, page)
    return image[..., :3] if image.ndim == 3 else image


def decoded(path: Path, page: Any) -> np.ndarray:
    """All of a page; raises InputError where it cannot be decoded."""
    try:
        return np.asarray(page.asarray())
    except Exception as error:  # codecs raise errors of many kinds; all mean that the page cannot be read
        raise InputError(path, f"page {page.index} cannot be decoded ({error})", "a readable page", AGAIN) from error


def is_planar(file: tifffile.TiffFile) -> bool:
    """Whether three or four slices are one page: so tifffile and napari write them, taking them for colours."""
    return bool(file.is_shaped and len(file.pages) == 1 and file.pages.first.axes == "SYX")


def page_channels(path: Path, page: Any) -> int:
    """0 for grey pages, 3 for colour (an alpha channel is dropped); raises InputError for other layouts."""
    if page.ndim < 2 or 0 in page.shape:
        size = path.stat().st_size
        raise InputError(
            path, f"a page without pixels, shape {page.shape}, in {size} bytes", "a whole TIFF file", AGAIN
        )
    if page.ndim == 2:
        return 0
    if page.ndim == 3 and page.axes == "YXS" and page.shape[2] in (3, 4):
        return 3
    raise InputError(path, f"a page of shape {page.shape} ({page.axes})", "rows and columns", "save the slices as grey")


def _volume_shape(path: Path, file: tifffile.TiffFile, series: Any) -> tuple[tuple[int, int, int], int]:
    shapes = sorted({(tuple(s.shape), np.dtype(s.dtype).name) for s in file.series})
    alike = len(shapes) == 1 and all(len(s.pages) == 1 for s in file.series)  # slices that were written one by one
    if len(file.series) > 1 and not alike:
        raise InputError(
            path,
            f"pages of different shapes or types: {', '.join(f'{s} {d}' for s, d in shapes[:4])}",
            "pages of one shape and type",
            "save the volume alone (without thumbnail or pyramid levels)",
        )
    channels = 0 if is_planar(file) else page_channels(path, file.pages.first)
    spatial = tuple(int(n) for n in (series.shape[:-1] if channels else series.shape))
    if len(spatial) == 2:
        spatial = (len(file.series), *spatial)
    if len(spatial) != 3 or (channels and series.shape[-1] != 3):
        raise InputError(
            path, f"axes {series.axes} of shape {tuple(series.shape)}", "z, y, x", "save one channel and one time point"
        )
    said = _slices_said(file, channels) if len(file.series) == 1 else None
    if said is not None and said != spatial[0]:
        raise InputError(path, f"{spatial[0]} slices", f"{said}, as its header says", AGAIN)
    return spatial, channels


def _slices_said(file: tifffile.TiffFile, channels: int) -> int | None:
    """Slices that ImageJ's or tifffile's description names: a cut chain of pages may end as if it were whole."""
    if file.imagej_metadata:
        said = file.imagej_metadata.get("images")
        return None if said is None else int(said)
    if file.is_shaped and file.shaped_metadata and "shape" in file.shaped_metadata[0]:
        shape = file.shaped_metadata[0]["shape"]
        return int(np.prod(shape[: -3 if channels else -2], dtype=np.int64))
    return None


def voxel_size(file: tifffile.TiffFile) -> tuple[list[float] | None, list[str]]:
    """([z, y, x] in micrometres or None, warnings) from OME or ImageJ metadata, else from a resolution per cm.

    Resolutions per inch, and those that printers have, are left alone: they are not about a detector.
    """
    if file.is_ome:
        lengths, units = _ome_size(file)
    elif file.is_imagej:
        lengths, units = _imagej_size(file)
    else:
        lengths, units = _tag_size(file)
    z, y, x = lengths
    if y is None or x is None:
        return None, []
    size, doubts = sizes_um([y if z is None else z, y, x], [units[1] if z is None else units[0], *units[1:]])
    if z is None and size is not None:
        doubts = [*doubts, "the file gives no distance between slices; taken as the pixel size"]
    return size, doubts


Lengths = tuple[float | None, float | None, float | None]


def _ome_size(file: tifffile.TiffFile) -> tuple[Lengths, list[str]]:
    root = ElementTree.fromstring(file.ome_metadata)
    pixels = next((e for e in root.iter() if e.tag.endswith("}Pixels")), None)
    if pixels is None:
        return (None, None, None), []
    z, y, x = (float(v) if (v := pixels.get(f"PhysicalSize{axis}")) else None for axis in "ZYX")
    return (z, y, x), [pixels.get(f"PhysicalSize{axis}Unit", "µm") for axis in "ZYX"]


def _pixels_per_unit(file: tifffile.TiffFile) -> tuple[float, float]:
    """Resolution along y and x; 0 where the tags are missing or broken."""
    tags = file.pages.first.tags
    found = []
    for name in ("YResolution", "XResolution"):
        pixels, units = tags[name].value if name in tags else (0, 1)
        found.append(pixels / units if units else 0.0)
    return found[0], found[1]


def _imagej_size(file: tifffile.TiffFile) -> tuple[Lengths, list[str]]:
    metadata = file.imagej_metadata or {}
    y, x = _pixels_per_unit(file)
    unit = str(metadata.get("unit", ""))
    if not y or not x or to_micrometres(1, unit) is None:
        return (None, None, None), []
    spacing = metadata.get("spacing")
    return (float(spacing) if spacing else None, 1 / y, 1 / x), [unit] * 3


def _tag_size(file: tifffile.TiffFile) -> tuple[Lengths, list[str]]:
    tags = file.pages.first.tags
    y, x = _pixels_per_unit(file)
    per_cm = "ResolutionUnit" in tags and int(tags["ResolutionUnit"].value) == 3
    printed = any(abs(value - n) < 0.005 * n for value in (x, 2.54 * x) for n in PRINTERS)
    if not per_cm or not y or not x or printed:
        return (None, None, None), []
    return (None, 1 / y, 1 / x), ["cm"] * 3
