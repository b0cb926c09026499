"""Crops: what a crop holds, what it depends on, and the same from memory and from windows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamseg.crops import Crops, keyed_rng, labelled_slices, painted_places, read_stack, read_window, reflect_indices
from beamseg.errors import InputError
from beamseg.volumes import ArrayVolume


def numbered(shape: tuple[int, int, int]) -> np.ndarray:
    """Every voxel its own grey level, none 0."""
    return (np.arange(np.prod(shape)) + 1).reshape(shape).astype(np.uint16)


def make(arrays: list[np.ndarray], budget: float = 100.0, **options: Any) -> Crops:
    settings = {"n_slices": 3, "size": 8, "batch": 4, "seed": 5, **options}
    labels = [ArrayVolume((a % 7).astype(np.uint8)) for a in arrays]
    return Crops([ArrayVolume(a) for a in arrays], labels, mem_budget_mb=budget, **settings)


@given(st.integers(-60, 60), st.integers(1, 40), st.integers(1, 20))
def test_reflection_is_numpys(start: int, length: int, size: int) -> None:
    padded = np.pad(np.arange(size), 100, mode="reflect")
    assert np.array_equal(reflect_indices(start, start + length, size), padded[100 + start : 100 + start + length])


def test_the_ends_of_z_are_repeated() -> None:
    volume = ArrayVolume(numbered((4, 2, 2)))
    planes = [read_stack(volume, z, 5)[:, 0, 0] for z in (0, 3)]
    first = volume.array[:, 0, 0]
    assert np.array_equal(planes[0], first[[0, 0, 0, 1, 2]])
    assert np.array_equal(planes[1], first[[1, 2, 3, 3, 3]])


@pytest.mark.parametrize(("y0", "x0", "size"), [(0, 0, 5), (-3, 2, 6), (2, -1, 9), (-4, -4, 20)])
def test_a_window_beyond_the_border_is_reflected(y0: int, x0: int, size: int) -> None:
    volume = ArrayVolume(numbered((3, 6, 7)))
    wanted = np.pad(volume.array, ((0, 0), (30, 30), (30, 30)), mode="reflect")
    found = read_window(volume, 1, 3, y0, x0, size)
    assert np.array_equal(found, wanted[:, 30 + y0 : 30 + y0 + size, 30 + x0 : 30 + x0 + size])


def test_labels_are_those_of_the_middle_slice() -> None:
    crops = make([numbered((6, 20, 30)), numbered((5, 9, 11))])
    grey, labels = crops.step(3)
    assert (grey.shape, labels.shape) == ((4, 3, 8, 8), (4, 8, 8))
    assert (grey.dtype, labels.dtype) == (np.uint16, np.uint8)
    assert np.array_equal(labels, grey[:, 1] % 7)


def test_a_crop_is_a_function_of_its_key_alone() -> None:
    array = numbered((6, 20, 30))
    once, again = make([array]), make([array])
    later = again.step(9)  # asked for first
    assert np.array_equal(once.step(2)[0], again.step(2)[0])
    assert np.array_equal(once.step(9)[0], later[0])
    assert not np.array_equal(once.step(9)[0], make([array], seed=6).step(9)[0])


def test_every_slice_once_per_epoch() -> None:
    crops = make([numbered((5, 8, 8)), numbered((3, 8, 8))])
    for epoch in range(3):
        places = {crops.place(step, index) for step in (2 * epoch, 2 * epoch + 1) for index in range(4)}
        assert places == {(0, z) for z in range(5)} | {(1, z) for z in range(3)}


def test_a_slice_smaller_than_the_crop_is_reflected_about_its_middle() -> None:
    array = numbered((3, 4, 8))
    grey, _ = make([array]).step(0)
    assert all(any(np.array_equal(stack[1, 2:6], plane) for plane in array) for stack in grey)


def test_centres_lie_in_the_field_of_view() -> None:
    array = numbered((4, 40, 40))
    y, x = np.ogrid[:40, :40]
    array[:, (y - 20) ** 2 + (x - 20) ** 2 > 14**2] = 0
    crops = make([array], batch=50)
    inside = (crops.step(0)[0][:, 1, 4, 4] != 0).mean()
    assert inside > 0.95


def test_read_ahead_gives_what_memory_gives() -> None:
    array = numbered((6, 20, 30))
    held, read = make([array]), make([array], budget=0.0)
    assert (held.in_memory, read.in_memory) == (True, False)
    pairs = zip(held.steps(2, 8), read.steps(2, 8), strict=True)
    assert all(np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1]) for a, b in pairs)


def test_read_ahead_passes_errors_on_and_can_be_left() -> None:
    class Broken(ArrayVolume):
        def read(self, *window: object, **more: object) -> np.ndarray:
            raise OSError("disk gone")

    crops = Crops([Broken(numbered((4, 9, 9)))], None, 3, 8, 2, 0, 0.0)
    with pytest.raises(OSError, match="disk gone"):
        next(crops.steps(0, 5))
    left = make([numbered((6, 20, 30))], budget=0.0).steps(0, 1000)
    next(left)
    left.close()


def test_streams_differ() -> None:
    assert keyed_rng(1, "crop", 2, 3).random() == keyed_rng(1, "crop", 2, 3).random()
    assert keyed_rng(1, "crop", 2, 3).random() != keyed_rng(1, "weak", 2, 3).random()


def test_labelled_slices_are_a_share_of_every_batch_and_the_others_the_rest() -> None:
    arrays = [numbered((5, 8, 8)), numbered((3, 8, 8))]
    given = [(0, 1), (1, 2)]
    alone = make(arrays, labelled=given)
    assert alone.epoch_slices == 2
    assert all({alone.place(step, index) for index in (0, 1)} == set(given) for step in range(4))
    mixed = make(arrays, labelled=given, labelled_share=0.5)
    assert mixed.epoch_slices == 8
    others = [mixed.place(step, index) for step in range(3) for index in (2, 3)]
    assert set(others) == {(0, 0), (0, 2), (0, 3), (0, 4), (1, 0), (1, 1)}
    assert all({mixed.place(step, 0), mixed.place(step, 1)} == set(given) for step in range(3))


def test_labelled_slices_are_those_with_a_label_and_labels_are_classes() -> None:
    labels = np.full((4, 3, 3), 255, np.uint8)
    labels[2, 1, 1] = 1
    assert labelled_slices([None, ArrayVolume(labels)], 2) == [(1, 2)]
    with pytest.raises(InputError, match="label 1 in slice 2"):
        labelled_slices([ArrayVolume(labels)], 1)


def test_a_share_of_the_labelled_crops_holds_a_pixel_of_a_class_drawn_first() -> None:
    """One pixel of a rare class: the first crops of a batch hold it half of the time, the last one hardly ever."""
    volume = np.full((4, 64, 64), 100, np.uint16)
    labels = np.zeros((4, 64, 64), np.uint8)
    labels[1, 40, 12] = 1
    volumes = [ArrayVolume(labels)]
    crops = Crops(
        [ArrayVolume(volume)],
        volumes,
        1,
        8,
        3,
        0,
        100.0,
        labelled=[(0, 1)],
        anchors=painted_places(volumes, 0),
        anchored=2 / 3,
    )
    held = np.array([[crops.crop(step, index)[1].any() for index in range(3)] for step in range(200)])
    around, anywhere = held[:, :2].mean(), held[:, 2].mean()
    assert 0.4 < around < 0.6
    assert anywhere < 0.1
