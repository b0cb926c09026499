"""Mixtures of Gaussians on a histogram of grey levels, by expectation and maximization."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


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
