"""Clusters of grey levels: label sources that need no labels. A labeler turns a histogram into cut points."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sklearn.cluster import KMeans

MOST_LEVELS = 4096


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


LABELERS: dict[str, Callable[[np.ndarray, np.ndarray, int, int], np.ndarray]] = {"kmeans": kmeans}
