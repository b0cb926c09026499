"""Rendered views: the right side up, not mirrored, in the right size."""

from __future__ import annotations

import numpy as np
import pytest

from beamseg.render import MOST, reduced, rotation, surface
from beamseg.volumes import ArrayVolume


def corner(shape: tuple[int, int, int], z: slice, y: slice, x: slice) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[z, y, x] = True
    return mask


def middle_of(shade: np.ndarray) -> tuple[float, float]:
    rows, columns = np.nonzero(np.isfinite(shade))
    return float(rows.mean()) / len(shade), float(columns.mean()) / len(shade)


def test_seen_along_y_high_z_is_on_top_and_high_x_on_the_right() -> None:
    high_z = corner((30, 30, 30), slice(20, 30), slice(10, 20), slice(10, 20))
    high_x = corner((30, 30, 30), slice(10, 20), slice(10, 20), slice(20, 30))
    row, column = middle_of(surface(high_z, (1, 1, 1), 0, 0)[0])
    assert (row < 0.4, column) == (True, pytest.approx(0.5, abs=0.02))
    row, column = middle_of(surface(high_x, (1, 1, 1), 0, 0)[0])
    assert (row, column > 0.6) == (pytest.approx(0.5, abs=0.02), True)


def test_what_is_nearer_hides_what_is_behind_and_is_brighter() -> None:
    near = corner((20, 40, 20), slice(5, 15), slice(2, 8), slice(5, 15))
    far = corner((20, 40, 20), slice(5, 15), slice(32, 38), slice(5, 15))
    both = surface(near | far, (1, 1, 1), 0, 0)[0]
    alone = surface(near, (1, 1, 1), 0, 0)[0]
    assert np.array_equal(np.isfinite(both), np.isfinite(alone))
    np.testing.assert_array_equal(both[np.isfinite(both)], alone[np.isfinite(alone)])
    beside = surface(near | np.roll(far, 12, axis=0), (1, 1, 1), 0, 0)[0]
    assert np.isfinite(beside).sum() > np.isfinite(both).sum()


def test_from_above_one_sees_the_top() -> None:
    slab = corner((20, 20, 20), slice(9, 11), slice(0, 20), slice(0, 20))
    edge, top = (np.isfinite(surface(slab, (1, 1, 1), 0, angle)[0]).sum() for angle in (0, 60))
    assert top > 5 * edge


def test_rotations_mirror_nothing() -> None:
    for azimuth, elevation in ((0, 0), (35, 25), (200, -40)):
        view = rotation(azimuth, elevation)
        np.testing.assert_allclose(view @ view.T, np.eye(3), atol=1e-12)
        assert np.linalg.det(view) == pytest.approx(np.linalg.det(rotation(0, 0)))


def test_pixels_have_the_size_that_is_told_and_pictures_are_bounded() -> None:
    cube = np.ones((10, 20, 20), bool)
    shade, pixel = surface(cube, (2.0, 1.0, 1.0), 0, 0)
    rows, columns = (np.ptp(index) + 1 for index in np.nonzero(np.isfinite(shade)))
    assert rows * pixel == pytest.approx(20, abs=2)
    assert columns * pixel == pytest.approx(20, abs=2)
    shade, pixel = surface(np.ones((4, 60, 60), bool), (0.1, 10.0, 10.0))
    assert len(shade) <= MOST + 1
    assert np.isnan(surface(np.zeros((4, 4, 4), bool), (1, 1, 1))[0]).all()


def test_reduced_volumes_are_read_slice_by_slice() -> None:
    class Slices(ArrayVolume):
        def read(self, z0: int, z1: int, y: slice = slice(None), x: slice = slice(None)) -> np.ndarray:
            assert z1 == z0 + 1
            return super().read(z0, z1, y, x)

    values = np.random.default_rng(0).integers(0, 4, (50, 33, 20)).astype(np.uint8)
    found, steps = reduced(Slices(values), 20)
    assert steps == (3, 2, 1)
    np.testing.assert_array_equal(found, values[::3, ::2])
