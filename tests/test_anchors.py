"""Sweeps from labelled slices: what a neighbour supports, what both sides enclose, and how far a label reaches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from beamseg.anchors import anchored_slices, supported, sweep, sweep_from_labels

SQUARE = np.s_[4:14, 4:14]


def stack(depth: int = 6) -> np.ndarray:
    """A square of class 1 through all slices, class 0 around it."""
    labels = np.zeros((depth, 24, 24), np.uint8)
    labels[:, *SQUARE] = 1
    return labels


def labelled(truth: np.ndarray, *slices: int) -> np.ndarray:
    user = np.full_like(truth, 255)
    user[list(slices)] = truth[list(slices)]
    return user


def test_a_patch_is_supported_where_it_touches_its_eroded_class() -> None:
    before = np.zeros((5, 12), np.uint8)
    before[:, 2:7] = 1
    before[:, 11] = 255
    raw = np.zeros((5, 12), np.uint8)
    raw[:, 6:8] = 1  # touches class 1 itself, and not its columns 3 … 5 that are left after erosion by a pixel
    # Of class 0 columns 0 and 8 … 10 are left, as 255 does not erode; they touch both of its patches.
    # The patch of columns 6 and 7 touches no class 1, and what is left there is of no class: nobody speaks for it.
    np.testing.assert_array_equal(supported(before, raw, 2, 1)[2], [0, 0, 0, 0, 0, 0, 255, 255, 0, 0, 0, 0])
    raw[:, 5] = 1
    np.testing.assert_array_equal(supported(before, raw, 2, 1)[2], [0, 0, 0, 0, 0, 1, 1, 1, 0, 0, 0, 0])
    raw[0, 0] = 255
    assert supported(before, raw, 2, 1)[0, 0] == 255


def test_a_hole_is_filled_and_a_patch_alone_goes_and_an_edge_may_move() -> None:
    truth = stack()
    truth[2, 4:14, 14:16] = 1  # the edge moves for a slice
    raw = truth.copy()
    raw[2, 7:10, 7:10] = 0
    raw[3, 18:22, 18:22] = 1
    np.testing.assert_array_equal(sweep_from_labels(raw, labelled(truth, 0, 5), 2, 4, 2), truth)


def test_what_the_network_did_not_see_is_not_drawn() -> None:
    truth = stack()
    raw = truth.copy()
    raw[3] = 0
    np.testing.assert_array_equal(sweep_from_labels(raw, labelled(truth, 0, 5), 2, 4, 2), raw)


SHAPES = st.tuples(st.integers(3, 7), st.integers(1, 9), st.integers(1, 9))
STACKS = arrays(np.uint8, SHAPES, elements=st.integers(0, 1))


@settings(max_examples=150, deadline=None)
@given(STACKS, st.integers(0, 2), st.integers(1, 7))
def test_both_sweeps_are_the_rule_of_the_poster(raw: np.ndarray, erode_px: int, reach: int) -> None:
    """Of two classes AND with (front OR back), OR with (front AND back), where both sweeps come; the first and the last
    slice are labelled. Where one says nothing of a pixel the other speaks for both."""
    user = labelled(raw, 0, len(raw) - 1)
    anchored = anchored_slices(raw, user)
    order = range(len(raw))
    both = [sweep(raw, anchored, 2, reach, erode_px, way) for way in (order, reversed(order))]
    front, back = (np.where(one == 255, other, one) for one, other in (both, both[::-1]))
    meet = (both[0] != 255).any((1, 2)) & (both[1] != 255).any((1, 2))
    rule = (raw & (front | back)) | (front & back)
    expected = np.where((front != 255) & meet[:, None, None], rule, raw)
    np.testing.assert_array_equal(sweep_from_labels(raw, user, 2, reach, erode_px), expected)


def test_three_classes_inside_each_other() -> None:
    truth = stack()
    truth[:, 7:12, 7:12] = 2
    raw = truth.copy()
    raw[2, 9:11, 9:11] = 0
    np.testing.assert_array_equal(sweep_from_labels(raw, labelled(truth, 0, 5), 3, 4, 1), truth)


@pytest.mark.parametrize(("slices", "reach"), [((0,), 4), ((5,), 4), ((0, 5), 2), ((0, 5), 0)])
def test_a_slice_changes_only_where_sweeps_from_both_sides_reach_it(slices: tuple[int, ...], reach: int) -> None:
    truth = stack()
    raw = truth.copy()
    raw[2, 7:10, 7:10] = 0
    np.testing.assert_array_equal(sweep_from_labels(raw, labelled(truth, *slices), 2, reach, 2), raw)


def test_labelled_pixels_bear_their_label_and_the_outside_stays() -> None:
    raw = stack()
    raw[:, 0] = 255
    user = np.full_like(raw, 255)
    user[1, :8] = 1
    swept = sweep_from_labels(raw, user, 2, 4, 2)
    assert (swept[1, 1:8] == 1).all()
    assert (swept[:, 0] == 255).all()
    assert (swept[[0, 2, 3, 4, 5]] == raw[[0, 2, 3, 4, 5]]).all()


def test_a_slice_is_an_anchor_from_half_of_its_field_of_view_on() -> None:
    raw = np.zeros((4, 4, 4), np.uint8)
    raw[:, 3] = 255
    user = np.full_like(raw, 255)
    user[1, :2, :3] = 0  # 6 of 12
    user[2, :2, :3] = 0
    user[2, 0, 0] = 255
    user[3, 3] = 0  # outside
    assert anchored_slices(raw, user).tolist() == [False, True, False, False]


def test_what_is_not_known_does_not_erode() -> None:
    before = np.full((5, 3), 255, np.uint8)
    before[:, 1] = 1
    raw = np.zeros((5, 3), np.uint8)
    assert supported(before, raw, 2, 1).tolist() == [[255, 1, 255]] * 5
    before[:, 0] = 0
    assert supported(before, raw, 2, 1)[:, 1].tolist() == [255] * 5  # what is known to be of another class does


@pytest.mark.parametrize("silent", [0, 2])
def test_where_one_sweep_is_silent_the_other_decides(silent: int) -> None:
    user = np.ones((3, 9, 12), np.uint8)
    user[silent, :, :6] = 0
    raw = user.copy()
    # Column 6 is at the edge of that slice's classes, of which erosion leaves none there; the other slice says 1.
    raw[1] = 1
    raw[1, 4, 6] = 0
    user[1] = 255
    swept = sweep_from_labels(raw, user, 2, 4, 1)
    assert (swept[1] == 1).all()


def test_a_label_in_between_stays_against_both_sweeps() -> None:
    truth = stack()
    raw = truth.copy()
    raw[2, 7:10, 7:10] = 0
    user = labelled(truth, 0, 5)
    user[2, 8, 8] = 0
    expected = truth.copy()
    expected[2, 8, 8] = 0
    np.testing.assert_array_equal(sweep_from_labels(raw, user, 2, 4, 2), expected)
