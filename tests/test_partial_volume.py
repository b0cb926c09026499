"""Partial volume: which labels are of voxels that two phases share, and which are of a thin phase."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from beamseg.inputs import training_labels
from beamseg.partial_volume import UnsharedVolume, is_shared
from beamseg.volumes import ArrayVolume


def test_a_border_is_shared_and_a_crack_is_not() -> None:
    labels = np.full((12, 24), 2, np.uint8)
    labels[:, :8] = 0
    labels[:, 8] = 1  # half filled, between 0 and 2
    labels[:, 16] = 1  # a crack within 2
    shared = is_shared(labels, 2)
    assert np.flatnonzero(shared.all(0)).tolist() == [8]
    assert shared.sum() == 12


@pytest.mark.parametrize(("half", "shared"), [(1, False), (2, True)])
def test_a_layer_thinner_than_the_surroundings_is_taken_for_a_border(half: int, shared: bool) -> None:
    labels = np.array([[0, 0, 0, 1, 1, 1, 2, 2, 2]] * 9, np.uint8)
    assert is_shared(labels, half)[4, 4] == shared


def test_a_tenth_of_the_surroundings_counts_on_either_side() -> None:
    labels = np.full((5, 5), 1, np.uint8)
    labels[0, :2], labels[4, :3] = 0, 2  # 2 and 3 of 25
    assert not is_shared(labels, 2)[2, 2]
    labels[0, :3] = 0
    assert is_shared(labels, 2)[2, 2]


def test_the_field_of_views_border_is_none() -> None:
    labels = np.array([[255, 255, 1, 2, 2]] * 5, np.uint8)
    assert not is_shared(labels, 2).any()
    labels[:, :2] = 0
    assert is_shared(labels, 2)[:, 2].all()


@pytest.mark.parametrize("half", [1, 2, 4])
def test_windows_join_to_the_whole(half: int) -> None:
    labels = np.random.default_rng(0).choice(
        np.array([0, 1, 2, 3, 255], np.uint8), (3, 31, 27), p=[0.3, 0.2, 0.1, 0.2, 0.2]
    )
    volume = UnsharedVolume(ArrayVolume(labels), half)
    whole = volume.read(0, 3)
    assert 0 < (whole != labels).sum() < labels.size
    assert (whole[whole != labels] == 255).all()
    parts = [
        np.concatenate([volume.read(z, z + 1, slice(y, y + 10), slice(x, x + 9)) for x in range(0, 27, 9)], axis=2)
        for z in range(3)
        for y in range(0, 31, 10)
    ]
    found = np.concatenate([np.concatenate(parts[4 * z : 4 * z + 4], axis=1) for z in range(3)])
    np.testing.assert_array_equal(found, whole)


@pytest.mark.parametrize(("half", "left_out"), [(0, 0), (2, 12)])
def test_stage_2_trains_without_them_if_asked(tmp_path: Path, half: int, left_out: int) -> None:
    grey = np.full((1, 12, 24), 30, np.uint16)
    grey[..., :8], grey[..., 8], grey[..., 16] = 10, 20, 20  # a border, and a crack
    table = np.full(65536, 255, np.uint8)
    table[[10, 20, 30]] = 0, 1, 2
    np.save(tmp_path / "table.npy", table)
    files = SimpleNamespace(table=str(tmp_path / "table.npy"), assigned=[])
    train = {"partial_volume_px": half, "prior": 0}
    settings = {"label_source": "clusters", "labels": {}, "train": train, "seed": 0}
    (labels,) = training_labels(files, settings, [{"path": ""}], [ArrayVolume(grey)], 3)
    found = labels.read(0, 1)[0]
    assert (found == 255).sum() == left_out
    assert (found[:, 16] == 1).all()
