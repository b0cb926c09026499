"""Plan: one grey range for a group of scans, and how far each drifts and cups."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError
from .provenance import read_json, write_json

BITS = 16
PROFILE = 64  # points of a stored profile, at most
RINGS = 32
SURROUNDED = 0.3  # of the grey range


def plan(
    scan_jsons: Sequence[str | Path],
    histograms: Sequence[str | Path],
    out: str | Path,
    settings: dict[str, Any],
) -> dict[str, Any]:
    """Choose the grey range of a group and write `plan.json`.

    Parameters
    ----------
    scan_jsons, histograms : list of path
        Of the scans of the group, in the same order.
    out : path
        `plan.json`: range [lo, hi], bits, clipped {low, high} (fractions of voxels below lo and above hi), scans
        {name: {fov, drift, cupping, content}}, warnings.
    settings : dict
        Section `plan`: percentiles [low, high], range [lo, hi] or None, warn_drift, warn_cupping.

    Returns
    -------
    dict
        The plan.

    Raises
    ------
    InputError
        If the scans of the group have different types or grey ranges that do not overlap, or hold one value only.
    """
    scans = [read_json(path) for path in scan_jsons]
    found = [dict(np.load(path)) for path in histograms]
    _check_types(scans)
    pooled = pool(found)
    lo, hi = (float(v) for v in settings["range"] or percentiles(*pooled, settings["percentiles"]))
    if not lo < hi:
        raise InputError(
            "plan", f"a grey range from {lo:g} to {hi:g}", "lo < hi", "set plan.range, or other plan.percentiles"
        )
    values, counts = pooled
    total = counts.sum()
    clipped = {"low": float(counts[values < lo].sum() / total), "high": float(counts[values > hi].sum() / total)}
    warnings = _check_ranges(scans, found, settings["percentiles"])
    entries = {}
    for scan, one in zip(scans, found, strict=True):
        entry = {
            "fov": scan["fov"],
            "drift": drift(one["slice_mean"], hi - lo),
            "cupping": cupping(one["mean_image"], scan["fov"], scan["shape"], hi - lo),
            "content": str(one["content"]),
        }
        entries[scan["name"]] = entry
        warnings += _scan_warnings(scan["name"], entry, one, (lo, hi), settings)
    result = {
        "range": [lo, hi],
        "bits": BITS,
        "clipped": clipped,
        "scans": entries,
        "warnings": warnings,
    }
    write_json(out, result)
    return result


def pool(histograms: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """(values in increasing order, voxels that hold them) over several histograms.

    A bin stands for its middle, so whole numbers stay exact; what lies beyond the ends stands at the least and the
    greatest value seen.
    """
    values, counts = [], []
    for one in histograms:
        edges = one["edges"]
        values += [one["low"].reshape(1), (edges[1:] + edges[:-1]) / 2, one["high"].reshape(1)]
        counts += [one["underflow"].reshape(1), one["counts"], one["overflow"].reshape(1)]
    every, number = np.concatenate(values), np.concatenate(counts)
    present = np.flatnonzero(number)
    order = present[np.argsort(every[present], kind="stable")]
    return every[order], number[order]


def percentiles(values: np.ndarray, counts: np.ndarray, q: Sequence[float]) -> np.ndarray:
    """Weighted percentiles: the least value with at least q % of the voxels at or below it."""
    cumulative = np.cumsum(counts)
    wanted = np.asarray(q, dtype=float) / 100 * cumulative[-1]
    return values[np.minimum(np.searchsorted(cumulative, wanted, side="left"), len(values) - 1)]


def drift(slice_mean: np.ndarray, width: float) -> dict[str, Any]:
    """How the mean grey level wanders along z, in fractions of the grey range.

    Returns
    -------
    dict
        amplitude (greatest minus least of the profile), slope (of the fitted line, over the whole height), profile
        (at most 64 block means, relative to their mean). What the sample does itself (more pores at the top) is in it.
    """
    means = np.asarray(slice_mean, dtype=float)
    blocks = [b[np.isfinite(b)] for b in np.array_split(means, min(PROFILE, len(means)))]
    profile = np.array([b.mean() for b in blocks if b.size])
    profile = (profile - profile.mean()) / width
    slope = float(np.polyfit(np.linspace(0, 1, len(profile)), profile, 1)[0]) if len(profile) > 1 else 0.0
    return {"amplitude": float(np.ptp(profile)), "slope": slope, "profile": _short(profile)}


def cupping(mean_image: np.ndarray, fov: dict[str, Any], shape: Sequence[int], width: float) -> dict[str, Any]:
    """How the mean over z changes from the centre to the rim, in fractions of the grey range.

    Returns
    -------
    dict
        amplitude (b of the fit a + b r², r = 1 at the rim: positive is darker in the middle) and profile (up to 32
        ring means from the centre, relative to their mean). Where the mean image spans more than 0.3 of the range, a
        sample stands in something darker, and only its brighter half is looked at: else the shape would be measured.
    """
    rows, columns = mean_image.shape
    step = (shape[1] / rows, shape[2] / columns)
    cy = fov.get("cy", (shape[1] - 1) / 2)
    cx = fov.get("cx", (shape[2] - 1) / 2)
    radius = fov.get("radius", min(shape[1], shape[2]) / 2)
    y = (np.arange(rows)[:, None] + 0.5) * step[0] - 0.5 - cy
    x = (np.arange(columns)[None, :] + 0.5) * step[1] - 0.5 - cx
    r = np.hypot(y, x) / radius
    valid = np.isfinite(mean_image) & (r < 1)
    if valid.any():
        dark, bright = np.percentile(mean_image[valid], (5, 95))
        if bright - dark > SURROUNDED * width:
            valid &= mean_image >= (dark + bright) / 2
    ring = np.minimum((r[valid] * RINGS).astype(int), RINGS - 1)
    size = np.bincount(ring, minlength=RINGS)
    if (size > 0).sum() < 3:
        return {"amplitude": 0.0, "profile": []}
    mean = np.bincount(ring, mean_image[valid], minlength=RINGS)[size > 0] / size[size > 0]
    radii = np.bincount(ring, r[valid], minlength=RINGS)[size > 0] / size[size > 0]
    slope = np.polyfit(radii**2, mean / width, 1, w=np.sqrt(size[size > 0]))[0]
    return {"amplitude": float(slope), "profile": _short((mean - mean.mean()) / width)}


def _short(profile: np.ndarray) -> list[float]:
    return [round(float(v), 5) for v in profile]


def _check_types(scans: Sequence[dict[str, Any]]) -> None:
    types = {scan["name"]: scan["dtype"] for scan in scans}
    if len(set(types.values())) > 1:
        listed = ", ".join(f"{name} is {dtype}" for name, dtype in types.items())
        raise InputError("group", f"scans of different types: {listed}", "one type per group", "split the group")


def _check_ranges(scans: Sequence[dict[str, Any]], found: Sequence[dict[str, Any]], q: Sequence[float]) -> list[str]:
    """Warnings about grey ranges that differ within a group; raises InputError where two do not overlap."""
    ranges = {s["name"]: percentiles(*pool([f]), q) for s, f in zip(scans, found, strict=True)}
    warnings = []
    names = list(ranges)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            (a0, a1), (b0, b1) = ranges[one], ranges[other]
            if a1 < b0 or b1 < a0:
                raise InputError(
                    "group",
                    f"{one} has grey values from {a0:g} to {a1:g}, {other} from {b0:g} to {b1:g}",
                    "scans of one group on one grey scale",
                    "split the group, or rescale the scans alike",
                )
            overlap = (min(a1, b1) - max(a0, b0)) / max(a1 - a0, b1 - b0, 1e-300)
            if overlap < 0.5:
                warnings.append(
                    f"the grey ranges of {one} ({a0:g} to {a1:g}) and {other} ({b0:g} to {b1:g}) overlap by "
                    f"{overlap:.0%} only: the same phase may get different clusters"
                )
    return warnings


def _scan_warnings(
    name: str,
    entry: dict[str, Any],
    one: dict[str, Any],
    span: tuple[float, float],
    settings: dict[str, Any],
) -> list[str]:
    lo, hi = span
    warnings = []
    if entry["drift"]["amplitude"] > settings["warn_drift"]:
        warnings.append(
            f"{name}: the mean grey level wanders along z by {entry['drift']['amplitude']:.0%} of the grey range; "
            "one phase may fall into several clusters"
        )
    if abs(entry["cupping"]["amplitude"]) > settings["warn_cupping"]:
        side = "darker" if entry["cupping"]["amplitude"] > 0 else "brighter"
        warnings.append(
            f"{name}: the middle of the slices is {side} than the rim by {abs(entry['cupping']['amplitude']):.0%} of "
            "the grey range (cupping)"
        )
    values, counts = pool([one])
    above = counts[values > hi].sum() / counts.sum()
    if above and float(one["high"]) > hi + 0.5 * (hi - lo):
        warnings.append(
            f"{name}: {above:.2%} of the voxels are brighter than the grey range (up to {float(one['high']):g}, the "
            f"range ends at {hi:g}) and saturate; raise the upper of plan.percentiles if these inclusions are a phase"
        )
    empty = int(one["nan"])
    if empty:
        share = empty / (empty + counts.sum())
        warnings.append(
            f"{name}: {share:.2%} of the voxels in the field of view are no finite numbers; they stay unlabelled"
        )
    return warnings
