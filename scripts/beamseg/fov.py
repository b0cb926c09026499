"""Which voxels count: the field of view of a scan, and what is a number inside it."""

from __future__ import annotations

from typing import Any

import numpy as np


def fov_mask(fov: dict[str, Any], y0: int, y1: int, x0: int, x1: int) -> np.ndarray | None:
    """Which pixels of the window [y0, y1) × [x0, x1) lie inside the field of view, bool (y, x); None means all.

    `fov` is that of `scan.json`: a circle counts the pixels whose centres lie within `radius` of (`cy`, `cx`). The
    value of a `constant` field of view is not looked at here, since it needs the voxels.
    """
    if "radius" not in fov:
        return None
    y = np.arange(y0, y1, dtype=np.float64)[:, None] - fov["cy"]
    x = np.arange(x0, x1, dtype=np.float64)[None, :] - fov["cx"]
    inside = y * y + x * x <= float(fov["radius"]) ** 2
    return None if inside.all() else inside


def valid_mask(raw: np.ndarray, fov: dict[str, Any]) -> np.ndarray | None:
    """Which voxels are numbers and not the value that marks the outside, bool, as `raw`; None means all."""
    valid = None
    if raw.dtype.kind == "f":
        finite = np.isfinite(raw)
        valid = None if finite.all() else finite
    if fov["kind"] == "constant" and fov.get("value") is not None:
        other = raw != raw.dtype.type(fov["value"])
        valid = other if valid is None else valid & other
    return valid


def inside_mask(raw: np.ndarray, fov: dict[str, Any]) -> np.ndarray:
    """Both of the above for whole slices (z, y, x): which voxels count, bool."""
    valid = valid_mask(raw, fov)
    circle = fov_mask(fov, 0, raw.shape[1], 0, raw.shape[2])
    mask = np.ones(raw.shape, bool) if valid is None else valid
    return mask if circle is None else mask & circle


def radii(fov: dict[str, Any], shape: tuple[int, int]) -> np.ndarray:
    """Distance of every pixel of a slice (y, x) from the centre of the field of view, float32, pixels."""
    y = np.arange(shape[0], dtype=np.float64)[:, None] - fov.get("cy", (shape[0] - 1) / 2)
    x = np.arange(shape[1], dtype=np.float64)[None, :] - fov.get("cx", (shape[1] - 1) / 2)
    return np.sqrt(y * y + x * x).astype(np.float32)
