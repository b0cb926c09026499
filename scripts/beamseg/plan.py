"""Plan: one grey range for a group of scans, and how far each drifts and cups."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError
from .provenance import read_json, write_json
from .shading import measured

BITS = {"uint8": 8, "uint16": 16}


def plan(
    scan_jsons: Sequence[str | Path],
    histograms: Sequence[str | Path],
    out: str | Path,
    settings: dict[str, Any],
    dtype: str = "uint16",
) -> dict[str, Any]:
    """Choose the grey range of a group and write `plan.json`.

    Parameters
    ----------
    scan_jsons, histograms : list of path
        Of the scans of the group, in the same order.
    out : path
        `plan.json`: range [lo, hi], bits, clipped {low, high} (fractions of voxels below lo and above hi), scans
        {name: {fov, drift, cupping, rings, defects, content}} (`shading.measured`), warnings.
    settings : dict
        Section `plan`: percentiles [low, high], range [lo, hi] or None, warn_drift, warn_cupping, warn_rings.
    dtype : str
        `normalize.dtype`: uint16 or uint8.

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
            **measured(one, scan, (lo, hi)),
            "content": str(one["content"]),
        }
        entries[scan["name"]] = entry
        warnings += _scan_warnings(scan["name"], entry, one, (lo, hi), settings)
    result = {
        "range": [lo, hi],
        "bits": BITS[dtype],
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
            "one phase may fall into several clusters; normalize.shading corrects it"
        )
    if abs(entry["cupping"]["amplitude"]) > settings["warn_cupping"]:
        side = "darker" if entry["cupping"]["amplitude"] > 0 else "brighter"
        warnings.append(
            f"{name}: the middle of the slices is {side} than the rim by {abs(entry['cupping']['amplitude']):.0%} of "
            "the grey range (cupping); normalize.shading corrects it"
        )
    if entry["rings"]["amplitude"] > settings["warn_rings"]:
        warnings.append(
            f"{name}: rings of {entry['rings']['amplitude']:.0%} of the grey range around the middle; "
            "normalize.rings takes them out"
        )
    if entry["defects"]["constant_slices"]:
        spans = entry["defects"]["constant_slices"]
        listed = ", ".join(f"{a}" if a == b else f"{a} to {b}" for a, b in spans[:5])
        warnings.append(
            f"{name}: slices of one value only: {listed}{' and more' if len(spans) > 5 else ''}; their voxels are "
            "counted as a phase, so better crop them off"
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
