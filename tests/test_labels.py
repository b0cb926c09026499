"""Labels and truth: what is unlabelled stays unlabelled, and what does not fit is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile

from beamseg.errors import InputError
from beamseg.labels import open_slices, open_truth, open_user_labels
from beamseg.training_labels import check_painted, described, open_training_labels
from beamseg.volumes import ArrayVolume, TableVolume
from formats import write_mrc, write_ome_zarr, write_png_stack, write_stack

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
    nothing = open_training_labels("slices", SETTINGS, GREY)
    assert (nothing.read(0, 10) == 255).all()


def test_whole_truth(tmp_path: Path) -> None:
    truth = open_truth(write(tmp_path / "t.tif", CLASSES), None, SHAPE)
    np.testing.assert_array_equal(truth.read(-2, 20), CLASSES)
    np.testing.assert_array_equal(truth.read(2, 5, slice(1, 4), slice(3, None)), CLASSES[2:5, 1:4, 3:])
    assert truth.values == [0, 1, 2, 3]


def test_some_slices(tmp_path: Path) -> None:
    path = write(tmp_path / "t.tif", CLASSES[[7, 2]])
    labels = open_training_labels("slices", {**SETTINGS, "slices": [7, 2], "path": path}, GREY)
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


def test_a_mask_of_spread_values_says_what_255_is(tmp_path: Path) -> None:
    mask = np.array([0, 128, 255, 255], np.uint8)[CLASSES]
    labels = open_truth(write(tmp_path / "t.tif", mask), None, SHAPE)
    assert labels.warnings == [
        "255 beside 0, 128 is read as no label; a class is to be renumbered (`evaluate.truth_map`)"
    ]
    renumbered = open_slices(tmp_path / "t.tif", None, SHAPE, renumber={128: 1, 255: 2})
    np.testing.assert_array_equal(renumbered.read(0, 10), np.minimum(CLASSES, 2))


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
    labels = open_training_labels("slices", {**SETTINGS, "path": path}, ArrayVolume(grey)).read(0, 10)
    assert (labels[:, :2] == 255).all()
    np.testing.assert_array_equal(labels[:, 2:], CLASSES[:, 2:])


def h5(path: Path, volume: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        file["labels"] = volume
    return path


def test_every_format_of_labels(tmp_path: Path) -> None:
    files = [
        h5(tmp_path / "a.h5", CLASSES.astype(np.float32)),
        write_ome_zarr(tmp_path / "a.zarr", [CLASSES]),
        write_png_stack(tmp_path / "png", CLASSES),
        write_mrc(tmp_path / "a.mrc", CLASSES[:, ::-1].astype(np.int16)),
        write_stack(tmp_path / "stack", CLASSES),
    ]
    for file in files:
        labels = open_slices(file, None, SHAPE)
        np.testing.assert_array_equal(labels.read(0, 10), CLASSES)
        assert labels.counts == dict(enumerate(np.bincount(CLASSES.ravel()).tolist()))


def test_a_block_in_the_scan(tmp_path: Path) -> None:
    path = write(tmp_path / "t.tif", CLASSES[:3, :2, :4])
    labels = open_user_labels({**SETTINGS, "offset": [5, 3, 1]}, path, SHAPE)
    expected = np.full(SHAPE, 255, np.uint8)
    expected[5:8, 3:5, 1:5] = CLASSES[:3, :2, :4]
    np.testing.assert_array_equal(labels.read(0, 10), expected)
    for y, x in (((0, 4), (2, 5)), ((4, 6), (0, 2)), ((0, 3), (0, 5)), ((5, 6), (4, 5))):
        window = (slice(*y), slice(*x))
        np.testing.assert_array_equal(labels.read(6, 9, *window), expected[(slice(6, 9), *window)])
    with pytest.raises(InputError, match=r"labels of shape \(3, 2, 4\) at \[8, 3, 1\]"):
        open_user_labels({**SETTINGS, "offset": [8, 3, 1]}, path, SHAPE)
    with pytest.raises(InputError, match="offset"):
        open_user_labels(SETTINGS, path, SHAPE)


def test_labelled_slices_may_be_numbered_with_gaps(tmp_path: Path) -> None:
    stack = tmp_path / "painted"
    stack.mkdir()
    for z in (1, 2, 7):
        tifffile.imwrite(stack / f"z_{z:03d}.tif", CLASSES[z])
    labels = open_user_labels({**SETTINGS, "slices": [1, 2, 7]}, stack, SHAPE)
    np.testing.assert_array_equal(labels.read(7, 8), CLASSES[7:8])
    with pytest.raises(InputError, match="4 numbers missing"):
        open_user_labels(SETTINGS, stack, SHAPE)


def test_an_unlabelled_value_that_contradicts_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "t.tif", CLASSES)
    with pytest.raises(InputError, match=r"no voxel of the value 9.*the file holds 0, 1, 2, 3"):
        open_user_labels({**SETTINGS, "unlabelled": 9}, path, SHAPE)
    some = open_user_labels({**SETTINGS, "unlabelled": 9, "slices": [4]}, write(path, CLASSES[4:5]), SHAPE)
    assert some.warnings[-1].startswith("no voxel has the value 9")


def trained_on(path: Path, n_classes: int, **settings: Any) -> Any:
    return open_training_labels("slices", {**SETTINGS, **settings, "path": path}, GREY, n_classes=n_classes)


def test_classes_beyond_the_network_are_refused_with_a_map_that_mends_it(tmp_path: Path) -> None:
    volume = CLASSES * 10  # 0, 10, 20, 30, where 0 is what was not painted
    path = write(tmp_path / "t.tif", volume)
    with pytest.raises(InputError) as error:
        trained_on(path, 3, unlabelled=0)
    assert error.value.found == "values 10, 20, 30"
    assert "labels.map: {10: 0, 20: 1, 30: 2}" in error.value.remedy
    labels = trained_on(path, 3, unlabelled=0, map={"10": 0, 20: 1, 30: 2})
    np.testing.assert_array_equal(labels.read(0, 10), np.where(CLASSES == 0, 255, CLASSES - 1))
    assert labels.warnings[-1] == "renumbered: 10 is class 0, 20 is class 1, 30 is class 2"


def test_the_log_shows_colours_and_painted_voxels(tmp_path: Path) -> None:
    colours = np.array([[0, 0, 0], [255, 0, 0], [0, 0, 255]], np.uint8)
    classes = np.zeros(SHAPE, np.uint8)
    classes[0, :2, :5], classes[1, 0, :4] = 1, 2
    stack = write_png_stack(tmp_path / "masks", colours[classes])
    labels = trained_on(stack, 2, unlabelled=0, map={1: 0, 2: 1})  # black, blue, red
    assert described(labels) == [
        "p_000.png: a mask of colours: #000000 is no label, #0000ff is class 0, #ff0000 is class 1",
        "p_000.png: renumbered: 1 is class 0, 2 is class 1",
        "p_000.png: painted voxels: class 0: 4, class 1: 10; 14 of 300 (4.67 %)",
    ]
    assert labels.mapping == {0: "#0000ff", 1: "#ff0000"}
    np.testing.assert_array_equal(labels.read(0, 10), np.array([255, 1, 0], np.uint8)[classes])
    assert described(GREY) == []


PAINTED = {**SETTINGS, "map": {}, "rate": 1.0, "pool": 0}


def painted(path: Path, n_classes: int | None = 3, seed: int = 0, **settings: Any) -> Any:
    shape = settings.pop("shape", SHAPE)
    how = {"painted": True, "seed": seed}
    return open_user_labels({**PAINTED, **settings}, path, shape, n_classes=n_classes, **how)


def test_of_painted_pixels_0_is_nothing_and_1_the_first_class(tmp_path: Path) -> None:
    volume = np.zeros(SHAPE, np.int32)
    volume[2, 1:3, 1:3], volume[4, 0, 0] = 1, 3
    labels = painted(write(tmp_path / "t.tif", volume))
    expected = np.full(SHAPE, 255, np.uint8)
    expected[2, 1:3, 1:3], expected[4, 0, 0] = 0, 2
    np.testing.assert_array_equal(labels.read(0, 10), expected)
    assert labels.counts == {0: 4, 2: 1}
    assert labels.warnings == ["0 is not painted, 1 is class 0, 2 is class 1 and so on"]
    assert check_painted([labels], 3) == ["labels: class 1 is painted nowhere, so the network will never find it"]
    mapped = painted(tmp_path / "t.tif", map={3: 0, 1: 2})
    np.testing.assert_array_equal(mapped.read(0, 10)[expected != 255], 2 - expected[expected != 255])
    whole = painted(tmp_path / "t.tif", 4, map={0: 0})
    np.testing.assert_array_equal(whole.read(0, 10), volume)


def test_painted_pixels_that_cannot_be_meant(tmp_path: Path) -> None:
    volume = np.ones(SHAPE, np.uint16)
    volume[3] = 2
    labels = painted(write(tmp_path / "all.tif", volume))
    assert labels.warnings[0] == "every voxel is painted, 1 is class 0, 2 is class 1 and so on; is that so?"
    volume[3] = 4
    with pytest.raises(InputError, match=r"(?s)values 4.*1 … 3, one for each class, and 0 where nothing is painted"):
        painted(write(tmp_path / "many.tif", volume))
    volume[3] = 256  # less one it would be the mark of what has no label
    with pytest.raises(InputError, match="values 256"):
        painted(write(tmp_path / "wide.tif", volume), None)
    volume[:] = 0
    with pytest.raises(InputError, match="nothing painted"):
        check_painted([painted(write(tmp_path / "none.tif", volume))], 3)
    volume[5, 2, 2:4] = 2
    with pytest.raises(InputError, match="class 1 alone painted"):
        check_painted([painted(write(tmp_path / "one.tif", volume))], 3)
    with pytest.raises(InputError, match="labels of shape"):
        painted(write(tmp_path / "shape.tif", volume[:, :5]))


def test_a_scan_of_the_group_without_painted_pixels() -> None:
    labels = open_training_labels("pixels", PAINTED, GREY)
    assert (labels.read(3, 20, slice(1, 4)) == np.full((7, 3, 5), 255)).all()


def test_hidden_patches_leave_each_class_and_the_share(tmp_path: Path) -> None:
    shape = (12, 40, 60)
    volume = np.ones(shape, np.uint8)
    volume[:, 8:30, 10:50], volume[:, 17, 23] = 2, 3
    path = write(tmp_path / "t.tif", volume)
    for rate, wanted in ((0.01, 3), (0.06, 6), (0.25, 25), (1.0, 100)):
        labels = painted(path, shape=shape, pool=10, rate=rate)
        seen = labels.read(0, 12) != 255
        assert [int(z) for z in np.flatnonzero(seen.any((1, 2)))] == labels.slices
        assert len(labels.slices) == 1
        patches = seen[labels.slices[0]].reshape(10, 4, 10, 6)
        assert (patches.all((1, 3)) == patches.any((1, 3))).all()
        assert patches.any((1, 3)).sum() in ((2, 3) if rate == 0.01 else (wanted,))
        assert set(labels.counts) == {0, 1, 2}
        assert sum(labels.counts.values()) == seen.sum()
        window = labels.read(0, 12, slice(3, 33), slice(11, 59))
        np.testing.assert_array_equal(window, labels.read(0, 12)[:, 3:33, 11:59])
    folds = [painted(path, shape=shape, pool=10, seed=seed).slices for seed in range(10)]
    assert folds[:5] == folds[5:]
    # Ten of twelve slices, each 1.2 apart, begin at 0.6; a fold is two of them, of which the first is seen.
    assert folds[:5] == [[0], [3], [5], [7], [10]]
    same, other = (painted(path, shape=shape, pool=10, rate=0.1, seed=seed).read(0, 12) for seed in (5, 10))
    np.testing.assert_array_equal(same, painted(path, shape=shape, pool=10, rate=0.1, seed=5).read(0, 12))
    assert (same != other).any()
    grey = np.full(shape, 9, np.uint16)
    grey[:, :, :30] = 0
    inside = open_user_labels(
        {**PAINTED, "pool": 10, "rate": 0.1}, path, shape, ArrayVolume(grey), painted=True, seed=5
    ).read(0, 12)
    np.testing.assert_array_equal(inside, np.where(grey > 0, same, 255))
    with pytest.raises(InputError, match=r"labels\.pool"):
        painted(path, shape=shape, pool=13)


def test_every_nth_slice_of_a_full_file(tmp_path: Path) -> None:
    path = write(tmp_path / "l.tif", CLASSES)
    labels = open_user_labels({**SETTINGS, "every": 5}, path, SHAPE)
    assert labels.slices == [2, 7]
    block = labels.read(0, 10)
    np.testing.assert_array_equal(block[[2, 7]], CLASSES[[2, 7]])
    assert (np.delete(block, [2, 7], axis=0) == 255).all()
    assert labels.counts == {k: int((CLASSES[[2, 7]] == k).sum()) for k in range(4)}
    assert open_user_labels({**SETTINGS, "every": 50}, path, SHAPE).slices == [9]


def test_what_is_labelled_must_be_of_two_classes(tmp_path: Path) -> None:
    def opened(volume: np.ndarray) -> Any:
        return open_user_labels({**SETTINGS, "unlabelled": 255}, write(tmp_path / "l.tif", volume), SHAPE, GREY)

    nothing = np.full(SHAPE, 255, np.uint8)
    with pytest.raises(InputError, match="nothing painted"):
        check_painted([opened(nothing)], 3)
    one = nothing.copy()
    one[4] = 1
    with pytest.raises(InputError, match="class 1 alone painted"):
        check_painted([opened(one)], 3)
    two = one.copy()
    two[5] = 0
    assert check_painted([opened(two)], 2) == []
    two[5, 0, 0] = 2
    outside = GREY.array.copy()
    outside[5] = 0
    hidden = open_user_labels(SETTINGS, write(tmp_path / "l.tif", two), SHAPE, ArrayVolume(outside))
    with pytest.raises(InputError, match="class 1 alone painted inside the field of view"):
        check_painted([hidden], 3)
    two[5, 0, 0] = 0
    assert check_painted([opened(two)], 3) == ["labels: class 2 is painted nowhere, so the network will never find it"]


def test_slices_that_nobody_painted_are_not_taken_for_background_in_silence(tmp_path: Path) -> None:
    volume = np.zeros(SHAPE, np.uint8)
    volume[3:5] = CLASSES[3:5]
    path = write(tmp_path / "l.tif", volume)
    said = "8 of 10 slices hold the value 0 alone, which is class 0 there; if 0 marks what is not painted, set "
    assert open_user_labels(SETTINGS, path, SHAPE).warnings == [said + "`labels.unlabelled: 0`"]
    some = write(tmp_path / "some.tif", volume[:4])
    (warning,) = open_user_labels({**SETTINGS, "slices": [1, 3, 5, 7]}, some, SHAPE).warnings
    assert warning.startswith("3 of 4 slices hold the value 0 alone")
    named = {**SETTINGS, "unlabelled": 0}
    assert open_user_labels(named, path, SHAPE).warnings == []
    assert open_truth(path, None, SHAPE).warnings == []


def test_strokes_whose_rest_becomes_class_0_are_not_taken_in_silence(tmp_path: Path) -> None:
    strokes = np.zeros((4, 10, 10), np.uint8)
    strokes[:, 2, 2:4], strokes[:, 5, 5] = 1, 2
    some = {**SETTINGS, "slices": [1, 3, 5, 7]}
    path, shape = write(tmp_path / "strokes.tif", strokes), (10, 10, 10)
    (warning,) = open_user_labels(some, path, shape).warnings
    assert warning.startswith("0 is class 0 on 97.0% of the labelled voxels; if 0 marks what is not painted, set `lab")
    assert open_user_labels({**some, "unlabelled": 0}, path, shape).warnings == []
    assert open_user_labels({**some, "map": {0: 0}}, path, shape).warnings == []  # the user has said what 0 is
    strokes[:, 0], strokes[:, 9] = 1, 2
    assert open_user_labels(some, write(tmp_path / "more.tif", strokes), shape).warnings == []


def test_objects_with_numbers_of_their_own_are_one_class(tmp_path: Path) -> None:
    objects = CLASSES.astype(np.uint32) * 70000
    objects[0, 0, :2] = 255, 1
    path = write(tmp_path / "objects.tif", objects)
    expected = np.where(objects > 0, 1, 0)
    labels = open_user_labels({**SETTINGS, "map": {"0": 0, "rest": 1}}, path, SHAPE)
    np.testing.assert_array_equal(labels.read(0, 10), expected)
    np.testing.assert_array_equal(open_truth(path, None, SHAPE, renumber={0: 0, "rest": 1}).read(0, 10), expected)
    # Some numbers by name beside the rest, and one left out.
    truth = open_truth(path, None, SHAPE, renumber={"0": 2, "70000": None, "rest": 1})
    np.testing.assert_array_equal(truth.read(0, 10), np.where(objects == 0, 2, np.where(objects == 70000, 255, 1)))
    with pytest.raises(InputError, match="values 70000") as caught:
        open_truth(path, None, SHAPE)
    assert "evaluate.truth_map" in caught.value.remedy
    assert "{0: 0, rest: 1}" in caught.value.remedy


def test_the_truth_has_values_up_to_252(tmp_path: Path) -> None:
    values = CLASSES.copy()
    values[0, 0, 0] = 253
    with pytest.raises(InputError, match="values 253"):
        open_truth(write(tmp_path / "t.tif", values), None, SHAPE)


def test_painted_objects_leave_0_unpainted(tmp_path: Path) -> None:
    values = CLASSES.astype(np.uint16)
    values[values == 2] = 900
    labels = open_user_labels(
        {**PAINTED, "map": {1: 0, "rest": 1}}, write(tmp_path / "p.tif", values), SHAPE, n_classes=2, painted=True
    )
    np.testing.assert_array_equal(labels.read(0, 10), np.array([255, 0, 1, 1])[np.minimum(CLASSES, 3)])


def test_a_map_of_painted_values_leaves_the_others_as_they_are_painted(tmp_path: Path) -> None:
    values = np.array([0, 1, 2, 255], np.uint8)[CLASSES]
    labels = painted(write(tmp_path / "p.tif", values), map={"255": 2})
    np.testing.assert_array_equal(labels.read(0, 10), np.array([255, 0, 1, 2])[CLASSES])
    assert "0 is not painted, 1 is class 0, 2 is class 1 and so on, but for what `labels.map` names" in labels.warnings


@pytest.mark.parametrize("count", [3, 4])
@pytest.mark.parametrize("how", [{}, {"compression": "zlib"}], ids=["plain", "zlib"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_three_or_four_slices_that_were_saved_as_colours(tmp_path: Path, count: int, how: dict[str, Any]) -> None:
    """tifffile, and so napari, writes them as planes of one picture unless told otherwise."""
    path = tmp_path / "few.tif"
    tifffile.imwrite(path, CLASSES[:count].astype(np.int32), **how)
    slices = [2, 5, 6, 9][:count]
    labels = open_user_labels({**SETTINGS, "slices": slices}, path, SHAPE)
    np.testing.assert_array_equal(labels.read(0, 10)[slices], CLASSES[:count])
    np.testing.assert_array_equal(labels.read(5, 7, slice(1, 4), slice(2, 5)), CLASSES[1:3, 1:4, 2:5])
