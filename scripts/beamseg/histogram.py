"""Histogram: the one pass that reads every voxel of a scan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask
import numpy as np
from tqdm import tqdm

from .errors import InputError
from .provenance import atomic_path, read_json
from .readers.source import Source, combine_digests, file_stat, read_planes, task_borders
from .volumes import fov_mask, open_scan_source, valid_mask

BINS = 65536
IMAGE_SIZE = 256  # the mean image is binned to this at most
SAMPLED_SLICES = 8
MARGIN = 0.25  # of the sampled range, on either side
MOST_OUTSIDE = 2e-4  # of the voxels beyond the ends of a sampled range; a fifth of the percentiles that plan takes


def histogram(scan_json: str | Path, out: str | Path, threads: int = 1) -> dict[str, Any]:
    """Read a scan once and write its histogram, profiles and content digest.

    8- and 16-bit integers are counted exactly, one bin per value. Other types get 65,536 bins over a range sampled
    from 8 slices, widened by a quarter on either side; should more than 0.02 % of the voxels lie beyond it, the pass
    is repeated over a wider one.

    Parameters
    ----------
    scan_json : path
        `source.json` beside it says where the input lies.
    out : path
        `histogram.npz`: edges (bins + 1), counts (bins, int64), underflow, overflow, nan (voxels in the field of view
        that are no finite numbers), low, high (least and greatest value), slice_mean and slice_std (z,), mean_image
        (binned y, x; NaN where there is nothing), content. All inside the field of view; content is of all voxels.
    threads : int
        Dask threads; each holds one read (8 slices or a chunk layer, 256 MiB at most beyond one slice).

    Returns
    -------
    dict
        What was written.

    Raises
    ------
    InputError
        If the input changed since it was taken in, or holds no number inside the field of view.
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
    result = measure(source, scan["fov"], threads, str(scan["name"]))
    if result["counts"].sum() + result["underflow"] + result["overflow"] == 0:
        raise InputError(
            where["path"], "no finite voxel in the field of view", "a reconstructed volume", "check ingest.fov"
        )
    with atomic_path(out) as temporary, open(temporary, "wb") as file:
        np.savez(file, **result)
    return result


def measure(source: Source, fov: dict[str, Any], threads: int = 1, name: str = "") -> dict[str, Any]:
    """The content of `histogram.npz`; see `histogram`."""
    inside = fov_mask(fov, 0, source.shape[1], 0, source.shape[2])
    exact = source.dtype.kind in "iu" and source.dtype.itemsize <= 2
    span = None if exact else sampled_range(source, fov, inside)
    while True:
        result = _one_pass(source, fov, inside, span, threads, name)
        if span is None:
            return result
        total = int(result["counts"].sum() + result["underflow"] + result["overflow"])
        wider = _wider(span, result, total)
        if wider == span:
            return result
        span = wider


def _wider(span: tuple[float, float], result: dict[str, Any], total: int) -> tuple[float, float]:
    """The span, or one four times as wide towards the side where too many voxels lie beyond it."""
    lo, hi = span
    width = hi - lo
    if result["underflow"] > MOST_OUTSIDE * total:
        lo = max(lo - 4 * width, float(result["low"]) - 1e-3 * width)
    if result["overflow"] > MOST_OUTSIDE * total:
        hi = min(hi + 4 * width, float(result["high"]) + 1e-3 * width)
    return lo, hi


def sampled_range(source: Source, fov: dict[str, Any], inside: np.ndarray | None) -> tuple[float, float]:
    """Range of the histogram of a float volume: what 8 slices hold, less 0.005 % at either end, and a margin."""
    found = []
    for z in np.unique(np.linspace(0, source.shape[0] - 1, SAMPLED_SLICES).round().astype(int)).tolist():
        values, _ = _values(source.read(z, z + 1)[0], fov, inside)
        found.append(values[:: max(1, values.size // 500_000)])
    sample = np.concatenate(found)
    if not sample.size:
        return 0.0, 1.0
    lo, hi = (float(v) for v in np.percentile(sample, (0.005, 99.995)))
    if lo == hi:
        lo, hi = float(sample.min()), float(sample.max())
    margin = MARGIN * (hi - lo) or 0.5 * max(1.0, abs(lo))
    return lo - margin, hi + margin


def _values(plane: np.ndarray, fov: dict[str, Any], inside: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
    """(the valid values of a slice inside the field of view, 1-D; their mask or None for the static one)."""
    valid = valid_mask(plane, fov)
    if valid is None:
        return (plane.ravel() if inside is None else plane[inside]), None
    if inside is not None:
        valid &= inside
    return plane[valid], valid


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


def _block(
    source: Source,
    fov: dict[str, Any],
    inside: np.ndarray | None,
    span: tuple[float, float] | None,
    border: tuple[int, int],
    progress: Any,
) -> dict[str, Any]:
    """What one task finds in slices [z0, z1)."""
    steps = (-(-source.shape[1] // IMAGE_SIZE), -(-source.shape[2] // IMAGE_SIZE))
    everywhere = _binned(np.ones(source.shape[1:], np.uint8) if inside is None else inside, steps)
    counts: np.ndarray | int = 0
    image, pixels = np.zeros_like(everywhere), np.zeros_like(everywhere)
    means, stds, digests, extremes = [], [], [], []
    nan = 0
    for _, plane, digest in read_planes(source, *border):
        values, valid = _values(plane, fov, inside)
        counts = counts + _count(values, span)
        if plane.dtype.kind == "f" and valid is not None:
            finite = np.isfinite(plane)
            nan += int((~finite if inside is None else inside & ~finite).sum())
        mean = float(values.mean(dtype=np.float64)) if values.size else np.nan
        means.append(mean)
        stds.append(_spread(values, mean) if values.size else np.nan)
        if values.size:
            extremes.append((values.min(), values.max()))
        mask = inside if valid is None else valid
        image += _binned(plane if mask is None else np.where(mask, plane, plane.dtype.type(0)), steps)
        pixels += everywhere if valid is None else _binned(valid, steps)
        if digest:
            digests.append(digest)
        progress.update(plane.size)
    return {
        "counts": counts,
        "image": image,
        "pixels": pixels,
        "means": means,
        "stds": stds,
        "digests": digests,
        "extremes": extremes,
        "nan": nan,
    }


def _spread(values: np.ndarray, mean: float) -> float:
    """Standard deviation; deviations in the values' own precision, their squares summed in float64."""
    work = np.float32 if values.dtype.itemsize <= 2 or values.dtype == np.float32 else np.float64
    total = 0.0
    for start in range(0, values.size, 2**17):
        piece = np.subtract(values[start : start + 2**17], work(mean), dtype=work)
        piece *= piece
        total += float(piece.sum(dtype=np.float64))
    return float(np.sqrt(total / values.size))


def _one_pass(
    source: Source,
    fov: dict[str, Any],
    inside: np.ndarray | None,
    span: tuple[float, float] | None,
    threads: int,
    name: str,
) -> dict[str, Any]:
    borders = task_borders(source)
    size = int(np.prod(source.shape, dtype=np.int64))
    with tqdm(total=size, unit="voxel", unit_scale=True, desc=f"histogram {name}".strip(), mininterval=5) as progress:
        tasks = [dask.delayed(_block)(source, fov, inside, span, border, progress) for border in borders]
        found = dask.compute(*tasks, scheduler="threads", num_workers=threads)
    counts = np.asarray(np.sum([f["counts"] for f in found], axis=0, dtype=np.int64))
    low = min((low for f in found for low, _ in f["extremes"]), default=np.nan)
    high = max((high for f in found for _, high in f["extremes"]), default=np.nan)
    if span is None:
        info = np.iinfo(source.dtype)
        counts = np.roll(counts, -info.min)
        edges = np.arange(info.min, info.max + 2) - 0.5
        underflow = overflow = 0
    else:
        edges = np.linspace(*span, BINS + 1)
        underflow, overflow = int(counts[0]), int(counts[-1])
        counts = counts[1:-1]
    pixels = np.sum([f["pixels"] for f in found], axis=0)
    with np.errstate(invalid="ignore"):
        mean_image = np.sum([f["image"] for f in found], axis=0) / pixels
    return {
        "edges": edges,
        "counts": counts,
        "underflow": np.int64(underflow),
        "overflow": np.int64(overflow),
        "nan": np.int64(sum(f["nan"] for f in found)),
        "low": np.float64(low),
        "high": np.float64(high),
        "slice_mean": np.array([m for f in found for m in f["means"]]),
        "slice_std": np.array([s for f in found for s in f["stds"]]),
        "mean_image": mean_image,
        "content": np.str_(combine_digests([d for f in found for d in f["digests"]], source.shape, source.dtype)),
    }
