"""Metrics against counts done by hand, and sums of pieces against the whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from beamseg import metrics

# Rows are predicted, columns truth: background 0, matrix 1, crack 2.
CONFUSION = np.array([[50, 4, 1], [6, 80, 3], [2, 0, 4]])
UNLABELLED = np.array([0, 2, 1])


def test_scores_by_hand() -> None:
    found = metrics.scores(CONFUSION, UNLABELLED, [True, False, False])
    # Truth without background: 86 of matrix, 9 of crack; 80 and 4 of them are right.
    assert found["accuracy"] == pytest.approx(84 / 95)
    # Union of matrix: 89 called so + 86 that are so - 80; the 6 voxels of background count against it.
    assert found["iou"] == pytest.approx([50 / 63, 80 / 95, 4 / 11])
    assert found["dice"] == pytest.approx([100 / 113, 160 / 175, 8 / 15])
    assert found["mean_iou"] == pytest.approx((80 / 95 + 4 / 11) / 2)
    assert found["mean_dice"] == pytest.approx((160 / 175 + 8 / 15) / 2)
    assert found["voxels"] == [58, 86, 9]


def test_an_absent_class_has_no_iou_and_no_part_in_the_means() -> None:
    confusion = np.array([[10, 0, 0], [0, 8, 0], [0, 2, 0]])
    found = metrics.scores(confusion, np.zeros(3, int), [True, False, False])
    assert found["iou"] == [1.0, 0.8, None]
    assert found["mean_iou"] == pytest.approx(0.8)
    assert found["accuracy"] == pytest.approx(0.8)


def test_nothing_but_background_has_no_means() -> None:
    found = metrics.scores(np.array([[5, 0], [1, 0]]), np.zeros(2, int), [True, False])
    assert (found["accuracy"], found["mean_iou"], found["mean_dice"]) == (None, None, None)
    assert found["iou"][0] == pytest.approx(5 / 6)


@given(arrays(np.uint8, (4, 7)), arrays(np.uint8, (4, 7)), st.integers(0, 4))
def test_counts_of_pieces_sum_to_the_counts_of_the_whole(a: np.ndarray, b: np.ndarray, cut: int) -> None:
    whole = metrics.contingency(a, b)
    assert np.array_equal(whole, metrics.contingency(a[:cut], b[:cut]) + metrics.contingency(a[cut:], b[cut:]))
    expected = np.zeros((256, 256), int)
    np.add.at(expected, (a, b), 1)
    assert np.array_equal(whole, expected)


def test_hungarian_keeps_a_rare_class_that_the_overlap_would_give_up() -> None:
    # Both labels are of the large class (750), the rare one (40) lies in label 1. By overlap label 1 would be the
    # large class (400 against 350 + 40), and nobody the rare one.
    counts = np.array([[350, 0], [400, 40]])
    assert counts[0, 1] + counts[1, 0] > counts[0, 0] + counts[1, 1]
    assert metrics.match(counts) == ([0, 1], "hungarian")


def test_hungarian_undoes_a_permutation() -> None:
    counts = np.array([[1, 90, 3], [2, 4, 70], [60, 1, 2]])
    assert metrics.match(counts)[0] == [1, 2, 0]


def test_many_to_one_merges_the_parts_of_a_class() -> None:
    counts = np.array([[300, 0], [280, 5], [0, 40], [310, 2]])
    assert metrics.match(counts) == ([0, 0, 1, 0], "many to one")


def test_many_to_one_finds_a_rare_class_under_a_majority() -> None:
    # Label 2 holds the whole rare class (45) and 55 voxels of the large: by majority nobody would stand for it.
    counts = np.array([[5000, 0], [4000, 0], [55, 45]])
    assert metrics.match(counts)[0] == [0, 0, 1]


def test_many_to_one_does_not_give_a_large_label_to_a_rare_class() -> None:
    # Label 2 holds most of the rare class (30 of 50), but is a fifth of the large one.
    counts = np.array([[4000, 10], [4000, 10], [2000, 30]])
    assert metrics.match(counts)[0] == [0, 0, 0]


def test_names_win_over_overlap() -> None:
    counts = np.array([[10, 0], [0, 10], [7, 1]])
    assert metrics.match(counts, {0: 1, 1: 0, 2: 0}) == ([1, 0, 0], "names")
    mapping, method = metrics.match(counts, {1: 1})
    assert (mapping, method) == ([0, 1, 0], "names, then many to one")


def test_agreement_by_hand() -> None:
    pairs = np.array([[6, 2, 0], [1, 3, 1], [0, 2, 5]])
    found = metrics.agreement(pairs)
    assert found["equal"] == pytest.approx(9 / 15)  # the 5 that neither labels do not count
    assert found["classes"] == pytest.approx([6 / 9, 3 / 9])


def test_agreement_over_nothing_is_none() -> None:
    assert metrics.agreement(np.zeros((3, 3), int)) == {"equal": None, "classes": [None, None]}


@given(arrays(np.int64, (4, 3), elements=st.integers(0, 1000)))
def test_the_map_is_never_worse_than_the_majority(counts: np.ndarray) -> None:
    counts[:, counts.sum(axis=0) == 0] = 1
    majority = [int(c) for c in counts.argmax(axis=1)]

    def mean(mapping: list[int]) -> float:
        confusion = metrics.apply_map(counts, mapping)
        return float(np.mean(metrics.scores(confusion, np.zeros(3, int), [False] * 3)["iou"]))

    assert mean(metrics.match(counts)[0]) >= mean(majority) - 1e-9


def test_percent_and_gain() -> None:
    assert metrics.percent(0.1234) == "12.34 %"
    assert metrics.percent(None) == "–"
    assert metrics.relative_gain(0.6, 0.5) == "+20.00 %"
    assert metrics.relative_gain(0.6, 0) == "–"
