"""Labels and truth: what is unlabelled stays unlabelled, and what does not fit is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from beamseg.errors import InputError
from beamseg.labels import open_training_labels, open_truth
from beamseg.volumes import ArrayVolume, TableVolume

SHAPE = (10, 6, 5)
SETTINGS = {"path": None, "dataset": None, "unlabelled": None, "slices": None}
GREY = ArrayVolume(np.full(SHAPE, 9, np.uint16))
CLASSES = np.random.default_rng(0).integers(0, 4, SHAPE).astype(np.uint8)


def write(path: Path, volume: np.ndarray) -> Path:
    tifffile.imwrite(path, volume, photometric="minisblack")
    return path


def test_clusters_are_the_pseudo_labels() -> None:
    pseudo_labels = TableVolume(GREY, np.arange(65536).astype(np.uint8))
    labels = open_training_labels("clusters", SETTINGS, GREY, pseudo_labels)
    assert (labels.read(0, 10) == 9).all()
    with pytest.raises(InputError, match="no pseudo-labels"):
        open_training_labels("clusters", SETTINGS, GREY)
    with pytest.raises(InputError, match="no label file"):
        open_training_labels("slices", SETTINGS, GREY)


def test_whole_truth(tmp_path: Path) -> None:
    truth = open_truth(write(tmp_path / "t.tif", CLASSES), None, SHAPE)
    np.testing.assert_array_equal(truth.read(-2, 20), CLASSES)
    np.testing.assert_array_equal(truth.read(2, 5, slice(1, 4), slice(3, None)), CLASSES[2:5, 1:4, 3:])
    assert truth.values == [0, 1, 2, 3]


def test_some_slices(tmp_path: Path) -> None:
    path = write(tmp_path / "t.tif", CLASSES[[7, 2]])
    labels = open_training_labels("slices", {**SETTINGS, "slices": [7, 2]}, GREY, path=path)
    expected = np.full(SHAPE, 255, np.uint8)
    expected[[2, 7]] = CLASSES[[2, 7]]
    np.testing.assert_array_equal(labels.read(0, 10), expected)
    np.testing.assert_array_equal(labels.read(6, 9, slice(2, 3)), expected[6:9, 2:3])
    assert labels.slices == [2, 7]


@pytest.mark.parametrize("slices", [[7], [7, 7], [7, 10], [-1, 3]])
def test_slices_that_do_not_fit(tmp_path: Path, slices: list[int]) -> None:
    path = write(tmp_path / "t.tif", CLASSES[[7, 2]])
    with pytest.raises(InputError, match="2 different numbers from 0 to 9"):
        open_truth(path, None, SHAPE, slices)


def test_shape_mismatch(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"labels of shape \(3, 6, 5\)"):
        open_truth(write(tmp_path / "t.tif", CLASSES[:3]), None, SHAPE)
    with pytest.raises(InputError, match=r"labels of shape \(10, 5, 6\)"):
        open_truth(write(tmp_path / "t.tif", CLASSES.transpose(0, 2, 1)), None, SHAPE)


def test_unlabelled_value(tmp_path: Path) -> None:
    path = write(tmp_path / "t.tif", CLASSES)
    labels = open_truth(path, None, SHAPE, unlabelled=0)
    np.testing.assert_array_equal(labels.read(0, 10), np.where(CLASSES == 0, 255, CLASSES))
    assert labels.values == [1, 2, 3]
    marked = np.where(CLASSES == 0, 255, CLASSES).astype(np.uint8)
    np.testing.assert_array_equal(open_truth(write(path, marked), None, SHAPE).read(0, 10), marked)
    with pytest.raises(InputError, match="the value 255 besides 1"):
        open_truth(path, None, SHAPE, unlabelled=1)


def test_binary_mask(tmp_path: Path) -> None:
    mask = (CLASSES > 1).astype(np.uint8)
    path = write(tmp_path / "t.tif", mask * 255)
    labels = open_truth(path, None, SHAPE)
    np.testing.assert_array_equal(labels.read(0, 10), mask)
    assert labels.warnings == ["a mask of 0 and 255 alone: 255 is read as class 1"]
    sparse = open_truth(path, None, SHAPE, unlabelled=255)
    np.testing.assert_array_equal(sparse.read(0, 10), mask * 255)


def test_values_that_are_no_classes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="values 300"):
        open_truth(write(tmp_path / "t.tif", CLASSES.astype(np.uint16) * 100), None, SHAPE)
    with pytest.raises(InputError, match="values -1"):
        open_truth(write(tmp_path / "t.tif", CLASSES.astype(np.int16) - 1), None, SHAPE)
    labels = open_truth(tmp_path / "t.tif", None, SHAPE, unlabelled=-1)
    np.testing.assert_array_equal(labels.read(0, 1), (CLASSES[:1].astype(int) - 1) % 256)


def test_outside_the_field_of_view_is_never_trained_on(tmp_path: Path) -> None:
    grey = GREY.array.copy()
    grey[:, :2] = 0
    path = write(tmp_path / "t.tif", CLASSES)
    labels = open_training_labels("slices", SETTINGS, ArrayVolume(grey), path=path).read(0, 10)
    assert (labels[:, :2] == 255).all()
    np.testing.assert_array_equal(labels[:, 2:], CLASSES[:, 2:])
