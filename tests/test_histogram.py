"""Histogram: exact counts, bounded ranges, the same result however it is read."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from beamseg.errors import InputError
from beamseg.histogram import histogram, measure
from beamseg.ingest import ingest
from beamseg.readers import Source, open_source

FULL = {"kind": "full"}
SETTINGS = {"fov": {"kind": "full"}, "slab_depth": 0}


def source_of(path: Path, volume: np.ndarray, **options: object) -> Source:
    with h5py.File(path, "w") as file:
        file.create_dataset("v", data=volume, **options)
    return open_source(path)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
def test_integers_are_counted_exactly(tmp_path: Path, dtype: str) -> None:
    info = np.iinfo(dtype)
    volume = np.random.default_rng(0).integers(info.min, info.max + 1, (11, 20, 13)).astype(dtype)
    found = measure(source_of(tmp_path / "a.h5", volume), FULL)
    middle = (found["edges"][1:] + found["edges"][:-1]) / 2
    values, counts = np.unique(volume, return_counts=True)
    np.testing.assert_array_equal(middle[found["counts"] > 0], values)
    np.testing.assert_array_equal(found["counts"][found["counts"] > 0], counts)
    assert found["low"] == volume.min()
    np.testing.assert_allclose(found["slice_mean"], volume.mean(axis=(1, 2)), rtol=1e-9)
    np.testing.assert_allclose(found["slice_std"], volume.std(axis=(1, 2)), rtol=1e-5)
    np.testing.assert_allclose(found["mean_image"], volume.mean(axis=0))


def test_floats_nan_and_fov(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).normal(100, 5, (10, 30, 31)).astype(np.float32)
    volume[2, 15, 15] = np.nan
    volume[3, 15, 16] = np.inf
    volume[:, 0, 0] = np.nan  # outside the circle: not counted
    circle = {"kind": "circle", "cy": 15.0, "cx": 15.0, "radius": 12.0}
    y, x = np.ogrid[:30, :31]
    inside = (y - 15) ** 2 + (x - 15) ** 2 <= 144
    found = measure(source_of(tmp_path / "a.h5", volume), circle)
    valid = np.isfinite(volume) & inside
    assert found["nan"] == 2
    assert found["counts"].sum() + found["underflow"] + found["overflow"] == valid.sum()
    mean = [plane[mask].mean() for plane, mask in zip(volume, valid, strict=True)]
    np.testing.assert_allclose(found["slice_mean"], mean, rtol=1e-6)
    assert np.isnan(found["mean_image"][0, 0])
    np.testing.assert_allclose(found["mean_image"][15, 15], volume[valid[:, 15, 15], 15, 15].mean(), rtol=1e-6)
    cumulative = found["underflow"] + np.cumsum(found["counts"])
    p999 = found["edges"][1:][np.searchsorted(cumulative, 0.999 * valid.sum())]
    assert abs(p999 - np.percentile(volume[valid], 99.9)) < 0.5


def test_float_bins_are_where_their_edges_say(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).normal(-3, 1, (9, 30, 31))
    found = measure(source_of(tmp_path / "a.h5", volume), FULL)
    expected, _ = np.histogram(volume, found["edges"])
    np.testing.assert_array_equal(found["counts"], expected)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_range_that_the_sample_missed_is_widened(tmp_path: Path, sign: int) -> None:
    volume = np.random.default_rng(0).normal(0, 1, (40, 16, 16)).astype(np.float32)
    volume[1:4] += 500  # between the sampled slices
    volume *= sign
    found = measure(source_of(tmp_path / "a.h5", volume), FULL)
    assert found["edges"][0] <= volume.min()
    assert found["edges"][-1] >= volume.max()
    assert found["overflow"] == found["underflow"] == 0


def test_one_hot_pixel_does_not_cost_the_resolution_of_the_rest(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).normal(0, 1, (40, 64, 64)).astype(np.float32)
    volume[1, 3, 3] = 1e9
    found = measure(source_of(tmp_path / "b.h5", volume), FULL)
    assert found["overflow"] == 1
    assert found["edges"][-1] < 10
    assert found["high"] == np.float32(1e9)


def test_constant_float_volume(tmp_path: Path) -> None:
    found = measure(source_of(tmp_path / "a.h5", np.full((8, 4, 4), 2.5, np.float32)), FULL)
    assert found["counts"].max() == 128


def test_same_whatever_chunks_and_threads(tmp_path: Path) -> None:
    volume = np.random.default_rng(3).normal(0, 1, (37, 300, 20)).astype(np.float32)
    plain = measure(source_of(tmp_path / "a.h5", volume), FULL)
    deep = measure(source_of(tmp_path / "b.h5", volume, chunks=(16, 50, 20), compression="gzip"), FULL, threads=3)
    assert plain["mean_image"].shape == (150, 20)
    for key, value in plain.items():
        if key == "mean_image":
            np.testing.assert_allclose(deep[key], value, rtol=1e-12, atol=1e-15)
        else:
            np.testing.assert_array_equal(deep[key], value)


def test_file_is_deterministic_and_changed_input_refused(tmp_path: Path) -> None:
    source_of(tmp_path / "a.h5", np.random.default_rng(0).normal(size=(9, 8, 7)))
    scan = tmp_path / "scan.json"
    ingest(tmp_path / "a.h5", None, SETTINGS, scan, tmp_path / "source.json", name="a")
    histogram(scan, tmp_path / "h1.npz")
    histogram(scan, tmp_path / "h2.npz", threads=2)
    assert (tmp_path / "h1.npz").read_bytes() == (tmp_path / "h2.npz").read_bytes()
    source_of(tmp_path / "a.h5", np.zeros((9, 8, 7)))
    with pytest.raises(InputError, match="another size or time stamp"):
        histogram(scan, tmp_path / "h3.npz")


def test_nothing_but_nan_is_refused(tmp_path: Path) -> None:
    source_of(tmp_path / "a.h5", np.full((9, 8, 7), np.nan))
    scan = tmp_path / "scan.json"
    ingest(tmp_path / "a.h5", None, SETTINGS, scan, tmp_path / "source.json", name="a")
    with pytest.raises(InputError, match="no finite voxel"):
        histogram(scan, tmp_path / "h.npz")
