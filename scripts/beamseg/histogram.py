"""Histogram: the one pass that reads every voxel of a scan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import dask
import numpy as np

from .corrections import Corrector, corrected, sampled_slices
from .errors import InputError
from .fov import fov_mask, inside_mask, valid_mask
from .progress import Progress
from .provenance import atomic_path, read_json
from .readers.source import Source, combine_digests, file_stat, read_planes, task_borders
from .shading import QUANTILES, Polar
from .volumes import open_scan_source

BINS = 65536
IMAGE_SIZE = 256  # the mean image is binned to this at most
SAMPLED_SLICES = 8
MARGIN = 0.25  # of the sampled range, on either side
MOST_OUTSIDE = 2e-4  # of the voxels beyond the ends of a sampled range; a fifth of the percentiles that plan takes
BODY = (0.1, 99.9)  # percentiles that the bins must resolve
MOST_WIDTHS = 13.0  # of the body that the bins may span: half a bin is then 0.006 % of it
MOST_PASSES = 6
FURTHEST = 4096  # times its width that a pass may widen the bins where the sampled slices missed the body
BATCH = 4  # tasks per thread whose results are held at once
RING_SIZE = 15  # radii; rings up to half as wide are measured


def histogram(scan_json: str | Path, out: str | Path, threads: int = 1) -> dict[str, Any]:
    """Read a scan once and write its histogram, profiles and content digest.

    8- and 16-bit integers are counted exactly, one bin per value. Other types, and corrected scans, get 65,536 bins
    over a range sampled from 8 slices, widened by a quarter on either side; should more than 0.02 % of the voxels lie
    beyond it, the pass is repeated over a wider one, but never so wide that few outliers (zingers) cost the body its
    resolution: percentiles 0.1 and 99.9 are right to 0.01 % of the range between them.

    Parameters
    ----------
    scan_json : path
        `source.json` beside it says where the input lies.
    out : path
        `histogram.npz`: edges (bins + 1), counts (bins, int64), underflow, overflow, nan (voxels in the field of view
        that are no finite numbers), low, high (least and greatest value), slice_mean, slice_std, slice_voxels and
        slice_nan (z,),
        slice_quantiles (z, fractions of `shading.QUANTILES`; to a bin), mean_image (binned y, x; NaN where there is
        nothing), ring_profile (radii in pixels; mean of `shading.Polar.ring_profile` over 8 slices), content. All of
        the corrected values inside the field of view; content is of all voxels as stored.
    threads : int
        Dask threads; each holds one read (8 slices or a chunk layer, 256 MiB at most beyond one slice).

    Returns
    -------
    dict
        What was written.

    Raises
    ------
    InputError
        If the input changed since it was taken in.
    """
    scan = read_json(scan_json)
    source = open_scan_source(scan_json)
    where = read_json(Path(scan_json).with_name("source.json"))
    if file_stat(source.files) != where["files"]:
        raise InputError(
            where["path"],
            "another size or time stamp than when the scan was taken in",
            "an input that does not change while it is read",
            "wait until the file is written, then start the same command again",
        )
    result = measure(source, scan["fov"], threads, str(scan["name"]), scan.get("correction"))
    with atomic_path(out) as temporary, open(temporary, "wb") as file:
        np.savez(file, **result)
    return result


def measure(
    source: Source, fov: dict[str, Any], threads: int = 1, name: str = "", correction: dict[str, Any] | None = None
) -> dict[str, Any]:
    """The content of `histogram.npz`; see `histogram`."""
    values = corrected(source, {"fov": fov, "correction": correction})
    scan = Scan(source, values, fov, Corrector(correction, fov, source.shape) if correction else None)
    exact = values.dtype.kind in "iu" and values.dtype.itemsize <= 2
    span = None if exact else sampled_range(scan)
    for _ in range(MOST_PASSES):
        result = _one_pass(scan, span, threads, name)
        if span is None:
            break
        better = _better(span, result)
        if better == span:
            break
        span = better
    return result


@dataclass(frozen=True)
class Scan:
    """A source, the values that count (corrected or as stored), where they count, and the correction."""

    source: Source
    values: Source
    fov: dict[str, Any]
    correct: Corrector | None

    @cached_property
    def inside(self) -> np.ndarray | None:
        """The static part of the field of view, bool (y, x); None means all."""
        return fov_mask(self.fov, 0, self.source.shape[1], 0, self.source.shape[2])

    @cached_property
    def polar(self) -> Polar:
        """For the rings."""
        return Polar(self.fov, self.source.shape[1:])

    def planes(self, z0: int, z1: int) -> Iterator[tuple[int, np.ndarray, np.ndarray, str]]:
        """(z, slice as stored, slice of values, digest as in `read_planes`) of a task's slices."""
        if self.correct is None:
            for z, plane, digest in read_planes(self.source, z0, z1):
                yield z, plane, plane, digest
            return
        first = max(0, z0 - self.correct.halo)
        raw = self.source.read(first, z1 + self.correct.halo)
        values = self.correct(raw, first, z0, z1)
        held = replace(self.source, read_window=lambda a, b, *_: raw[a - first : b - first])
        for z, plane, digest in read_planes(held, z0, z1):
            yield z, plane, values[z - z0], digest

    def sampled(self) -> list[int]:
        """8 slices, evenly spaced."""
        return sampled_slices(self.source.shape[0], SAMPLED_SLICES)


def _better(span: tuple[float, float], result: dict[str, Any]) -> tuple[float, float]:
    """The span, or one that holds the values beyond it, or one that resolves their body."""
    lo, hi = span
    total = int(result["counts"].sum() + result["underflow"] + result["overflow"])
    if not total:
        return span
    number = np.concatenate([[result["underflow"]], result["counts"], [result["overflow"]]])
    places = np.concatenate([[result["low"]], result["edges"][1:], [result["high"]]])
    places[1:-1] -= np.diff(result["edges"]) / 2
    first, last = np.searchsorted(np.cumsum(number), np.array(BODY) / 100 * total)
    body = float(places[last] - places[first])
    width = hi - lo
    needed = first == 0 or last == len(number) - 1  # the body itself reaches beyond the bins
    if not needed and 0 < body < width / MOST_WIDTHS:
        return max(lo, float(places[first]) - body), min(hi, float(places[last]) + body)
    reach = (FURTHEST if needed else 4) * width
    if result["underflow"] > MOST_OUTSIDE * total:
        lo = max(lo - reach, float(result["low"]) - 1e-3 * width)
    if result["overflow"] > MOST_OUTSIDE * total:
        hi = min(hi + reach, float(result["high"]) + 1e-3 * width)
    return (lo, hi) if needed or hi - lo <= MOST_WIDTHS * body else span


def sampled_range(scan: Scan) -> tuple[float, float]:
    """Range of the histogram of a float volume: what 8 slices hold, less 0.005 % at either end, and a margin.

    Outliers count no further than three times the width of the body (percentiles 0.1 to 99.9) from it.
    """
    found = []
    for z in scan.sampled():
        values = scan.values.read(z, z + 1)[0]
        mask = inside_mask(scan.source.read(z, z + 1), scan.fov)[0]
        inside = values[mask]
        found.append(inside[:: max(1, inside.size // 500_000)])
    sample = np.concatenate(found)
    if not sample.size:
        return 0.0, 1.0
    lo, start, end, hi = (float(v) for v in np.percentile(sample, (0.005, *BODY, 99.995)))
    if lo == hi:
        lo, hi = float(sample.min()), float(sample.max())
    margin = MARGIN * (hi - lo) or 0.5 * max(1.0, abs(lo))
    body = end - start
    if body > 0:
        return max(lo - margin, start - 3 * body), min(hi + margin, end + 3 * body)
    return lo - margin, hi + margin


def _count(values: np.ndarray, span: tuple[float, float] | None) -> np.ndarray:
    """Counts of underflow, bins …, overflow (int64); without a span, of the values' bits read as unsigned."""
    if span is None:
        unsigned = values.view(f"u{values.dtype.itemsize}")
        return np.bincount(unsigned, minlength=1 << (8 * values.dtype.itemsize))
    work = np.float32 if values.dtype.kind == "f" and values.dtype.itemsize <= 4 else np.float64
    lo, scale = work(span[0]), work(BINS / (span[1] - span[0]))
    index = np.empty(values.size, np.intp)
    for start in range(0, values.size, 2**17):  # pieces that stay in the cache
        piece = np.subtract(values[start : start + 2**17], lo, dtype=work)
        piece *= scale
        piece += work(1)
        np.clip(piece, 0, BINS + 1, out=piece)
        index[start : start + 2**17] = piece
    return np.bincount(index, minlength=BINS + 2)


def _binned(plane: np.ndarray, steps: tuple[int, int]) -> np.ndarray:
    """Sums over blocks of `steps` pixels, float64."""
    rows = np.add.reduceat(plane, np.arange(0, plane.shape[0], steps[0]), axis=0, dtype=np.float64)
    return np.add.reduceat(rows, np.arange(0, plane.shape[1], steps[1]), axis=1)


def _block(scan: Scan, span: tuple[float, float] | None, border: tuple[int, int], progress: Progress) -> dict[str, Any]:
    """What one task finds in slices [z0, z1)."""
    shape, inside = scan.source.shape, scan.inside
    steps = (-(-shape[1] // IMAGE_SIZE), -(-shape[2] // IMAGE_SIZE))
    everywhere = _binned(np.ones(shape[1:], np.uint8) if inside is None else inside, steps)
    centres = _centres(scan.values.dtype, span)
    counts: np.ndarray | int = 0
    image, pixels = np.zeros_like(everywhere), np.zeros_like(everywhere)
    found: dict[str, list[Any]] = {
        name: [] for name in ("mean", "std", "voxels", "nan", "quantiles", "digest", "extremes", "rings")
    }
    sampled = set(scan.sampled())
    for z, raw, plane, digest in scan.planes(*border):
        valid = valid_mask(raw, scan.fov)
        if valid is not None and inside is not None:
            valid &= inside
        mask = inside if valid is None else valid
        values = plane.ravel() if mask is None else plane[mask]
        number = _count(values, span)
        counts = counts + number
        nan = 0
        if raw.dtype.kind == "f" and valid is not None:
            finite = np.isfinite(raw)
            nan = int((~finite if inside is None else inside & ~finite).sum())
        found["nan"].append(nan)
        found["voxels"].append(values.size)
        mean = float(values.mean(dtype=np.float64)) if values.size else np.nan
        found["mean"].append(mean)
        found["std"].append(_spread(values, mean) if values.size else np.nan)
        quantiles = _quantiles(values, _in_order(number, plane.dtype, span), centres)
        found["quantiles"].append(quantiles)
        if values.size:
            found["extremes"].append((values.min(), values.max()))
        image += _binned(plane if mask is None else np.where(mask, plane, plane.dtype.type(0)), steps)
        pixels += everywhere if valid is None else _binned(valid, steps)
        if z in sampled and values.size:
            found["rings"].append(scan.polar.ring_profile(plane, _all(plane) if mask is None else mask, RING_SIZE))
        if digest:
            found["digest"].append(digest)
        progress.update(plane.size)
    return {"counts": counts, "image": image, "pixels": pixels, **found}


def _all(plane: np.ndarray) -> np.ndarray:
    return np.ones(plane.shape, bool)


def _centres(dtype: np.dtype, span: tuple[float, float] | None) -> np.ndarray:
    """The values that the entries of `_in_order` stand for, float64, increasing."""
    if span is None:
        info = np.iinfo(dtype)
        return np.arange(info.min, info.max + 1, dtype=np.float64)
    width = (span[1] - span[0]) / BINS
    return span[0] + width * (np.arange(BINS + 2) - 0.5)


def _in_order(number: np.ndarray, dtype: np.dtype, span: tuple[float, float] | None) -> np.ndarray:
    """What `_count` gives, in increasing order of the values: negative integers first."""
    return np.roll(number, -int(np.iinfo(dtype).min)) if span is None and dtype.kind == "i" else number


def _quantiles(values: np.ndarray, number: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """Values at the fractions of `shading.QUANTILES`, float32, to a bin; the first and last are exact."""
    if not values.size:
        return np.full(len(QUANTILES), np.nan, np.float32)
    found = centres[np.searchsorted(np.cumsum(number), QUANTILES * values.size)]
    found[[0, -1]] = values.min(), values.max()
    return np.clip(found, found[0], found[-1]).astype(np.float32)


def _spread(values: np.ndarray, mean: float) -> float:
    """Standard deviation; deviations in the values' own precision, their squares summed in float64."""
    work = np.float32 if values.dtype.itemsize <= 2 or values.dtype == np.float32 else np.float64
    total = 0.0
    for start in range(0, values.size, 2**17):
        piece = np.subtract(values[start : start + 2**17], work(mean), dtype=work)
        piece *= piece
        total += float(piece.sum(dtype=np.float64))
    return float(np.sqrt(total / values.size))


def _one_pass(scan: Scan, span: tuple[float, float] | None, threads: int, name: str) -> dict[str, Any]:
    source = scan.source
    borders = task_borders(scan.values)
    size = int(np.prod(source.shape, dtype=np.int64))
    with Progress(size, "voxels", f"histogram {name}" if name else "") as progress:
        found: dict[str, Any] = {}
        # A few tasks at a time, since each leaves a histogram and an image; added in order, whatever the threads.
        for start in range(0, len(borders), BATCH * threads):
            some = borders[start : start + BATCH * threads]
            tasks = [dask.delayed(_block)(scan, span, border, progress) for border in some]
            for block in dask.compute(*tasks, scheduler="threads", num_workers=threads):
                found = {key: found[key] + value for key, value in block.items()} if found else block
    counts = found["counts"]
    low = min((low for low, _ in found["extremes"]), default=np.nan)
    high = max((high for _, high in found["extremes"]), default=np.nan)
    if span is None:
        info = np.iinfo(source.dtype)
        counts = np.roll(counts, -info.min)
        edges = np.arange(info.min, info.max + 2) - 0.5
        underflow = overflow = 0
    else:
        edges = np.linspace(*span, BINS + 1)
        underflow, overflow = int(counts[0]), int(counts[-1])
        counts = counts[1:-1]
    with np.errstate(invalid="ignore"):
        mean_image = found["image"] / found["pixels"]
    rings = found["rings"] or [np.zeros(scan.polar.n_radii)]
    return {
        "edges": edges,
        "counts": counts,
        "underflow": np.int64(underflow),
        "overflow": np.int64(overflow),
        "nan": np.int64(sum(found["nan"])),
        "low": np.float64(low),
        "high": np.float64(high),
        "slice_mean": np.array(found["mean"]),
        "slice_std": np.array(found["std"]),
        "slice_voxels": np.array(found["voxels"], np.int64),
        "slice_nan": np.array(found["nan"], np.int64),
        "slice_quantiles": np.array(found["quantiles"]),
        "mean_image": mean_image,
        "ring_profile": np.mean(rings, axis=0),
        "content": np.str_(combine_digests(found["digest"], source.shape, source.dtype)),
    }
