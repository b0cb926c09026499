"""TIFF stack: a folder of one file per slice, in natural order."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from .source import Source, native
from .tiff_pages import check_page, check_type, open_tiff, page_channels, plane, voxel_size

SUFFIXES = (".tif", ".tiff")


def matches(path: Path) -> bool:
    """Whether the path is a folder."""
    return path.is_dir()


def natural_key(name: str) -> list[Any]:
    """Key that sorts slice_9 before slice_10, whatever the number of digits."""
    return [(1, int(part), part) if part.isdecimal() else (0, 0, part) for part in re.split(r"(\d+)", name) if part]


def stack_files(folder: Path) -> list[Path]:
    """The TIFF files of a folder in natural order; raises InputError if there are none, or two series."""
    every = [p for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")]
    files = sorted((p for p in every if p.suffix.lower() in SUFFIXES), key=lambda p: natural_key(p.name))
    if not files:
        kinds = sorted({p.suffix.lower() or "(no suffix)" for p in every})
        found = f"no TIFF files among {len(every)} ({', '.join(kinds[:5])})" if every else "an empty folder"
        raise InputError(folder, found, "one TIFF file per slice", "correct the path, or save the slices as TIFF")
    series: dict[str, list[Path]] = {}
    for file in files:
        series.setdefault(re.sub(r"\d+", "#", file.stem), []).append(file)
    if len(series) > 1 and any(len(names) > 1 for names in series.values()):
        listed = ", ".join(f"{names[0].name} … ({len(names)})" for names in list(series.values())[:4])
        raise InputError(
            folder,
            f"files of {len(series)} series: {listed}",
            "the slices of one volume",
            "put each series in a folder",
        )
    return files


def numbering_warnings(files: list[Path]) -> list[str]:
    """Warnings about gaps in the numbers of the slices, and numbers used twice."""
    runs = [re.findall(r"\d+", file.stem) for file in files]
    if len(files) < 2 or not runs[0] or any(len(run) != len(runs[0]) for run in runs):
        return []
    columns = [[int(n) for n in column] for column in zip(*runs, strict=True)]
    numbers = next((column for column in reversed(columns) if len(set(column)) > 1), None)
    if numbers is None or any(len(set(column)) > 1 for column in columns if column is not numbers):
        return []
    steps = np.diff(sorted(numbers))
    if (steps == 0).any():
        twice = sorted({n for n in numbers if numbers.count(n) > 1})
        return [f"numbers used twice: {', '.join(map(str, twice[:5]))}"]
    step = int(steps.min())
    if (steps == step).all():
        far = f"the slices are numbered in steps of {step}: set `z_continuous: false` if they are that far apart"
        return [far] if step > 1 else []
    missing = sorted(set(range(min(numbers), max(numbers) + 1, step)) - set(numbers))
    listed = ", ".join(map(str, missing[:5])) + (" …" if len(missing) > 5 else "")
    return [f"{len(missing)} numbers are missing between the slices: {listed}"]


def open_source(path: Path, dataset: str | None = None) -> Source:
    """Open a folder of TIFF slices; every header is read, no voxel is. See `beamseg.readers.open_source`.

    Gaps in the numbering are warnings; a slice of another shape or type, of several pages, or cut off is an error.
    """
    files = stack_files(path)
    first: tuple[tuple[int, ...], np.dtype] | None = None
    size: list[float] | None = None
    warnings: list[str] = []
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
            kind = (tuple(page.shape), np.dtype(page.dtype))
            if first is None:
                first = kind
                channels = page_channels(file, page)
                size, warnings = voxel_size(tiff)
            if kind != first:
                raise InputError(
                    file,
                    f"a slice of shape {kind[0]}, {kind[1].name}",
                    f"{first[0]}, {first[1].name}, as {files[0].name} has",
                    "remove the file or mend it",
                )
            compressed |= page.compression != 1
            flat = page.is_memmappable and not channels
            layout.append((page.dataoffsets[0], np.dtype(page.dtype).newbyteorder(tiff.byteorder)) if flat else None)
    assert first is not None
    rows, columns = first[0][:2]
    memory_order = list(zip(files, layout, strict=True))

    def read_window(z0: int, z1: int, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        planes = []
        for file, flat in memory_order[z0:z1]:
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
        dtype=native(first[1]),
        files=files,
        read_window=read_window,
        voxel_size_um=size,
        warnings=warnings + numbering_warnings(files),
        compressed=compressed,
        channels=channels,
    )
