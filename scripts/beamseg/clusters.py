"""Clusters of grey levels: labels that need none. A labeler turns a histogram into a table, grey level -> cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .errors import InputError
from .label_values import UNLABELLED
from .mixture import Mixture, gaussian_mixture, tied_mixture
from .multi_otsu import multi_otsu
from .volumes import MAX_GREY

MOST_LEVELS = 4096
CURVE = range(2, 9)


def rebin(counts: np.ndarray, most: int = MOST_LEVELS) -> tuple[np.ndarray, np.ndarray]:
    """Group grey levels so that at most `most` remain, each at the mean level of its voxels.

    Parameters
    ----------
    counts : ndarray, (65536,)
        Voxels per grey level; level 0 (outside) is left out.

    Returns
    -------
    levels : ndarray, float64, (n,)
        Increasing.
    weights : ndarray, float64, (n,)
        Voxels, all > 0.
    """
    counts = np.asarray(counts, dtype=np.float64)
    present = np.flatnonzero(counts[1:]) + 1
    if len(present) <= most:
        return present.astype(np.float64), counts[present]
    width = -(-(len(counts) - 1) // most)
    group = (present - 1) // width
    weights = np.bincount(group, counts[present])
    sums = np.bincount(group, counts[present] * present)
    kept = weights > 0
    return sums[kept] / weights[kept], weights[kept]


def binned(counts: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres and voxels of the occupied ones among `bins` equal bins over the grey levels 1 … 65535.

    Parameters
    ----------
    counts : ndarray, (65536,)
        Voxels per grey level; level 0 (outside) is left out.
    bins : int
        Where it is 65,535 or more, each level is a bin of its own.

    Returns
    -------
    levels, weights : ndarray, float64, (n,)
        Increasing; all weights > 0.
    """
    present = np.flatnonzero(counts[1:]) + 1
    bins = min(bins, MAX_GREY)
    # Bin b holds the levels above 0.5 + b·w up to 0.5 + (b + 1)·w of width w = 65535 / bins, in whole numbers.
    bin_of = -(-(2 * present - 1) * bins // (2 * MAX_GREY)) - 1
    weights = np.bincount(bin_of, counts[present].astype(np.float64), minlength=bins)
    occupied = np.flatnonzero(weights)
    return 0.5 + (occupied + 0.5) * (MAX_GREY / bins), weights[occupied]


def kmeans(levels: np.ndarray, weights: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    """Cut points between k-means clusters of a histogram.

    Lloyd's algorithm on weighted levels, ten starts; in one dimension the cluster of a level is the interval between
    the midpoints of neighbouring centroids.

    Parameters
    ----------
    levels, weights : ndarray, (n,)
        From `rebin`; n >= n_clusters.

    Returns
    -------
    ndarray, float64, (n_clusters - 1,)
        Increasing cut points; cluster i holds the levels between cut i - 1 and cut i.
    """
    from sklearn.cluster import KMeans  # half a second, of all who read clusters

    scale = float(levels[-1]) or 1.0
    # The default tolerance stops early on a flat optimum: cuts, and scores by 3 points, then depend on the seed.
    model = KMeans(n_clusters=n_clusters, n_init=10, tol=0, max_iter=3000, random_state=seed)
    model.fit(levels[:, None] / scale, sample_weight=weights)
    centroids = np.sort(model.cluster_centers_[:, 0]) * scale
    return (centroids[1:] + centroids[:-1]) / 2


def cut_table(cuts: np.ndarray) -> np.ndarray:
    """Table of the intervals between increasing cuts: a level that is a cut belongs below it."""
    table = np.searchsorted(cuts, np.arange(MAX_GREY + 1), side="left").astype(np.uint8)
    table[0] = UNLABELLED
    return table


def _kmeans_table(levels: np.ndarray, weights: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    return cut_table(kmeans(levels, weights, n_clusters, seed))


def _multi_otsu_table(levels: np.ndarray, weights: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    split = multi_otsu(levels, weights, n_clusters)[-1]
    return cut_table((levels[split] + levels[split + 1]) / 2)  # in the middle of a gap: no voxel says where


def _mixture_table(levels: np.ndarray, weights: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    return _likeliest(gaussian_mixture(levels, weights, n_clusters))


def _tied_mixture_table(levels: np.ndarray, weights: np.ndarray, n_clusters: int, seed: int) -> np.ndarray:
    return _likeliest(tied_mixture(levels, weights, n_clusters))


def _likeliest(mixture: Mixture) -> np.ndarray:
    """Table of the component to which each grey level belongs most likely."""
    table = mixture.log_density(np.arange(MAX_GREY + 1)).argmax(axis=0).astype(np.uint8)
    table[0] = UNLABELLED
    return table


LABELERS: dict[str, Callable[[np.ndarray, np.ndarray, int, int], np.ndarray]] = {
    "kmeans": _kmeans_table,
    "multi_otsu": _multi_otsu_table,
    "gmm": _mixture_table,
    "gmm_tied": _tied_mixture_table,
}


def reduce_levels(counts: np.ndarray, settings: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Levels and weights that a labeler of the section `pseudo_label` is given."""
    return binned(counts, settings["bins"]) if settings["labeler"] == "multi_otsu" else rebin(counts)


def label_levels(counts: np.ndarray, settings: dict[str, Any], seed: int) -> np.ndarray:
    """The table of a histogram.

    Parameters
    ----------
    counts : ndarray, (65536,)
        Voxels per grey level.
    settings : dict
        Section `pseudo_label`: labeler, n_clusters, bins.
    seed : int
        Of k-means; the others draw nothing.

    Returns
    -------
    ndarray, uint8, (65536,)
        Clusters in the order of their mean grey; level 0 is 255.

    Raises
    ------
    InputError
        If there are fewer distinct grey levels than clusters.
    """
    k = int(settings["n_clusters"])
    levels, weights = reduce_levels(counts, settings)
    if len(levels) < k:
        bins = " (or occupied bins, see pseudo_label.bins)" if settings["labeler"] == "multi_otsu" else ""
        raise InputError(
            "pseudo_label.n_clusters",
            f"{k} clusters, but the scans hold {len(levels)} distinct grey levels{bins}",
            f"at most {len(levels)}",
            "lower n_clusters, or widen plan.range",
        )
    return LABELERS[settings["labeler"]](levels, weights, k, seed)


def transition_matrix(counts: np.ndarray, table: np.ndarray, settings: dict[str, Any]) -> np.ndarray:
    """How often a voxel of each phase bears the label of each cluster, float64 (n_clusters, n_clusters), rows sum to 1.

    Phases are the Gaussians of a mixture fitted to the histogram, with one variance (noise) for all unless the labeler
    is `gmm`; phase and cluster of one number are of one place in the order of grey. A phase without a voxel has the
    row of its own cluster. Phase shares times this matrix are the clusters' shares, exactly.

    Parameters
    ----------
    counts : ndarray, (65536,)
        Voxels per grey level.
    table : ndarray, uint8, (65536,)
        From `label_levels`.
    settings : dict
        `n_clusters` and `labeler`, as the section `pseudo_label` and `classes.json` have them.
    """
    k = int(settings["n_clusters"])
    mixture = (gaussian_mixture if settings["labeler"] == "gmm" else tied_mixture)(*rebin(counts), k)
    held = np.flatnonzero(counts[1:]) + 1
    joint = mixture.log_density(held.astype(np.float64))
    of_phase = np.exp(joint - joint.max(axis=0))
    of_phase *= counts[held] / of_phase.sum(axis=0)
    voxels = np.stack([of_phase[:, table[held] == cluster].sum(axis=1) for cluster in range(k)], axis=1)
    phase = voxels.sum(axis=1, keepdims=True)
    return np.divide(voxels, phase, out=np.eye(k), where=phase > 0)


def rows_in_words(matrix: np.ndarray) -> str:
    """A transition matrix for the log, a phase a line."""
    return "\n".join(" ".join(f"{share:7.2%}" for share in row) for row in matrix)


def cluster_means(counts: np.ndarray, table: np.ndarray, n_clusters: int) -> np.ndarray:
    """Mean grey level of the voxels of each cluster, float64 (n_clusters,); NaN where there is none."""
    mass = np.bincount(table[1:], counts[1:], minlength=256)[:n_clusters]
    sums = np.bincount(table[1:], counts[1:] * np.arange(1.0, MAX_GREY + 1), minlength=256)[:n_clusters]
    return np.divide(sums, mass, out=np.full(n_clusters, np.nan), where=mass > 0)


def local_table(counts: np.ndarray, centroids: np.ndarray, settings: dict[str, Any], seed: int) -> np.ndarray:
    """The table of a slab or a slice, its clusters numbered as the volume's of nearest mean grey.

    The least sum of squared differences, one to one: with as many clusters as the volume has, their order. Where
    there are fewer grey levels than clusters, fewer are fitted; where there is none, all is 255.

    Parameters
    ----------
    counts : ndarray, (65536,)
        Voxels per grey level of the slab or slice.
    centroids : ndarray, (n_clusters,)
        Mean grey levels of the volume's clusters; NaN for one that has no grey level, which is left out.
    settings, seed
        As for `label_levels`.
    """
    from scipy.optimize import linear_sum_assignment  # half a second, of all who read clusters

    known = np.flatnonzero(np.isfinite(centroids))
    k = min(len(known), len(reduce_levels(counts, settings)[0]))
    if k == 0:
        return np.full(MAX_GREY + 1, UNLABELLED, np.uint8)
    table = label_levels(counts, {**settings, "n_clusters": k}, seed)
    means = cluster_means(counts, table, k)
    found = np.flatnonzero(np.isfinite(means))
    own, volume = linear_sum_assignment((means[found, None] - centroids[known]) ** 2)
    numbers = np.full(256, UNLABELLED, np.uint8)
    numbers[found[own]] = known[volume]
    return numbers[table]


def elbow(counts: np.ndarray) -> dict[str, list[Any]]:
    """How well K = 2 … 8 clusters part the grey levels, at the least inertia there is (`multi_otsu`).

    Parameters
    ----------
    counts : ndarray, (65536,)
        Voxels per grey level.

    Returns
    -------
    dict of list
        k; inertia, the mean squared distance to the centroids as a share of the variance (1 for K = 1); separation,
        of the two neighbouring clusters that lie closest, the distance of their means over the root mean square of
        their standard deviations. Evenly filled grey levels have a separation of √12 for every K: below it
        a cut goes through a peak, above it there is a valley. Null where two neighbours are single levels.
    """
    levels, weights = rebin(counts)
    centre = np.average(levels, weights=weights)
    mass, first, second = (np.cumsum(weights * (levels - centre) ** power) for power in (0, 1, 2))
    result: dict[str, list[Any]] = {"k": [], "inertia": [], "separation": []}
    for k, split in enumerate(multi_otsu(levels, weights, min(CURVE[-1], len(levels))), start=1):
        if k not in CURVE:
            continue
        ends = [*split, len(levels) - 1]
        m, s, q = (np.diff(sums[ends], prepend=0.0) for sums in (mass, first, second))
        within = np.maximum(q - s**2 / m, 0.0)
        distance, spread = np.diff(s / m), np.sqrt((within / m)[1:] / 2 + (within / m)[:-1] / 2)
        apart = distance[spread > 0] / spread[spread > 0]
        result["k"].append(k)
        result["inertia"].append(float(within.sum() / second[-1]))
        result["separation"].append(float(apart.min()) if len(apart) else None)
    return result
