"""Shading of a scan, measured: drift along z, cupping, rings, and slices with defects. Fractions of the grey range."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

PROFILE = 64  # points of a stored profile, at most
RINGS = 32
SURROUNDED = 0.3  # of the grey range
ANGLES = 720
LEAST_RADIUS = 8  # pixels; nearer to the centre a ring has too few voxels to be told from noise
_TAIL = (0, 1e-4, 3e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1, 0.25)
QUANTILES = np.array([*_TAIL, 0.5, *(1 - q for q in reversed(_TAIL))])
"""Fractions at which `histogram` keeps the values of each slice."""


def measured(found: dict[str, Any], scan: dict[str, Any], limits: Sequence[float]) -> dict[str, Any]:
    """What `histogram.npz` tells of a scan's shading and defects.

    Parameters
    ----------
    found : dict
        Content of `histogram.npz`.
    scan : dict
        `scan.json`: fov and shape are read.
    limits : (lo, hi)
        Grey range of the group.

    Returns
    -------
    dict
        drift, cupping, rings, defects; see the functions of these names.
    """
    lo, hi = map(float, limits)
    return {
        "drift": drift(found["slice_mean"], hi - lo),
        "cupping": cupping(found["mean_image"], scan["fov"], scan["shape"], hi - lo),
        "rings": rings(found["ring_profile"], hi - lo),
        "defects": defects(found, (lo, hi)),
    }


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
    valid = flat_part(mean_image, r < 1, width)
    ring = np.minimum((r[valid] * RINGS).astype(int), RINGS - 1)
    size = np.bincount(ring, minlength=RINGS)
    if (size > 0).sum() < 3:
        return {"amplitude": 0.0, "profile": []}
    mean = np.bincount(ring, mean_image[valid], minlength=RINGS)[size > 0] / size[size > 0]
    middle = np.bincount(ring, r[valid], minlength=RINGS)[size > 0] / size[size > 0]
    slope = np.polyfit(middle**2, mean / width, 1, w=np.sqrt(size[size > 0]))[0]
    return {"amplitude": float(slope), "profile": _short((mean - mean.mean()) / width)}


def flat_part(mean_image: np.ndarray, inside: np.ndarray, width: float) -> np.ndarray:
    """Pixels of a mean image whose level tells of shading, bool: all, or the brighter half where a sample stands in
    something darker (the image then spans more than 0.3 of the grey range `width`)."""
    valid = np.isfinite(mean_image) & inside
    if valid.any():
        dark, bright = np.percentile(mean_image[valid], (5, 95))
        if bright - dark > SURROUNDED * width:
            valid &= mean_image >= (dark + bright) / 2
    return valid


class Polar:
    """Nearest pixels of a slice on a polar grid about the centre of the field of view.

    Parameters
    ----------
    fov : dict
        Of `scan.json`.
    shape : (y, x)
    """

    def __init__(self, fov: dict[str, Any], shape: tuple[int, int]) -> None:
        cy = fov.get("cy", (shape[0] - 1) / 2)
        cx = fov.get("cx", (shape[1] - 1) / 2)
        corner = np.hypot(max(cy, shape[0] - 1 - cy), max(cx, shape[1] - 1 - cx))
        self.n_radii = int(min(fov.get("radius", corner), corner)) + 1
        angle = np.arange(ANGLES)[:, None] * (2 * np.pi / ANGLES)
        radius = np.arange(self.n_radii)[None, :]
        y = np.rint(cy + radius * np.sin(angle)).astype(int)
        x = np.rint(cx + radius * np.cos(angle)).astype(int)
        self.within = (y >= 0) & (y < shape[0]) & (x >= 0) & (x < shape[1])
        self.index = np.where(self.within, y * shape[1] + x, 0)

    def ring_profile(self, plane: np.ndarray, inside: np.ndarray, size: int) -> np.ndarray:
        """Level of the rings at radius 0, 1, … pixels, float64 (r,), in units of the slice.

        The median over the angles of each radius, less its running median over `size` radii: what is the same all
        around and narrower than half of `size`. 0 within 8 pixels of the centre and where fewer than a tenth of the
        angles hold a voxel (`inside`, bool (y, x)).
        """
        polar = plane.ravel()[self.index].astype(np.float64)
        polar[~(self.within & inside.ravel()[self.index])] = np.nan
        enough = np.isfinite(polar).sum(axis=0) >= ANGLES // 10
        residual = np.zeros(self.n_radii)
        if enough.sum() > size:
            from scipy.ndimage import median_filter

            level = np.nanmedian(polar[:, enough], axis=0)
            residual[enough] = level - median_filter(level, size, mode="nearest")
        residual[:LEAST_RADIUS] = 0
        return residual


def rings(profile: np.ndarray, width: float) -> dict[str, Any]:
    """How strong rings are, in fractions of the grey range.

    Parameters
    ----------
    profile : ndarray, (r,)
        Mean over a few slices of `Polar.ring_profile`.

    Returns
    -------
    dict
        amplitude (99th percentile of the profile's size) and profile (of at most 64 blocks of radii, the value
        farthest from 0).
    """
    values = np.asarray(profile, dtype=float) / width
    blocks = [b for b in np.array_split(values, min(PROFILE, max(1, len(values)))) if b.size]
    farthest = np.array([b[np.argmax(np.abs(b))] for b in blocks])
    amplitude = float(np.percentile(np.abs(values), 99)) if values.size else 0.0
    return {"amplitude": amplitude, "profile": _short(farthest)}


def defects(found: dict[str, Any], limits: Sequence[float]) -> dict[str, Any]:
    """Voxels and slices that hold no picture, and the share of each slice beyond the grey range.

    Returns
    -------
    dict
        not_finite (voxels), slices_not_finite, constant_slices, empty_slices (lists of [first, last]), clipped_slice
        {low, high, z_low, z_high}: the greatest share of a slice below and above the range, and where.
    """
    values = found["slice_quantiles"]
    empty = np.isnan(values[:, 0])
    low, high = beyond(values, limits)
    return {
        "not_finite": int(found["slice_nan"].sum()),
        "slices_not_finite": runs_of(found["slice_nan"] > 0),
        "constant_slices": runs_of(values[:, 0] == values[:, -1]),
        "empty_slices": runs_of(empty),
        "clipped_slice": {
            "low": float(low.max(initial=0)),
            "high": float(high.max(initial=0)),
            "z_low": int(low.argmax()),
            "z_high": int(high.argmax()),
        },
    }


def beyond(slice_quantiles: np.ndarray, limits: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Share of each slice's voxels below and above the limits, (z,) each, from the values at `QUANTILES`.

    Between two of these fractions it is interpolated. 0 where a slice is empty.
    """
    low, high = (np.zeros(len(slice_quantiles)) for _ in range(2))
    for z, values in enumerate(slice_quantiles):
        if np.isfinite(values).all():
            low[z] = _share_below(values, float(limits[0]), QUANTILES)
            high[z] = _share_below(-values[::-1], -float(limits[1]), 1 - QUANTILES[::-1])
    return low, high


def _share_below(values: np.ndarray, limit: float, fractions: np.ndarray) -> float:
    """Fraction at which increasing `values` reach the limit."""
    i = int(np.searchsorted(values, limit, side="left"))
    if i in (0, len(values)):
        return float(i > 0)
    part = (limit - values[i - 1]) / (values[i] - values[i - 1])
    return float(fractions[i - 1] + part * (fractions[i] - fractions[i - 1]))


def runs_of(flags: np.ndarray) -> list[list[int]]:
    """[[first, last], …] of the runs of true values."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(flags, dtype=np.int8), [0]])))
    return [[int(a), int(b) - 1] for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _short(profile: np.ndarray) -> list[float]:
    return [round(float(v), 5) for v in profile]
