"""Stratified estimates: by hand, and how often the intervals hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest

from beamseg.stratified import Z95, estimates, ratio, wilson


def test_strata_that_are_the_map_classes_by_hand() -> None:
    # 900 and 100 voxels are called a and b; 9 of 10 and 6 of 8 points are right.
    strata = np.repeat([0, 1], [10, 8])
    reference = np.array([0] * 9 + [1] + [1] * 6 + [0] * 2)
    found = estimates(strata, np.array([900, 100]), strata, reference, ["a", "b"])
    accuracy = found["accuracy"]
    assert accuracy["value"] == pytest.approx(0.9 * 0.9 + 0.1 * 0.75)
    # Olofsson et al. 2014, equation 5, with the correction for finite strata.
    variance = 0.9**2 * 0.9 * 0.1 / 9 * (1 - 10 / 900) + 0.1**2 * 0.75 * 0.25 / 7 * (1 - 8 / 100)
    assert accuracy["standard_error"] == pytest.approx(math.sqrt(variance))
    assert accuracy["points"] == 18
    a, b = found["classes"]["a"], found["classes"]["b"]
    assert a["users_accuracy"]["value"] == pytest.approx(0.9)
    assert b["fraction"]["value"] == pytest.approx(0.9 * 0.1 + 0.1 * 0.75)  # equation 9
    assert b["fraction"]["standard_error"] == pytest.approx(math.sqrt(variance))  # equation 10: the same products here
    assert b["producers_accuracy"]["value"] == pytest.approx(0.075 / 0.165)
    assert b["iou"]["value"] == pytest.approx(0.075 / (0.165 + 0.1 - 0.075))
    # Equation 7 for b, but for the correction: 0.165 is the fraction of b, 0.4545 the accuracy.
    p = 0.075 / 0.165
    bracket = 0.1**2 * (1 - p) ** 2 * 0.75 * 0.25 / 7 * (1 - 8 / 100) + p**2 * 0.9**2 * 0.1 * 0.9 / 9 * (1 - 10 / 900)
    assert b["producers_accuracy"]["standard_error"] == pytest.approx(math.sqrt(bracket) / 0.165)


def test_strata_that_part_a_class_weigh_by_their_voxels() -> None:
    strata = np.array([0, 0, 1, 1])
    right = np.array([True, True, True, False])
    found = ratio(strata, np.array([300, 100]), right, np.ones(4, bool))
    assert found["value"] == pytest.approx(0.75 + 0.25 / 2)


def test_a_census_has_no_error_and_nothing_below_the_line_no_estimate() -> None:
    strata, y = np.zeros(4, int), np.array([1, 1, 0, 1], bool)
    found = ratio(strata, np.array([4]), y, np.ones(4, bool))
    assert (found["value"], found["standard_error"]) == (0.75, 0.0)
    assert ratio(strata, np.array([4]), y, np.zeros(4, bool)) is None


def test_wilson_by_hand() -> None:
    # 8 of 10: centre (0.8 + z²/20) / (1 + z²/10), half z / (1 + z²/10) · sqrt(0.016 + z²/400).
    low, high = wilson(0.8, 10)
    assert (low, high) == pytest.approx((0.4901, 0.9433), abs=1e-4)
    assert wilson(1.0, 20) == pytest.approx([1 / (1 + Z95**2 / 20), 1.0])


def test_no_error_in_the_sample_is_not_a_certainty() -> None:
    strata = np.repeat([0, 1], 20)
    found = ratio(strata, np.array([9000, 1000]), np.ones(40, bool), np.ones(40, bool))
    assert found["value"] == found["interval"][1] == 1.0
    assert found["standard_error"] == 0.0
    assert 0.85 < found["interval"][0] < 0.98


@pytest.mark.parametrize("errors", [(0.4, 0.2, 0.05), (0.1, 0.02, 0.001)])
def test_intervals_hold_the_truth_as_often_as_they_say(errors: tuple[float, float, float]) -> None:
    rng = np.random.default_rng(0)
    sizes = np.array([20, 60, 120, 5, 10, 35]) * 1000
    mapped = np.repeat([0, 1], 3)
    points = np.full(6, 33)
    wrong = np.tile(errors, 2)
    weight = sizes / sizes.sum()
    accuracy = float((weight * (1 - wrong)).sum())
    fraction = float((weight * np.where(mapped == 0, 1 - wrong, wrong)).sum())
    trials, hits = 300, np.zeros(2)
    strata = np.repeat(np.arange(6), points)
    for _ in range(trials):
        reference = np.where(rng.random(len(strata)) < wrong[strata], 1 - mapped[strata], mapped[strata])
        found = estimates(strata, sizes, mapped[strata], reference, ["a", "b"])
        intervals = (found["accuracy"]["interval"], found["classes"]["a"]["fraction"]["interval"])
        hits += [low <= truth <= high for truth, (low, high) in zip((accuracy, fraction), intervals, strict=True)]
    # 0.95 less three standard deviations of 300 trials.
    assert (hits / trials >= 0.95 - 3 * math.sqrt(0.95 * 0.05 / trials)).all()
