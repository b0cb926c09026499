"""Clusters of a few features per voxel, for scans whose phases overlap in grey level."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter1d
from threadpoolctl import threadpool_limits

from .errors import InputError
from .label_values import UNLABELLED
from .volumes import MAX_GREY, OUTSIDE, Volume

BLOCK = 8  # pixels of the coarse grid on which the background is computed
TRUNCATE = 3.0
TILE, DEPTH = 192, 32  # voxels that are computed at once, without their halo
MEAN_SLICES = 64
SLICES = 16  # of all reference scans together, from which the sample is drawn

Place = tuple[slice, slice, slice]


def background(volume: Volume, sigma: float) -> np.ndarray:
    """What a scan's slices have in common beyond a length: cupping, on a grid of 8 × 8 pixels.

    The mean over at most 64 slices spread over the scan, then a Gaussian mean over what is not outside. The structure
    of the sample, which changes from slice to slice, is averaged out; the shading of the detector and of
    the reconstruction is not.

    Parameters
    ----------
    volume : Volume
        uint16 grey levels, 0 outside.
    sigma : float
        Pixels; 0 gives the mean of all, so that what is outside stands for the middle and not for black.

    Returns
    -------
    ndarray, float32, (ceil(y / 8), ceil(x / 8))
        Grey levels.
    """
    height, width = (-(-n // BLOCK) for n in volume.shape[1:])
    sums, voxels = np.zeros((height, width)), np.zeros((height, width))
    for z in np.unique(np.linspace(0, volume.shape[0] - 1, MEAN_SLICES).round().astype(int)).tolist():
        grey = volume.read(z, z + 1)[0]
        sums += _block_sums(grey)
        voxels += _block_sums(grey != OUTSIDE)
    if not sigma:
        return np.full(sums.shape, sums.sum() / max(1.0, voxels.sum()), np.float32)
    for axis in (0, 1):
        sums = gaussian_filter1d(sums, sigma / BLOCK, axis, mode="constant", truncate=TRUNCATE)
        voxels = gaussian_filter1d(voxels, sigma / BLOCK, axis, mode="constant", truncate=TRUNCATE)
    return np.divide(sums, voxels, out=np.zeros_like(sums), where=voxels > 0).astype(np.float32)


def _block_sums(image: np.ndarray) -> np.ndarray:
    rows = np.add.reduceat(image, np.arange(0, image.shape[0], BLOCK), axis=0, dtype=np.float64)
    return np.add.reduceat(rows, np.arange(0, image.shape[1], BLOCK), axis=1)


def interpolate(coarse: np.ndarray, y: range, x: range) -> np.ndarray:
    """Values of a grid of 8 × 8 pixels at the pixels y, x, linear between the middles of its cells; float32 (y, x)."""

    def places(index: range, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        at = np.clip((np.asarray(index, dtype=np.float32) + 0.5) / BLOCK - 0.5, 0, size - 1)
        low = at.astype(np.intp)
        return low, np.minimum(low + 1, size - 1), at - low

    top, bottom, down = places(y, coarse.shape[0])
    left, right, across = places(x, coarse.shape[1])
    rows = coarse[top] * (1 - down[:, None]) + coarse[bottom] * down[:, None]
    return rows[:, left] * (1 - across) + rows[:, right] * across


def halo(settings: dict[str, Any]) -> int:
    """Voxels that the features of a voxel look to either side."""
    return int(TRUNCATE * max(settings["scales_px"]) + 0.5) + 1


def names(settings: dict[str, Any]) -> list[str]:
    """Names of the features, in order."""
    every = {"smooth": [f"smooth {scale:g}" for scale in settings["scales_px"]]}
    return [name for feature in settings["use"] for name in every.get(feature, [feature])]


def features(flat: np.ndarray, settings: dict[str, Any]) -> list[np.ndarray]:
    """Features of every voxel of a block; those less than `halo` from a face that is not the volume's are not final.

    Parameters
    ----------
    flat : ndarray, float32, (z, y, x)
        Grey levels less their background, as a share of the range; 0 outside.
    settings : dict
        Section `pseudo_label.features`: use, scales_px, dimensions.

    Returns
    -------
    list of ndarray, float32, (z, y, x)
        As in `names`: grey is itself, smooth is a Gaussian mean at each scale; gradient, its length, and spread, the
        standard deviation around a voxel, are at the middle scale.
    """
    axes = (1, 2) if settings["dimensions"] == 2 else (0, 1, 2)
    scales = settings["scales_px"]
    smooth = [_gaussian(flat, scale, axes) for scale in scales]
    middle, scale = smooth[len(scales) // 2], scales[len(scales) // 2]
    found = {"grey": [flat], "smooth": smooth}
    if "gradient" in settings["use"]:
        slope = np.zeros_like(middle)
        for axis in axes:
            if middle.shape[axis] > 1:
                slope += np.gradient(middle, axis=axis) ** 2
        found["gradient"] = [np.sqrt(slope)]
    if "spread" in settings["use"]:
        found["spread"] = [np.sqrt(np.maximum(_gaussian(flat * flat, scale, axes) - middle * middle, 0))]
    return [feature for name in settings["use"] for feature in found[name]]


def _gaussian(block: np.ndarray, sigma: float, axes: tuple[int, ...]) -> np.ndarray:
    for axis in axes:
        block = gaussian_filter1d(block, sigma, axis, truncate=TRUNCATE)
    return block


class FeatureVolume:
    """Labels by the nearest cluster of features, computed where they are read: the same however they are read.

    Parameters
    ----------
    volume : Volume
        uint16 grey levels, 0 outside.
    model : dict
        From `cluster_features`.
    threads : int
        Tiles computed at once.
    mem_budget_mb : float
        MiB of grey levels that are held at once, one slice and its halo at least.
    """

    def __init__(self, volume: Volume, model: dict[str, Any], threads: int = 1, mem_budget_mb: float = 512) -> None:
        self.volume, self.model, self.threads = volume, model, threads
        self.shape = volume.shape
        slices = mem_budget_mb * 2**20 / (2 * volume.shape[1] * volume.shape[2])
        self.depth = int(np.clip(slices - 2 * halo(model["settings"]), 1, DEPTH))
        self.background = background(volume, model["settings"]["background_px"])

    def read(self, z0: int, z1: int, y: slice = slice(None), x: slice = slice(None)) -> np.ndarray:
        """Labels of the window, uint8; 255 outside."""
        z = range(max(0, z0), min(self.shape[0], z1))
        rows, columns = (range(*s.indices(n)) for s, n in zip((y, x), self.shape[1:], strict=True))
        labels = np.full((len(z), len(rows), len(columns)), UNLABELLED, np.uint8)
        for start in range(z.start, z.stop, self.depth):
            deep = range(start, min(start + self.depth, z.stop))
            for place, grey, found in self.tiles(deep, rows, columns):
                block = nearest(found, self.model)
                block[grey == OUTSIDE] = UNLABELLED
                labels[start - z.start : deep.stop - z.start][place] = block
        return labels

    def tiles(self, z: range, y: range, x: range) -> Iterator[tuple[Place, np.ndarray, list[np.ndarray]]]:
        """(place in the window, grey levels, features) of the tiles that make up a window, which is read once."""
        settings = self.model["settings"]
        reach = halo(settings)
        window = (z, y, x)
        along_z = 0 if settings["dimensions"] == 2 else reach
        wide = [
            range(max(0, r.start - h), min(n, r.stop + h))
            for r, h, n in zip(window, (along_z, reach, reach), self.shape, strict=True)
        ]
        grey = self.volume.read(wide[0].start, wide[0].stop, *(slice(r.start, r.stop) for r in wide[1:]))

        def tile(corner: tuple[int, int]) -> tuple[Place, np.ndarray, list[np.ndarray]]:
            core = [z, *(range(c, min(c + TILE, r.stop)) for c, r in zip(corner, (y, x), strict=True))]
            seen = [
                range(max(w.start, c.start - reach), min(w.stop, c.stop + reach))
                for c, w in zip(core, wide, strict=True)
            ]
            block = grey[_within(seen, wide)]
            flat = block - interpolate(self.background, *seen[1:])
            flat /= np.float32(MAX_GREY)
            flat[block == OUTSIDE] = 0
            inner = _within(core, seen)
            return _within(core, window), block[inner], [feature[inner] for feature in features(flat, settings)]

        corners = [(b, a) for b in range(y.start, y.stop, TILE) for a in range(x.start, x.stop, TILE)]
        with ThreadPoolExecutor(self.threads) as pool:
            for start in range(0, len(corners), self.threads):  # no more tiles are held than there are threads
                yield from pool.map(tile, corners[start : start + self.threads])


def _within(inner: Sequence[range], outer: Sequence[range]) -> Place:
    z, y, x = (slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))
    return z, y, x


def nearest(found: list[np.ndarray], model: dict[str, Any]) -> np.ndarray:
    """The nearest centre of each voxel's standardized features, uint8; the first of equals.

    Feature by feature and voxel by voxel, since a matrix product may round by the size of its block.
    """
    centres = np.asarray(model["centres"], dtype=np.float32)
    scaled = [
        (feature - np.float32(mean)) / np.float32(std)
        for feature, mean, std in zip(found, model["mean"], model["std"], strict=True)
    ]
    least = np.full(found[0].shape, np.inf, np.float32)
    labels = np.zeros(found[0].shape, np.uint8)
    for number, centre in enumerate(centres):
        distance = np.zeros_like(least)
        for feature, place in zip(scaled, centre, strict=True):
            distance += np.square(feature - place)
        closer = distance < least
        labels[closer] = number
        np.minimum(least, distance, out=least)
    return labels


def sample_features(volumes: Sequence[Volume], settings: dict[str, Any], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features and grey levels of voxels drawn from slices of all volumes: float32 (n, features), uint16 (n,).

    Parameters
    ----------
    volumes : sequence of Volume
        Normalized reference scans of a group.
    settings : dict
        Section `pseudo_label.features`.
    seed : int
    """
    rng = np.random.default_rng([seed, SLICES])
    each = -(-SLICES // len(volumes))
    rows, levels = [], []
    for volume in volumes:
        whole = FeatureVolume(volume, {"settings": settings})
        y, x = (range(n) for n in volume.shape[1:])
        chosen = np.sort(rng.choice(volume.shape[0], min(each, volume.shape[0]), replace=False)).tolist()
        wanted = -(-settings["sample_voxels"] // (len(chosen) * len(volumes)))
        for z in chosen:
            image = volume.read(z, z + 1)[0]
            drawn = np.zeros(image.shape, bool)
            inside = np.flatnonzero(image != OUTSIDE)
            drawn.ravel()[rng.choice(inside, min(wanted, len(inside)), replace=False)] = True
            for place, grey, found in whole.tiles(range(z, z + 1), y, x):
                here = drawn[place[1:]]
                rows.append(np.stack([feature[0][here] for feature in found], axis=1))
                levels.append(grey[0][here])
    return np.concatenate(rows), np.concatenate(levels)


def cluster_features(
    sample: np.ndarray, grey: np.ndarray, n_clusters: int, settings: dict[str, Any], seed: int
) -> tuple[dict[str, Any], np.ndarray]:
    """Clusters of standardized features: mini-batch k-means, then Lloyd's steps until no voxel changes its cluster.

    Parameters
    ----------
    sample, grey : ndarray
        From `sample_features`.
    n_clusters : int
    settings : dict
        Section `pseudo_label.features`.
    seed : int

    Returns
    -------
    model : dict
        JSON-like: settings, names, mean, std, centres (n_clusters × features, standardized) in the order of mean grey.
    labels : ndarray, uint8, (n,)
        Of the sample.

    Raises
    ------
    InputError
        If the sample holds fewer distinct voxels than clusters.
    """
    mean, std = sample.mean(axis=0, dtype=np.float64), sample.std(axis=0, dtype=np.float64)
    std[std == 0] = 1.0
    rows = (sample - mean) / std
    from sklearn.cluster import KMeans, MiniBatchKMeans  # half a second, of all who read features

    distinct = len(np.unique(rows[: 100 * n_clusters], axis=0))
    if distinct < n_clusters and (distinct := len(np.unique(rows, axis=0))) < n_clusters:
        raise InputError(
            "pseudo_label.n_clusters",
            f"{n_clusters} clusters, but the sample holds {distinct} distinct voxels",
            f"at most {distinct}",
            "lower n_clusters, or use labeler: kmeans",
        )
    with threadpool_limits(1):  # sums over threads come in no fixed order
        start = MiniBatchKMeans(n_clusters, batch_size=4096, n_init=10, random_state=seed).fit(rows).cluster_centers_
        fitted = KMeans(n_clusters, init=start, n_init=1, tol=0, max_iter=1000).fit(rows)
    model = {
        "settings": settings,
        "names": names(settings),
        "mean": mean.tolist(),
        "std": std.tolist(),
        "centres": fitted.cluster_centers_.tolist(),
    }
    labels = nearest(list(sample.T), model)
    voxels = np.bincount(labels, minlength=n_clusters)
    order = np.argsort(np.bincount(labels, grey, n_clusters) / np.maximum(voxels, 1), kind="stable")
    model["centres"] = [model["centres"][i] for i in order]
    return model, np.argsort(order).astype(np.uint8)[labels]
