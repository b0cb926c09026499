"""Small components: merged over block faces as scipy.ndimage.label sees them in the whole volume."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from beamseg.components import BLOCK, KEEP, cached_tables, replace_small, small_components


def remove(labels: np.ndarray, n_classes: int, min_voxels: int) -> np.ndarray:
    tables = small_components(lambda z0, z1: labels[max(0, z0) : z1], len(labels), n_classes, min_voxels)
    starts = range(0, len(labels), BLOCK)
    return np.concatenate([replace_small(labels[z : z + BLOCK], t) for z, t in zip(starts, tables, strict=True)])


def remove_whole(labels: np.ndarray, n_classes: int, min_voxels: int) -> np.ndarray:
    """The same by scipy on the whole volume, a component at a time."""
    result = labels.copy()
    for k in range(n_classes):
        ids, _ = ndimage.label(labels == k)
        for number, box in enumerate(ndimage.find_objects(ids), 1):
            window = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in box)
            own, around = ids[window] == number, labels[window]
            if own.sum() >= min_voxels:
                continue
            votes = np.zeros(n_classes, int)
            for axis in range(3):
                for shift in (-1, 1):
                    touched = np.roll(np.pad(own, 1), shift, axis)[1:-1, 1:-1, 1:-1] & ~own & (around != 255)
                    votes += np.bincount(around[touched], minlength=n_classes)[:n_classes]
            if votes.any():
                result[window][own] = votes.argmax()
    return result


@pytest.mark.parametrize("depth", [1, 8, 17, 40])
@pytest.mark.parametrize("min_voxels", [2, 12, 200])
def test_blocks_equal_the_whole_volume(depth: int, min_voxels: int) -> None:
    rng = np.random.default_rng(depth)
    labels = ndimage.gaussian_filter(rng.standard_normal((3, depth, 24, 20)), (0, 1, 1, 1)).argmax(0).astype(np.uint8)
    noise = rng.random(labels.shape)
    labels[noise < 0.05] = rng.integers(0, 3, (noise < 0.05).sum())
    labels[:, :3] = 255
    labels[noise > 0.98] = 255
    refined = remove(labels, 3, min_voxels)
    np.testing.assert_array_equal(refined, remove_whole(labels, 3, min_voxels))
    if depth > 8:
        assert (refined != labels).any()


@pytest.mark.parametrize(("min_voxels", "kept"), [(25, True), (26, False)])
def test_a_rod_over_four_blocks_counts_as_one(min_voxels: int, kept: bool) -> None:
    labels = np.zeros((32, 8, 8), np.uint8)
    labels[4:29, 3, 3] = 1  # 25 voxels, at most 8 in a block
    assert remove(labels, 2, min_voxels).any() == kept


def test_two_arms_that_meet_in_a_later_block_are_one() -> None:
    labels = np.zeros((24, 9, 9), np.uint8)
    labels[2:20, 2, 2] = labels[2:20, 2, 6] = 1
    labels[19, 2, 2:7] = 1
    assert (labels == 1).sum() == 39
    assert remove(labels, 2, 39).any()
    assert not remove(labels, 2, 40).any()


def test_a_component_that_touches_no_class_stays() -> None:
    labels = np.full((16, 5, 5), 255, np.uint8)
    labels[7:9, 2, 2] = 1
    np.testing.assert_array_equal(remove(labels, 2, 100), labels)


def test_tables_are_computed_once_per_identity(tmp_path: Path) -> None:
    made = [np.array([KEEP, 1], np.uint8), np.array([KEEP], np.uint8), np.array([KEEP, 0, KEEP], np.uint8)]
    calls = []

    def compute() -> list[np.ndarray]:
        calls.append(1)
        return made

    for identity, count in (("a", 1), ("a", 1), ("b", 2)):
        tables = cached_tables(tmp_path / "components.npz", identity, compute)
        assert len(calls) == count
        for table, expected in zip(tables, made, strict=True):
            np.testing.assert_array_equal(table, expected)
