"""Clusters of grey levels: labels that need none. A labeler turns a histogram into a table, grey level -> cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans

from .errors import InputError
from .mixture import Mixture, fit_mixture
from .slabs import UNLABELLED
from .volumes import MAX_GREY

MOST_LEVELS = 4096
CURVE = range(2, 9)
RIM_GAIN, RIM_SHARE, RIM_APART = 1e-4, 0.08, 3.0
"""Of a component that stands for rims: least gain in log-likelihood per voxel, greatest share, least distance from its
neighbours in standard deviations."""


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
    scale = float(levels[-1]) or 1.0
    # The default tolerance stops early on a flat optimum: cuts, and scores by 3 points, then depend on the seed.
    model = KMeans(n_clusters=n_clusters, n_init=10, tol=0, max_iter=3000, random_state=seed)
    model.fit(levels[:, None] / scale, sample_weight=weights)
    centroids = np.sort(model.cluster_centers_[:, 0]) * scale
    return (centroids[1:] + centroids[:-1]) / 2


def multi_otsu(levels: np.ndarray, weights: np.ndarray, most: int) -> list[np.ndarray]:
    """The classes of greatest variance between them, exactly, for every number of classes up to `most`.

    Dynamic programming over the last levels. The best end of a class does not decrease with its start, so the starts
    are halved again and again and each looks only between the ends of its neighbours: O(K n log n).

    Parameters
    ----------
    levels, weights : ndarray, (n,)
        Increasing levels and their voxels, > 0.
    most : int
        Number of classes, 1 … n.

    Returns
    -------
    list of ndarray, int
        Entry k - 1 holds the index of the last level of each of k classes but the last. Of equal optima it is the one
        whose first threshold is least, then the second, …, as in `skimage.filters.threshold_multiotsu`.

    Notes
    -----
    Liao, Chen, Chung, "A fast algorithm for multilevel thresholding" (2001), for the sums; the greatest variance
    between classes is the least variance within, which is k-means' inertia.
    """
    n = len(levels)
    # Centred on a whole level, so that the sums over whole levels are exact and the squares are small.
    centred = levels - np.rint(np.average(levels, weights=weights))
    mass = np.concatenate([[0.0], np.cumsum(weights)])
    moment = np.concatenate([[0.0], np.cumsum(weights * centred)])
    best = (moment[n] - moment[:n]) ** 2 / (mass[n] - mass[:n])  # one class from each start to the end
    ends = [np.full(n, n)]
    for k in range(2, most + 1):
        best, end = _add_class(mass, moment, best, n - k + 1)
        ends.append(end)
    splits = []
    for k in range(1, most + 1):
        start, split = 0, []
        for layer in range(k - 1, 0, -1):
            start = int(ends[layer][start])
            split.append(start - 1)
        splits.append(np.array(split, dtype=np.intp))
    return splits


def _add_class(mass: np.ndarray, moment: np.ndarray, best: np.ndarray, n_starts: int) -> tuple[np.ndarray, np.ndarray]:
    """One more class before the best of the rest: value and first best end of it, for the starts 0 … n_starts - 1."""
    value, end = np.empty(n_starts), np.empty(n_starts, dtype=np.intp)
    stride = 1 << max(0, n_starts - 1).bit_length()
    while stride:
        rows = np.arange(stride - 1, n_starts, 2 * stride)
        if len(rows):
            low = np.maximum(rows + 1, np.where(rows >= stride, end[rows - stride], 1))
            right = rows + stride
            high = np.where(right < n_starts, end[np.minimum(right, n_starts - 1)], n_starts)
            value[rows], end[rows] = _first_best(mass, moment, best, rows, low, high)
        stride //= 2
    return value, end


def _first_best(
    mass: np.ndarray, moment: np.ndarray, best: np.ndarray, rows: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Greatest value over the ends low … high of each row, and the first end that reaches it."""
    lengths = high - low + 1
    first = np.cumsum(lengths) - lengths
    end = np.arange(int(lengths.sum())) + np.repeat(low - first, lengths)
    value = moment[end]
    value -= np.repeat(moment[rows], lengths)
    value *= value
    value /= mass[end] - np.repeat(mass[rows], lengths)
    value += best[end]
    top = np.maximum.reduceat(value, first)
    reached = np.flatnonzero(value == np.repeat(top, lengths))
    return top, end[reached[np.searchsorted(reached, first)]]


def gaussian_mixture(
    levels: np.ndarray, weights: np.ndarray, n_clusters: int, tied: bool = False, starts: Sequence[np.ndarray] = ()
) -> Mixture:
    """Fit Gaussians by expectation and maximization on a histogram, see `fit_mixture`.

    From two starts, the classes of `multi_otsu` and classes of equal mass, and those that are given, the likeliest end
    is kept; nothing is drawn. Components are in the order of their means.

    Parameters
    ----------
    levels, weights : ndarray, (n,)
        Increasing levels and their voxels; n >= n_clusters.
    tied : bool
        One variance for all.
    starts : sequence of ndarray, int, (n,)
        Further classes of the levels to begin with, 0 … n_clusters - 1.
    """
    middle = (np.cumsum(weights) - weights / 2) / weights.sum()
    starts = [
        np.searchsorted(multi_otsu(levels, weights, n_clusters)[-1], np.arange(len(levels))),
        (middle * n_clusters).astype(np.intp),
        *starts,
    ]
    each = np.arange(n_clusters)[:, None]
    found = [fit_mixture(levels, weights, (start == each).astype(np.float64), tied) for start in starts]
    best = max(found, key=lambda mixture: mixture.gain[-1])
    order = np.argsort(best.means, kind="stable")
    return Mixture(best.shares[order], best.means[order], best.variances[order], best.gain)


def tied_mixture(levels: np.ndarray, weights: np.ndarray, n_clusters: int) -> Mixture:
    """Fit Gaussians of one variance, the noise, and leave out the rims of phases, voxels that two share.

    One component more than clusters is fitted too. Where that is likelier by RIM_GAIN or more, the rarest component
    between two others is taken for their rims if it is rare and stands apart, and left out; else there are no rims to
    speak of, and the plain mixture is right. Without this a component may settle on the rims, and two phases share one.

    Parameters
    ----------
    levels, weights : ndarray, (n,)
        Increasing levels and their voxels; n >= n_clusters.

    Returns
    -------
    Mixture
        Of `n_clusters` components in the order of their means; shares sum to 1.
    """
    plain = gaussian_mixture(levels, weights, n_clusters, tied=True)
    if n_clusters < 2 or len(levels) <= n_clusters:
        return plain
    starts = []
    for between in (plain.means[1:] + plain.means[:-1]) / 2:
        centres = np.sort(np.append(plain.means, between))
        starts.append(np.searchsorted((centres[1:] + centres[:-1]) / 2, levels))
    wider = gaussian_mixture(levels, weights, n_clusters + 1, tied=True, starts=starts)
    rim = 1 + int(np.argmin(wider.shares[1:-1]))
    apart = np.diff(wider.means)[rim - 1 : rim + 1].min() / np.sqrt(wider.variances[0])
    if wider.gain[-1] - plain.gain[-1] < RIM_GAIN or wider.shares[rim] > RIM_SHARE or apart < RIM_APART:
        return plain
    phases = np.delete(np.arange(n_clusters + 1), rim)
    shares = wider.shares[phases] / wider.shares[phases].sum()
    return Mixture(shares, wider.means[phases], wider.variances[phases], wider.gain)


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
        From `label_levels` with the same `settings`.
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
