"""The continuity rule along z: hand-computed columns, cracks, speckles, the field of view."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from beamseg.continuity import continue_along_z, majority_around, short_runs, spare_sheets


def refine(labels: np.ndarray, n_classes: int = 4, support: int = 1, sheet_px: int = 32) -> np.ndarray:
    halo = ((support, support), (0, 0), (0, 0))
    return continue_along_z(np.pad(labels, halo, constant_values=255), n_classes, support, sheet_px)


def column(*classes: int) -> np.ndarray:
    """The same column of classes at every (y, x) of a slice of one pixel."""
    return np.array(classes, np.uint8)[:, None, None]


@pytest.mark.parametrize(
    ("before", "after", "support"),
    [
        ((0, 0, 1, 0, 0), (0, 0, 0, 0, 0), 1),  # a speckle goes: AND with (front OR back)
        ((1, 1, 0, 1, 1), (1, 1, 1, 1, 1), 1),  # a gap is filled: OR with (front AND back)
        ((0, 0, 1, 1, 0, 0), (0, 0, 1, 1, 0, 0), 1),  # a run of two is supported at a support of one
        ((0, 0, 0, 1, 1, 0, 0, 0), (0,) * 8, 2),
        ((0, 0, 0, 1, 1, 1, 0, 0, 0), (0, 0, 0, 1, 1, 1, 0, 0, 0), 2),
        ((0, 0, 3, 1, 1), (0, 0, 0, 1, 1), 1),  # ends that disagree: the 26 neighbours, lowest class in a tie
        ((2, 0, 0, 0), (0, 0, 0, 0), 1),  # one-sided at the end of the volume
        ((2, 2, 0, 0), (2, 2, 0, 0), 1),
        ((255, 2, 0, 0, 1, 255), (255, 0, 0, 0, 0, 255), 1),  # 255 gives no support and stays
        ((255, 1, 255), (255, 1, 255), 1),  # nothing to judge by
        ((1,), (1,), 1),
    ],
)
def test_columns(before: tuple[int, ...], after: tuple[int, ...], support: int) -> None:
    np.testing.assert_array_equal(refine(column(*before), support=support, sheet_px=0), column(*after))


def test_two_classes_give_the_median_of_three() -> None:
    labels = np.random.default_rng(0).integers(0, 2, (12, 20, 20), dtype=np.uint8)
    front, middle, back = labels[:-2].astype(bool), labels[1:-1].astype(bool), labels[2:].astype(bool)
    poster = (middle & (front | back)) | (front & back)
    np.testing.assert_array_equal(refine(labels, 2, sheet_px=0)[1:-1], poster)


def test_ends_that_disagree_are_settled_by_the_neighbours() -> None:
    labels = np.zeros((3, 3, 3), np.uint8)
    labels[:, 1, 1] = (1, 2, 3)
    labels[1, 0] = 3
    labels[:, 2] = 3
    labels[0, 0, 0] = 255
    neighbours = np.delete(labels.ravel(), 13)
    assert np.bincount(neighbours, minlength=256)[[0, 3]].tolist() == [11, 13]
    assert refine(labels, sheet_px=0)[1, 1, 1] == 3


@pytest.mark.parametrize("thickness", [1, 2])
@pytest.mark.parametrize("support", [1, 2])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_crack_in_the_xy_plane_survives_and_speckles_go(thickness: int, support: int, noise: float) -> None:
    rng = np.random.default_rng(1)
    truth = np.zeros((20, 64, 64), np.uint8)
    truth[:, 40:] = 1
    truth[9 : 9 + thickness, 8:30, 10:50] = 2
    labels = np.where(rng.random(truth.shape) < noise, rng.integers(0, 3, truth.shape, dtype=np.uint8), truth)
    refined = refine(labels, 3, support)
    crack = truth == 2
    assert (refined[crack] == 2).mean() > (labels[crack] == 2).mean() - 0.02
    if noise:
        stray = (refined == 2) & ~crack
        assert stray.sum() < 0.25 * ((labels == 2) & ~crack).sum()
    else:
        np.testing.assert_array_equal(refined, truth)
    poster = refine(labels, 3, support, sheet_px=0)
    if thickness <= support:  # why the default spares sheets
        assert (poster[crack] == 2).mean() < 0.2


def test_a_patch_is_a_sheet_from_sheet_px_on_and_a_diagonal_line_is_one_patch() -> None:
    labels = np.zeros((3, 50, 50), np.uint8)
    diagonal = np.arange(40)
    labels[1, diagonal, diagonal] = 1
    np.testing.assert_array_equal(refine(labels, sheet_px=40), labels)
    assert not refine(labels, sheet_px=41).any()


def test_patches_of_two_classes_do_not_add_up() -> None:
    short = np.ones((1, 2, 10), bool)
    labels = np.repeat([[0], [1]], 10, axis=1)[None].astype(np.uint8)
    assert spare_sheets(short, labels, 11).all()
    assert not spare_sheets(short, labels, 10).any()


def test_short_runs_names_the_ends() -> None:
    short, below, above = short_runs(column(255, 255, 3, 1, 1, 2, 2, 2, 255, 255), 2)
    assert short.ravel().tolist() == [True, True, True, False, False, False]
    assert (below[1, 0, 0], above[1, 0, 0]) == (3, 2)


def test_majority_around_counts_26_neighbours() -> None:
    labels = np.full((3, 3, 3), 255, np.uint8)
    where = np.zeros((1, 3, 3), bool)
    where[0, 1, 1] = True
    labels[1, 1, 1] = 1
    assert majority_around(labels, where, 3).tolist() == [1]  # no voter
    labels[0, 0, :2] = 2
    labels[2, 2, 2] = 0
    assert majority_around(labels, where, 3).tolist() == [2]


SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 6), st.integers(1, 6))
LABELS = arrays(np.uint8, SHAPES, elements=st.integers(0, 3))


@settings(max_examples=60, deadline=None)
@given(LABELS, st.integers(0, 3), st.integers(0, 5), st.data())
def test_any_block_with_a_halo_of_the_support_equals_the_whole(
    labels: np.ndarray, support: int, sheet_px: int, data: st.DataObject
) -> None:
    labels[labels == 3] = 255
    padded = np.pad(labels, ((support, support), (0, 0), (0, 0)), constant_values=255)
    whole = continue_along_z(padded, 3, support, sheet_px)
    z0 = data.draw(st.integers(0, len(labels) - 1))
    z1 = data.draw(st.integers(z0 + 1, len(labels)))
    block = continue_along_z(padded[z0 : z1 + 2 * support], 3, support, sheet_px)
    np.testing.assert_array_equal(block, whole[z0:z1])
    np.testing.assert_array_equal(whole == 255, labels == 255)


def test_a_run_that_holds_a_labelled_voxel_is_no_noise() -> None:
    labels = column(0, 0, 0, 1, 1, 0, 0, 0)
    known = np.zeros(labels.shape, bool)
    assert (continue_along_z(labels, 2, 2, 0, known) == 0).all()
    known[3] = True
    np.testing.assert_array_equal(continue_along_z(labels, 2, 2, 0, known), labels[2:-2])
