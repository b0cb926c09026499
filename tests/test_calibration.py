"""Temperature and calibration error against cases that are known."""

from __future__ import annotations

import numpy as np
import pytest

from beamseg.calibration import ENOUGH, calibrate, calibration_error, fit_temperature, scaled


def test_scaling_is_the_softmax_of_scaled_logits() -> None:
    # Logits (2, 0, 0), so the losers are equal, at temperature 3.
    def softmax(logits: np.ndarray) -> np.ndarray:
        return np.exp(logits) / np.exp(logits).sum()

    logits = np.array([2.0, 0.0, 0.0])
    assert scaled(softmax(logits)[:1], 3.0, 3)[0] == pytest.approx(softmax(logits / 3.0)[0])
    assert scaled(np.array([0.9]), 1e9, 4)[0] == pytest.approx(0.25)


def test_error_by_hand() -> None:
    # Two bins' worth of points, three quarters of the weight on the first: |0.5 − 0.6| and |1 − 0.9|.
    confidence = np.repeat([0.6, 0.9], [10, 10])
    right = np.array([True, False] * 5 + [True] * 10)
    weights = np.repeat([3.0, 1.0], 10)
    assert calibration_error(confidence[10:], right[10:], weights[10:]) == pytest.approx(0.1)
    # Each of the ten bins of the first half holds a right and a wrong point: 0.1 there too.
    assert calibration_error(confidence, right, weights) == pytest.approx(0.75 * 0.1 + 0.25 * 0.1)


def test_a_known_temperature_is_found_and_lowers_the_error() -> None:
    rng = np.random.default_rng(0)
    true = rng.uniform(0.5, 0.99, 4000)
    right = rng.random(4000) < true
    sure = scaled(true, 0.4, 2)  # over-confident
    weights, strata = np.ones(4000), np.zeros(4000, int)
    assert fit_temperature(sure, right, weights, 2) == pytest.approx(1 / 0.4, rel=0.1)
    found = calibrate(sure[:400], right[:400], weights[:400], strata[:400], 2, 0)
    before, after = found["ece"]["before"], found["ece"]["after"]
    assert after["value"] < before["interval"][0]
    assert before["interval"][0] < before["value"] < before["interval"][1]


def test_few_answers_or_errors_calibrate_nothing() -> None:
    n = ENOUGH
    full = {"weights": np.ones(n), "strata": np.zeros(n, int), "n_classes": 2, "seed": 0}
    right = np.arange(n) > 2
    found = calibrate(np.full(n, 0.9), right, **full)
    assert found["temperature"] is None
    assert found["reason"] == "60 answers, 3 of them the network has wrong; it takes 60, and 8 right and wrong ones"
