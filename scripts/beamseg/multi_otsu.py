"""Multi-Otsu: the classes of grey levels of greatest variance between them, exactly, for any number of classes."""

from __future__ import annotations

import numpy as np


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
