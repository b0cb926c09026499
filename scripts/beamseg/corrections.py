"""Corrections of a scan before it is measured: shading, rings, noise. All off by default.

They act on the scan's own values, so that everything after them (histogram, grey range, clusters, grey levels) sees
the corrected scan: `corrected(source, scan)` is a source like any other. What they need to know of the whole scan is
estimated once, by `estimate` in the stage ingest, and stands in `scan.json`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from skimage import restoration

from .errors import InputError
from .fov import inside_mask, radii
from .readers.source import Source
from .shading import Polar, flat_part

SAMPLED_SLICES = 64
DEPTH_MB = 128.0


def sampled_slices(n_slices: int, most: int = SAMPLED_SLICES) -> list[int]:
    """Up to `most` slices, evenly spaced from the first to the last."""
    return np.unique(np.linspace(0, n_slices - 1, most).round().astype(int)).tolist()


def estimate(source: Source, fov: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """What the corrections need to know of a scan, from at most 64 slices; the entry `correction` of `scan.json`.

    Parameters
    ----------
    source : Source
    fov : dict
        Of `scan.json`.
    settings : dict
        `runs.corrections`: keys of the section `normalize`, and `z_continuous`, whether filters look along z.

    Returns
    -------
    dict
        The settings; limits (values beyond them do not count in estimates of shading), mean, noise (standard
        deviation, from differences of neighbours), and curve: coefficients, highest power first, of a cubic in
        z / last slice (drift, through the slices' means) or of a quadratic in r² / farthest r² (cupping, through the
        mean image).

    Raises
    ------
    InputError
        If the sampled slices hold no number, or division meets shading that is not positive.
    """
    chosen = sampled_slices(source.shape[0])
    sample = [_inside(source, z, fov) for z in chosen[:: max(1, len(chosen) // 8)]]
    values = np.concatenate([plane[mask][:: max(1, plane.size // 200_000)] for plane, mask in sample])
    if not values.size:
        raise InputError("ingest.fov", "no finite voxel in the sampled slices", "a reconstructed volume", "check fov")
    low, high = (float(v) for v in np.percentile(values, (0.1, 99.9)))
    limits = (2 * low - high, 2 * high - low)
    steps = [np.diff(plane, axis=1)[mask[:, 1:] & mask[:, :-1]] for plane, mask in sample]
    # The median of |difference| of Gaussian noise is 0.6745 √2 σ.
    differences = np.abs(np.concatenate(steps))
    noise = float(np.median(differences)) / (0.6745 * math.sqrt(2)) if differences.size else 0.0
    found: dict[str, Any] = {**settings, "limits": list(limits), "noise": noise}
    means, image, pixels = [], np.zeros(source.shape[1:]), np.zeros(source.shape[1:])
    for z in chosen if settings["shading"] in ("drift", "cupping") else chosen[:: max(1, len(chosen) // 8)]:
        plane, mask = _inside(source, z, fov)
        plane = np.where(mask, np.clip(plane, *limits), 0)
        means.append(plane.sum(dtype=np.float64) / mask.sum() if mask.any() else np.nan)
        image += plane
        pixels += mask
    found["mean"] = float(image.sum() / pixels.sum())
    if settings["shading"] == "drift":
        found["curve"] = _drift_curve(np.array(chosen) / max(1, source.shape[0] - 1), np.array(means))
        shade = np.polyval(found["curve"], np.linspace(0, 1, 256))
    elif settings["shading"] == "cupping":
        mean_image = np.divide(image, pixels, out=np.full(image.shape, np.nan), where=pixels > 0)
        found["curve"] = _cupping_curve(mean_image, fov, high - low)
        shade = np.polyval(found["curve"], np.linspace(0, 1, 256))
    else:
        return found
    _check_divisor(shade, settings["shading_by"])
    return found


def _inside(source: Source, z: int, fov: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """(slice z as float32, which pixels count)."""
    raw = source.read(z, z + 1)
    return raw[0].astype(np.float32), inside_mask(raw, fov)[0]


def _drift_curve(place: np.ndarray, means: np.ndarray) -> list[float]:
    known = np.isfinite(means)
    degree = min(3, int(known.sum()) - 1)
    return [float(c) for c in np.polyfit(place[known], means[known], degree)]


def _cupping_curve(mean_image: np.ndarray, fov: dict[str, Any], width: float) -> list[float]:
    r = radii(fov, mean_image.shape)
    valid = flat_part(mean_image, np.isfinite(mean_image), width)
    square = (r / _farthest(r, fov)) ** 2
    ring = np.minimum((square[valid] * 64).astype(int), 63)
    size = np.bincount(ring, minlength=64)
    kept = size > 0
    middle = np.bincount(ring, square[valid], minlength=64)[kept] / size[kept]
    level = np.bincount(ring, mean_image[valid], minlength=64)[kept] / size[kept]
    degree = min(2, int(kept.sum()) - 1)
    return [float(c) for c in np.polyfit(middle, level, degree, w=np.sqrt(size[kept]))]


def _farthest(r: np.ndarray, fov: dict[str, Any]) -> float:
    """Radius that counts as 1: the field of view's, or that of the farthest corner."""
    return max(1.0, min(float(fov.get("radius", np.inf)), float(r.max())))


def _check_divisor(shade: np.ndarray, by: str) -> None:
    if by == "divide" and not float(np.min(shade)) > 0:
        raise InputError(
            "normalize.shading_by",
            f"divide, and shading down to {float(np.min(shade)):g}",
            "shading above 0",
            "set normalize.shading_by: subtract",
        )


class Corrector:
    """The corrections of one scan, for whole slices.

    Parameters
    ----------
    correction : dict
        From `estimate`.
    fov : dict
        Of `scan.json`.
    shape : (z, y, x)
        Of the scan.

    Notes
    -----
    Shading and rings of a slice follow from that slice and `correction`; noise filters see `halo` slices on either
    side. So any cut along z gives the same values.
    """

    def __init__(self, correction: dict[str, Any], fov: dict[str, Any], shape: tuple[int, int, int]) -> None:
        self.settings, self.fov, self.shape = correction, fov, shape
        self.halo = self._halo()
        self._radii = radii(fov, shape[1:])
        if correction["shading"] == "cupping":
            square = (self._radii / _farthest(self._radii, fov)) ** 2
            self._cup = np.polyval(correction["curve"], square).astype(np.float32)
        self._polar = Polar(fov, shape[1:]) if correction["rings"] == "polar" else None

    def _halo(self) -> int:
        strength = float(self.settings["denoise_strength"])
        if not self.settings["z_continuous"]:
            return 0
        return {"median": _median_radius(strength), "gaussian": int(4 * strength + 0.5)}.get(
            self.settings["denoise"], 0
        )

    def __call__(self, raw: np.ndarray, first: int, z0: int, z1: int) -> np.ndarray:
        """Slices z0 … z1, float32 (z, y, x), NaN outside the field of view and where the scan holds no number.

        `raw` holds whole slices from slice `first` on, `halo` more than asked for on either side where there are any.
        """
        mask = inside_mask(raw, self.fov)
        values = raw.astype(np.float32)
        if not mask.all():
            for plane, inside in zip(values, mask, strict=True):
                plane[~inside] = plane[inside].mean(dtype=np.float64) if inside.any() else 0
        for index in range(len(values)):
            if mask[index].any():
                self._shading(values[index], mask[index], first + index)
                self._rings(values[index], mask[index])
        kept = slice(z0 - first, z1 - first)
        values = self._denoise(values, mask, kept)
        values[~mask[kept]] = np.nan
        return values

    def _shading(self, plane: np.ndarray, mask: np.ndarray, z: int) -> None:
        s = self.settings
        if s["shading"] == "none":
            return
        if s["shading"] == "drift":
            shade: Any = np.polyval(s["curve"], z / max(1, self.shape[0] - 1))
        elif s["shading"] == "cupping":
            shade = self._cup
        else:
            shade = smooth(np.clip(plane, *s["limits"]), mask, float(s["background_sigma"]))
            _check_divisor(shade[mask], s["shading_by"])
        if s["shading_by"] == "divide":
            plane *= s["mean"] / shade
        else:
            plane -= shade - s["mean"]

    def _rings(self, plane: np.ndarray, mask: np.ndarray) -> None:
        if self._polar is not None:
            profile = self._polar.ring_profile(plane, mask, self.settings["ring_width"])
            plane -= np.interp(self._radii, np.arange(len(profile)), profile, right=0.0)

    def _denoise(self, values: np.ndarray, mask: np.ndarray, kept: slice) -> np.ndarray:
        s, strength = self.settings, float(self.settings["denoise_strength"])
        flat = not s["z_continuous"]
        if s["denoise"] == "median":
            from scipy.ndimage import median_filter

            size = 2 * _median_radius(strength) + 1
            return median_filter(values, (1 if flat else size, size, size), mode="nearest")[kept]
        if s["denoise"] == "gaussian":
            return smooth(values, mask, (0 if flat else strength, strength, strength))[kept]
        if s["denoise"] in PLANE_FILTERS and s["noise"] > 0:
            apply = PLANE_FILTERS[s["denoise"]]
            for plane in values[kept]:
                plane[:] = apply(plane / s["noise"], strength) * s["noise"]
        return values[kept].copy()


def _median_radius(strength: float) -> int:
    return max(1, round(strength))


PLANE_FILTERS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {
    "tv": lambda plane, strength: restoration.denoise_tv_chambolle(plane, weight=strength),
    "nlm": lambda plane, strength: restoration.denoise_nl_means(
        plane, patch_size=5, patch_distance=6, h=0.8 * strength, sigma=1.0, fast_mode=True
    ),
}
"""Filters of a slice in units of its noise."""


def smooth(values: np.ndarray, mask: np.ndarray, sigma: float | tuple[float, ...]) -> np.ndarray:
    """Gaussian mean, float32, over the voxels of the mask alone (normalized convolution, Knutsson and Westin 1993)."""
    from scipy.ndimage import gaussian_filter  # a third of a second, of every process that reads a volume

    if mask.all():
        return gaussian_filter(values, sigma, mode="nearest")
    weight = gaussian_filter(mask.astype(np.float32), sigma, mode="nearest")
    total = gaussian_filter(np.where(mask, values, np.float32(0)), sigma, mode="nearest")
    return np.divide(total, weight, out=values.astype(np.float32), where=mask & (weight > 1e-6))


def corrected(source: Source, scan: dict[str, Any]) -> Source:
    """The source as all stages after ingest see it: itself, or float32 values corrected on the way.

    Parameters
    ----------
    source : Source
        Of the scan.
    scan : dict
        `scan.json`; its entry `correction`, if there is one, says what to correct.

    Notes
    -----
    A window of a corrected slice costs the whole slice, and the filters' halo: such a scan is read through the cache.
    """
    if not scan.get("correction"):
        return source
    correct = Corrector(scan["correction"], scan["fov"], source.shape)

    def read_window(z0: int, z1: int, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        first = max(0, z0 - correct.halo)
        return correct(source.read(first, z1 + correct.halo), first, z0, z1)[:, y0:y1, x0:x1]

    return replace(
        source,
        dtype=np.dtype(np.float32),
        read_window=read_window,
        compressed=True,
        chunks=(task_depth(source, correct.halo), *source.chunks[1:]),
    )


def task_depth(source: Source, halo: int) -> int:
    """Slices that one read should take: a multiple of the chunk's depth, and of the halo where memory allows."""
    slice_mb = source.shape[1] * source.shape[2] * 4 / 2**20
    depth = source.depth
    while depth < 8 * halo and 2 * depth * slice_mb <= DEPTH_MB:
        depth *= 2
    return depth


def fov_of(scan: dict[str, Any]) -> dict[str, Any]:
    """Field of view for the values that `corrected` gives: there what does not count is NaN, not a value."""
    fov = scan["fov"]
    if not scan.get("correction") or fov["kind"] != "constant":
        return dict(fov)
    return {"kind": "circle", **{k: fov[k] for k in ("cy", "cx", "radius")}} if "radius" in fov else {"kind": "full"}
