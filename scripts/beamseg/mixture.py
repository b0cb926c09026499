"""Mixtures of Gaussians on a histogram of grey levels, by expectation and maximization."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .multi_otsu import multi_otsu

RIM_GAIN, RIM_SHARE, RIM_APART = 1e-4, 0.08, 3.0
"""Of a component that stands for rims: least gain in log-likelihood per voxel, greatest share, least distance from its
neighbours in standard deviations."""


@dataclass(frozen=True)
class Mixture:
    """Gaussians on the grey scale; `gain` is the log-likelihood per voxel at each step."""

    shares: np.ndarray
    means: np.ndarray
    variances: np.ndarray
    gain: np.ndarray

    def log_density(self, levels: np.ndarray) -> np.ndarray:
        """Log of share times density, (components, levels)."""
        with np.errstate(divide="ignore"):
            constant = np.log(self.shares) - 0.5 * np.log(2 * np.pi * self.variances)
        return constant[:, None] - 0.5 * (levels - self.means[:, None]) ** 2 / self.variances[:, None]


def fit_mixture(
    levels: np.ndarray,
    weights: np.ndarray,
    shares: np.ndarray,
    tied: bool = False,
    tolerance: float = 1e-9,
    max_steps: int = 5000,
) -> Mixture:
    """Fit Gaussians, each with its own variance or all with one, from each component's share of each level.

    A variance is no less than that of a bin of the histogram (width² / 12): the least that the data can tell. A step
    cannot lower the likelihood, floor included. Components come in the order of `shares`.

    Parameters
    ----------
    levels, weights : ndarray, (n,)
        Increasing levels and their voxels.
    shares : ndarray, float64, (components, n)
        To begin with; they sum to 1 over the components.
    tied : bool
        One variance for all: noise that does not depend on the phase.
    tolerance : float
        The end: a step that gains less than this in log-likelihood per voxel.
    """
    total = weights.sum()
    floor = float(np.median(np.diff(levels))) ** 2 / 12 if len(levels) > 1 else 1 / 12
    gain: list[float] = []
    means = np.zeros(len(shares))
    while True:
        mass = shares @ weights
        filled = mass > 0
        means[filled] = (shares @ (weights * levels))[filled] / mass[filled]
        spread = (shares * (levels - means[:, None]) ** 2) @ weights
        if tied:
            spread, own = np.full_like(mass, spread.sum()), np.full_like(mass, total)
        else:
            own = mass
        variances = np.maximum(np.divide(spread, own, out=np.zeros_like(mass), where=own > 0), floor)
        mixture = Mixture(mass / total, means.copy(), variances, np.array(gain))
        joint = mixture.log_density(levels)
        top = joint.max(axis=0)
        shares = np.exp(joint - top)
        sums = shares.sum(axis=0)
        shares /= sums
        gain.append(float((weights * (top + np.log(sums))).sum() / total))
        if len(gain) > max_steps or (len(gain) > 1 and gain[-1] - gain[-2] < tolerance):
            return Mixture(mixture.shares, mixture.means, variances, np.array(gain))


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
