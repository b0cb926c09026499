"""Estimates from a stratified random sample: ratios over all voxels, their standard errors and intervals.

Accuracy, user's and producer's accuracy, IoU and the fraction of a class are all ratios of two totals, estimated from
the sample by the strata's weights. The strata need not be the classes of the map (Stehman 2014, International Journal
of Remote Sensing 35:4923); where they are, the formulas are those of Olofsson et al. 2014, Remote Sensing of
Environment 148:42, equations 5 to 11.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Z95 = 1.959964


def ratio(strata: np.ndarray, sizes: np.ndarray, y: np.ndarray, x: np.ndarray) -> dict[str, Any] | None:
    """Estimate total(y) / total(x), a ratio between 0 and 1.

    Parameters
    ----------
    strata : ndarray, int, (points,)
        Stratum of each point.
    sizes : ndarray, int, (strata,)
        Voxels of each stratum.
    y, x : ndarray, bool, (points,)
        Whether a point counts above and below the line; y implies x.

    Returns
    -------
    dict or None
        `value`, `standard_error`, `interval` [low, high] at 95 %, and `points`, those that count below the line. None
        if there are none.

    Notes
    -----
    The standard error is that of the ratio estimator (Stehman 2014, equation 27), with the correction for a finite
    population. The interval is Wilson's (1927) for as many points of a simple random sample as give the same variance,
    so that it stays within 0 … 1. For the interval alone each stratum that has points below the line gets half a point
    more on either side of it: a stratum without an error in a few points is not free of errors.
    """
    y, x = y.astype(bool), x.astype(bool)
    if not x.any():
        return None
    n = np.bincount(strata, minlength=len(sizes))
    taken = n > 0
    weight = np.divide(sizes, n, out=np.zeros(len(sizes)), where=taken)
    above, below = (np.bincount(strata[of], minlength=len(sizes)) for of in (y, x))
    total = float((weight * below).sum())
    value = float((weight * above).sum()) / total
    variance = _variance(sizes, n, above, below, value) / total**2
    wide = np.where(below > 0, 0.5, 0.0)
    grown = (n + 2 * wide, above + wide, below + 2 * wide)
    # The grown counts move the estimate too; their own centre keeps the residuals' mean at zero.
    scale = np.divide(sizes, grown[0], out=np.zeros(len(sizes)), where=taken)
    centre = float((scale * grown[1]).sum() / (scale * grown[2]).sum())
    smooth = _variance(sizes, *grown, centre) / float((scale * grown[2]).sum()) ** 2
    return {
        "value": value,
        "standard_error": math.sqrt(variance),
        "interval": wilson(value, centre * (1 - centre) / smooth) if smooth > 0 else [value, value],
        "points": int(x.sum()),
    }


def _variance(sizes: np.ndarray, n: np.ndarray, above: np.ndarray, below: np.ndarray, value: float) -> float:
    """Variance of the total of the residuals y − value · x, from counts per stratum."""
    sums = above - value * below
    squares = above * (1 - value) ** 2 + (below - above) * value**2
    found = 0.0
    for size, count, first, second in zip(sizes, n, sums, squares, strict=True):
        if count > 0 and size > count:
            spread = max(0.0, second - first**2 / count) / max(1.0, count - 1)
            found += size**2 * (1 - count / size) * spread / count
    return found


def wilson(value: float, n: float) -> list[float]:
    """Wilson's interval at 95 % of a proportion seen in n points (n need not be whole)."""
    centre = (value + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(value * (1 - value) / n + Z95**2 / (4 * n**2))
    return [max(0.0, min(value, centre - half)), min(1.0, max(value, centre + half))]


def estimates(
    strata: np.ndarray, sizes: np.ndarray, mapped: np.ndarray, reference: np.ndarray, names: list[str]
) -> dict[str, Any]:
    """Accuracy of a map and fractions of the classes, error-adjusted.

    Parameters
    ----------
    strata, sizes
        As for `ratio`.
    mapped, reference : ndarray, int, (points,)
        Class id by the map and by the person; an id beyond the names agrees with nothing.
    names : list of str

    Returns
    -------
    dict
        `accuracy`, and per class `fraction`, `users_accuracy` (1 − commission), `producers_accuracy` (1 − omission)
        and `iou`, each as `ratio` gives it.
    """
    everywhere = np.ones(len(mapped), bool)
    result: dict[str, Any] = {"accuracy": ratio(strata, sizes, mapped == reference, everywhere), "classes": {}}
    for index, name in enumerate(names):
        called, true = mapped == index, reference == index
        result["classes"][name] = {
            "fraction": ratio(strata, sizes, true, everywhere),
            "users_accuracy": ratio(strata, sizes, called & true, called),
            "producers_accuracy": ratio(strata, sizes, called & true, true),
            "iou": ratio(strata, sizes, called & true, called | true),
        }
    return result
