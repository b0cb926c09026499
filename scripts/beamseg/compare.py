"""compare: whether a scan is like those that a bundle was trained on, before its network sees a voxel."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from .errors import InputError
from .provenance import read_json, write_json
from .volumes import MAX_GREY, grey_counts

OUT_OF_RANGE = 0.9
UNLIKE_VOXELS = 1.1
MAX_LOG = 700.0  # a float holds the ratio, and its inverse
SAME_LOG = 0.01  # axes whose ratios agree to a per cent


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """Earth mover's distance of two histograms over the grey levels 1 … 65535, in units of the range, 0 … 1.

    In one dimension it is the area between the two cumulative distributions (Rubner et al. 2000).
    """
    first, second = (np.cumsum(counts[1:]) / counts[1:].sum() for counts in (a, b))
    return float(np.abs(first - second)[:-1].sum() / (MAX_GREY - 1))


def compare(
    *,
    index: str | Path,
    arrays: str | Path,
    plan: str | Path,
    scan: str | Path,
    histogram: str | Path,
    settings: dict[str, Any],
    out: str | Path,
) -> dict[str, Any]:
    """Measure how far the grey levels and the voxels of a scan are from a bundle's training scans.

    Parameters
    ----------
    index, arrays : path
        Of the bundle, as `apply` lays them out.
    plan : path
        The plan that normalizes the scan: the bundle's, or the scan's own with `range: own`.
    scan, histogram : path
        Of the scan.
    settings : dict
        Section `apply`.
    out : path
        JSON: `distance` (`distance` of the histograms), `clipped` {low, high} (fractions of voxels), `voxel_ratio`
        (scan over bundle along the axis that differs most; null if unknown), `bundle` {stage, scans}, `warnings`.

    Raises
    ------
    InputError
        If the voxels differ in size by more than `max_voxel_ratio`, or hardly any lies in the bundle's grey range.
    """
    bundle, about, span = read_json(index), read_json(scan), read_json(plan)
    trained = load_file(arrays)["counts"]
    counts = grey_counts(span, [histogram])
    clipped = _clipped(histogram, span["range"])
    own = settings["range"] == "own"
    remedy = "set apply.range: own (the scan's own grey range), or train on this scan"
    if sum(clipped.values()) > OUT_OF_RANGE:
        lo, hi = span["range"]
        types = sorted({str(one.get("dtype")) for one in bundle["scans"]})
        raise InputError(
            about["name"],
            f"{sum(clipped.values()):.0%} of the voxels ({about['dtype']}) lie outside {lo:g} … {hi:g}",
            f"grey levels on the scale of the bundle's training scans ({', '.join(types)})",
            remedy,
        )
    found = distance(counts, trained)
    warnings = []
    if found > settings["warn_drift"]:
        warnings.append(
            f"grey levels lie {found:.1%} of the grey range from those that the bundle was trained on (over "
            f"{settings['warn_drift']:.1%}): the same phase may get another class; "
            + ("" if own else "apply.range: own normalizes the scan by itself, ")
            + ("look at the pictures, or train" if settings["adapt"] else "apply.adapt: true adapts the network to it")
        )
    ratio, axis = voxel_ratio(about["voxel_size_um"], [one["voxel_size_um"] for one in bundle["scans"]])
    if ratio is None:
        warnings.append(
            f"voxel size unknown, not compared: {'the scan' if about['voxel_size_um'] is None else 'the bundle'} gives "
            "none, and the network has learned sizes in voxels"
        )
    else:
        size = max(ratio, 1 / ratio)
        words = f"voxels are {size:.3g} times {'larger' if ratio > 1 else 'smaller'} than the bundle's{axis}"
        if size > settings["max_voxel_ratio"]:
            raise InputError(
                about["name"],
                words,
                f"at most {settings['max_voxel_ratio']:g} times (apply.max_voxel_ratio)",
                "bin the scan to the bundle's voxel size, correct voxel_size_um, or train on this scan",
            )
        if size > UNLIKE_VOXELS:
            warnings.append(f"{words}: the network has learned sizes in voxels, so structures look different to it")
    result = {
        "distance": found,
        "clipped": clipped,
        "voxel_ratio": ratio,
        "bundle": {"stage": bundle["stage"], "scans": [one["name"] for one in bundle["scans"]]},
        "warnings": warnings,
    }
    write_json(out, result)
    print(f"grey levels: {found:.2%} of the range from the bundle's", *warnings, sep="\nwarning: ")
    return result


def voxel_ratio(size: list[float] | None, trained: list[list[float] | None]) -> tuple[float | None, str]:
    """Voxel size over the geometric mean of the training scans', along the axis on which they differ most.

    Axes stand for themselves: slices that are farther apart do not make up for pixels that are finer.

    Returns
    -------
    float, optional
        None if either size is unknown.
    str
        `' along z'` and the like; empty where all axes agree.
    """
    known = [one for one in trained if one is not None]
    if size is None or not known:
        return None, ""
    logs = [
        max(-MAX_LOG, min(MAX_LOG, math.log(own) - sum(map(math.log, others)) / len(known)))
        for own, *others in zip(size, *known, strict=True)
    ]
    worst = max(range(3), key=lambda k: abs(logs[k]))
    return math.exp(logs[worst]), "" if max(logs) - min(logs) < SAME_LOG else f" along {'zyx'[worst]}"


def _clipped(histogram: str | Path, span: list[float]) -> dict[str, float]:
    """Fractions of the voxels below and above a range."""
    with np.load(histogram) as found:
        middle = (found["edges"][1:] + found["edges"][:-1]) / 2
        counts, low, high = found["counts"], int(found["underflow"]), int(found["overflow"])
        total = int(counts.sum()) + low + high
        below = int(counts[middle < span[0]].sum()) + (low if float(found["low"]) < span[0] else 0)
        above = int(counts[middle > span[1]].sum()) + (high if float(found["high"]) > span[1] else 0)
    return {"low": below / total, "high": above / total}
