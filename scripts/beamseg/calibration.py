"""Temperature and expected calibration error of confidences, against labels of a person that nobody trained on."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

ENOUGH, OF_EACH = 60, 8
"""Answers, and of these right and wrong ones, below which no temperature is fitted."""
BINS, FOLDS, RESAMPLES = 10, 5, 500
RANGE = (-2.5, 2.5)  # of log T


def scaled(confidence: np.ndarray, temperature: float, n_classes: int) -> np.ndarray:
    """Confidence of the winning class at a temperature, 0 … 1.

    The other classes' probabilities are not kept, so they are taken as equal; with two classes that is exact. At a high
    temperature the confidence goes to 1 / classes.
    """
    p = np.clip(confidence, 1e-6, 1 - 0.5 / 255)
    rest = max(1, n_classes - 1)
    return 1 / (1 + rest * np.exp(-np.log(p * rest / (1 - p)) / temperature))


def fit_temperature(confidence: np.ndarray, right: np.ndarray, weights: np.ndarray, n_classes: int) -> float:
    """The temperature of the least weighted log loss of being right (Guo et al. 2017, ICML)."""

    def loss(log_t: float) -> float:
        p = np.clip(scaled(confidence, float(np.exp(log_t)), n_classes), 1e-9, 1 - 1e-9)
        return float(-(weights * np.where(right, np.log(p), np.log1p(-p))).sum() / weights.sum())

    return float(np.exp(minimize_scalar(loss, bounds=RANGE, method="bounded").x))


def calibration_error(confidence: np.ndarray, right: np.ndarray, weights: np.ndarray) -> float:
    """Expected calibration error: |accuracy − mean confidence|, weighted, over ten bins with as many points each."""
    order = np.argsort(confidence, kind="stable")
    total = 0.0
    for part in np.array_split(order, min(BINS, len(order))):
        total += abs(float((weights[part] * (right[part] - confidence[part])).sum()))
    return total / float(weights.sum())


def calibrate(
    confidence: np.ndarray, right: np.ndarray, weights: np.ndarray, strata: np.ndarray, n_classes: int, seed: int
) -> dict[str, Any]:
    """Fit one temperature to a stratified sample, and measure the calibration error without and with it.

    Parameters
    ----------
    confidence : ndarray, float, (points,)
        Of the network's class, 0 … 1.
    right : ndarray, bool, (points,)
        Whether the person gave that class.
    weights : ndarray, float, (points,)
        Voxels that each point stands for.
    strata : ndarray, int, (points,)
        The bootstrap draws within them.
    n_classes, seed : int

    Returns
    -------
    dict
        `temperature` (None where there are too few answers, with a `reason`) and `ece` {before, after}, each `value`
        and `interval` (percentiles 2.5 and 97.5 of the bootstrap). `after` is on points that its temperature was not
        fitted on, five folds.
    """
    wrong = int((~right).sum())
    if len(right) < ENOUGH or min(wrong, len(right) - wrong) < OF_EACH:
        found = f"{len(right)} answers, {wrong} of them the network has wrong"
        return {"temperature": None, "reason": f"{found}; it takes {ENOUGH}, and {OF_EACH} right and wrong ones"}
    rng = np.random.default_rng(seed)
    fold = rng.permutation(len(right)) % FOLDS
    after = np.empty(len(right))
    for number in range(FOLDS):
        held, rest = fold == number, fold != number
        fitted = fit_temperature(confidence[rest], right[rest], weights[rest], n_classes)
        after[held] = scaled(confidence[held], fitted, n_classes)
    members = [np.flatnonzero(strata == number) for number in np.unique(strata)]
    draws: dict[str, list[float]] = {"before": [], "after": []}
    for _ in range(RESAMPLES):
        chosen = np.concatenate([rng.choice(m, len(m)) for m in members])
        for name, values in (("before", confidence), ("after", after)):
            draws[name].append(calibration_error(values[chosen], right[chosen], weights[chosen]))
    ece = {
        name: {
            "value": calibration_error(values, right, weights),
            "interval": [float(v) for v in np.percentile(draws[name], (2.5, 97.5))],
        }
        for name, values in (("before", confidence), ("after", after))
    }
    return {"temperature": fit_temperature(confidence, right, weights, n_classes), "ece": ece}
