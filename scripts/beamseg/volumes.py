"""Volumes: anything with a shape (z, y, x) and `read(z0, z1, y, x)`; nobody holds a whole one unless it fits."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .corrections import corrected, fov_of
from .errors import InputError
from .fov import fov_mask, valid_mask
from .label_values import UNLABELLED
from .provenance import read_json
from .readers import Source, open_source
from .slabs import SlabVolume

OUTSIDE = 0  # grey level outside the field of view
MAX_GREY = 65535
GREY_TYPES: dict[int, np.dtype[Any]] = {8: np.dtype(np.uint8), 16: np.dtype(np.uint16)}
WIDE = np.concatenate([[OUTSIDE], np.rint(np.linspace(1, MAX_GREY, 255))]).astype(np.uint16)
"""Grey levels 0 … 255 of an 8-bit cache as the 16-bit levels that all stages know."""


class Volume(Protocol):
    """What every stage reads: a shape and a window."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Slices, rows, columns."""
        ...

    def read(self, z0: int, z1: int, y: slice = slice(None), x: slice = slice(None)) -> np.ndarray:
        """Slices z0 … z1 (clipped to the volume) of the window y, x; shape (z, y, x)."""
        ...


class ArrayVolume:
    """An array in memory as a volume."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.shape: tuple[int, int, int] = array.shape

    def read(self, z0: int, z1: int, y: slice = slice(None), x: slice = slice(None)) -> np.ndarray:
        """A view of the window."""
        return self.array[max(0, z0) : max(0, z1), y, x]


class TableVolume:
    """Each grey level looked up in a table: pseudo-labels, which are never stored, or 8-bit levels as 16-bit ones.

    Parameters
    ----------
    volume : Volume
        Of uint16 grey levels (uint8).
    table : ndarray, (65536,) or (256,)
        Grey level -> label, uint8, 255 is unlabelled; or grey level -> grey level.
    """

    def __init__(self, volume: Volume, table: np.ndarray) -> None:
        self.volume, self.table = volume, table
        self.shape = volume.shape

    def read(self, z0: int, z1: int, y: slice = slice(None), x: slice = slice(None)) -> np.ndarray:
        """What the table holds for the window."""
        return np.take(self.table, self.volume.read(z0, z1, y, x), mode="clip")  # every level is in it: no check


class NormalizedVolume:
    """A scan read from its source and normalized on the way: the same array as the cache holds.

    Parameters
    ----------
    source : Source
        As `corrections.corrected` gives it.
    entry : dict
        `plan_entry` of the scan.
    """

    def __init__(self, source: Source, entry: dict[str, Any]) -> None:
        self.source, self.entry = source, entry
        self.shape = source.shape
        self.dtype = np.dtype(np.uint16)

    def read(self, z0: int, z1: int, y: slice = slice(None), x: slice = slice(None)) -> np.ndarray:
        """Grey levels of the window, uint16; 0 is outside."""
        raw = self.source.read(z0, z1, y, x)
        grey = normalize_block(raw, self.entry, y.indices(self.shape[1])[0], x.indices(self.shape[2])[0])
        return grey if grey.dtype == np.uint16 else WIDE[grey]


def read_with_halo(labels: Volume, z0: int, z1: int, halo: int) -> np.ndarray:
    """Slices z0 - halo … z1 + halo, 255 beyond the ends of the volume; uint8, (z1 - z0 + 2·halo, y, x)."""
    block = np.asarray(labels.read(max(0, z0 - halo), min(labels.shape[0], z1 + halo)), dtype=np.uint8)
    before, after = max(0, halo - z0), max(0, z1 + halo - labels.shape[0])
    return np.pad(block, ((before, after), (0, 0), (0, 0)), constant_values=UNLABELLED) if before or after else block


def bear_labels(classes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """`classes` with `labels` where there are any; both uint8, 255 is outside, which stays so, and unlabelled."""
    return np.where((labels != UNLABELLED) & (classes != UNLABELLED), labels, classes)


class LabelledVolume:
    """A volume of classes with the user's labels where there are any.

    Parameters
    ----------
    volume, labels : Volume
        uint8, of one shape; 255 is outside the field of view, which stays so, and unlabelled.
    """

    def __init__(self, volume: Volume, labels: Volume) -> None:
        self.volume, self.labels = volume, labels
        self.shape = volume.shape

    def read(self, z0: int, z1: int, y: slice = slice(None), x: slice = slice(None)) -> np.ndarray:
        """Classes of the window, uint8 (z, y, x)."""
        return bear_labels(self.volume.read(z0, z1, y, x), self.labels.read(z0, z1, y, x))


def in_memory(volume: Volume, budget_mb: float, itemsize: int = 2) -> Volume:
    """The volume held as an array if it fits `budget_mb`, else the volume itself."""
    if isinstance(volume, ArrayVolume) or np.prod(volume.shape, dtype=float) * itemsize > budget_mb * 2**20:
        return volume
    return ArrayVolume(volume.read(0, volume.shape[0]))


def block_depth(shape: Sequence[int], mem_budget_mb: float, bytes_per_voxel: float, align: int = 8) -> int:
    """Slices of a block that fits a budget: a multiple of `align` where so many fit, at least one."""
    depth = max(1, int(mem_budget_mb * 2**20 / (bytes_per_voxel * shape[1] * shape[2])))
    return depth // align * align if depth > align else depth


def plan_entry(plan: dict[str, Any], scan: dict[str, Any]) -> dict[str, Any]:
    """What normalizes one scan: {range: [lo, hi], bits, fov}, from the plan of its group and its own `scan.json`.

    The field of view is the scan's, since a plan holds the reference scans of its group alone.
    """
    return {"range": plan["range"], "bits": plan.get("bits", 16), "fov": fov_of(scan)}


def grey_level(raw: np.ndarray, lo: float, hi: float, bits: int = 16) -> np.ndarray:
    """Grey levels of raw values, uint16 (uint8 for 8 bits): lo … hi is 1 … 65535 (255), clipped, rounded.

    float32 and float16 are computed in float32, everything else in float64, element by element, so that any tiling
    gives the same levels. Infinite values clip; NaN gives 0.
    """
    work = np.float32 if raw.dtype.kind == "f" and raw.dtype.itemsize <= 4 else np.float64
    highest = (1 << bits) - 1
    level = np.subtract(raw, work(lo), dtype=work)
    level *= work((highest - 1) / (hi - lo))
    level += work(1)
    np.clip(level, 1, highest, out=level)
    np.rint(level, out=level)
    if raw.dtype.kind == "f":
        np.copyto(level, 0, where=np.isnan(level))
    return level.astype(GREY_TYPES[bits])


def grey_counts(plan: dict[str, Any], histograms: Sequence[str | Path]) -> np.ndarray:
    """Voxels per grey level over the group, int64 (65536,); level 0 is empty.

    A bin of the raw histogram goes to the level of its middle, as the voxels in it do; what lies beyond its ends is
    clipped to levels 1 and 65535, as `normalize` does.
    """
    bits = plan.get("bits", 16)
    total = np.zeros(MAX_GREY + 1, np.int64)
    for path in histograms:
        with np.load(path) as found:
            edges, counts = found["edges"], found["counts"]
            middle = (edges[1:] + edges[:-1]) / 2
            level = grey_level(middle, float(plan["range"][0]), float(plan["range"][1]), bits)
            np.add.at(total, level if bits == 16 else WIDE[level], counts)
            total[1] += int(found["underflow"])
            total[MAX_GREY] += int(found["overflow"])
    return total


@lru_cache(maxsize=8)
def _grey_table(dtype: np.dtype, lo: float, hi: float, bits: int) -> np.ndarray:
    """Grey level of every value of an 8- or 16-bit integer type, by its bits read as unsigned."""
    info = np.iinfo(dtype)
    return np.roll(grey_level(np.arange(info.min, info.max + 1), lo, hi, bits), info.min)


def normalize_block(raw: np.ndarray, entry: dict[str, Any], y0: int = 0, x0: int = 0) -> np.ndarray:
    """Normalize a window of a scan.

    Parameters
    ----------
    raw : ndarray, (z, y, x)
        Voxels as stored, or as corrected.
    entry : dict
        `plan_entry` of the scan: `range` [lo, hi], `bits` and `fov`.
    y0, x0 : int
        Where the window lies in the slice, for the field of view.

    Returns
    -------
    ndarray, uint16 or, for 8 bits, uint8, (z, y, x)
        Grey levels 1 … 65535 (255); 0 outside the field of view and where the scan holds no number (NaN, infinity).
    """
    lo, hi = (float(v) for v in entry["range"])
    fov, bits = entry["fov"], entry.get("bits", 16)
    if raw.dtype.kind in "iu" and raw.dtype.itemsize <= 2:
        grey = _grey_table(raw.dtype, lo, hi, bits)[raw.view(f"u{raw.dtype.itemsize}")]
    else:
        grey = grey_level(raw, lo, hi, bits)
    valid = valid_mask(raw, fov)
    if valid is not None:
        grey[~valid] = OUTSIDE
    inside = fov_mask(fov, y0, y0 + raw.shape[1], x0, x0 + raw.shape[2])
    if inside is not None:
        grey[:, ~inside] = OUTSIDE
    return grey


def open_scan_source(scan_json: str | Path) -> Source:
    """Open the input of a scan, where `source.json` beside `scan.json` says it lies now.

    Raises
    ------
    InputError
        If it has gone, or its shape or type is no longer what `scan.json` says.
    """
    scan = read_json(scan_json)
    where = read_json(Path(scan_json).with_name("source.json"))
    source = open_source(where["path"], **{key: where[key] for key in where.keys() - {"path", "files"}})
    found = (list(source.shape), source.dtype.name)
    if found != (scan["shape"], scan["dtype"]):
        raise InputError(
            where["path"],
            f"shape {found[0]}, {found[1]}",
            f"shape {scan['shape']}, {scan['dtype']}, as when the scan was taken in",
            "start the same command again; if that does not help, `touch` the file first",
        )
    return source


def open_normalized(
    scan_json: str | Path, plan_json: str | Path, manifests: Sequence[str | Path] | None = None
) -> Volume:
    """The normalized volume of a scan: from the cache if all of it is there, else from the source and the plan.

    Both give the same array, bit by bit, so it does not matter when a cache was released.

    Parameters
    ----------
    scan_json, plan_json : path
    manifests : list of path, optional
        Of all parts of `normalize`.
    """
    if manifests and cached(manifests):
        stored = SlabVolume(manifests, "grey")
        return stored if stored.dtype == np.uint16 else TableVolume(stored, WIDE)
    scan = read_json(scan_json)
    source = corrected(open_scan_source(scan_json), scan)
    return NormalizedVolume(source, plan_entry(read_json(plan_json), scan))


def cached(manifests: Sequence[str | Path]) -> bool:
    """Whether the slab files that the manifests list are on disk and make the whole volume."""
    slabs = []
    shape = None
    for path in manifests:
        manifest = read_json(path)
        shape = manifest["shape"]
        slabs += [(s["z0"], s["z1"], Path(path).parent / s["file"]) for s in manifest["slabs"]]
    z = 0
    for z0, z1, file in sorted(slabs):
        if z0 != z or not file.exists():
            return False
        z = z1
    return shape is not None and z == shape[0]
