"""Histogram: exact counts, bounded ranges, the same result however it is read."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from beamseg.corrections import sampled_slices
from beamseg.errors import InputError
from beamseg.histogram import histogram, measure
from beamseg.ingest import ingest
from beamseg.plan import percentiles, pool
from beamseg.readers import Source, open_source
from beamseg.shading import QUANTILES

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


@pytest.mark.parametrize("zingers", [1e-5, 4e-4, 9e-4])
@pytest.mark.parametrize("where", ["everywhere", "sampled", "elsewhere"])
def test_percentiles_of_a_drifting_scan_with_zingers_and_nan(tmp_path: Path, zingers: float, where: str) -> None:
    rng = np.random.default_rng(0)
    volume = rng.normal(0, 1, (40, 64, 64)).astype(np.float32) + np.linspace(0, 6, 40, dtype=np.float32)[:, None, None]
    slices = {"everywhere": np.arange(40), "sampled": np.array([0, 6, 11, 17, 22, 28, 33, 39]), "elsewhere": np.r_[1:5]}
    number = int(zingers * volume.size)
    at = rng.choice(len(slices[where]) * 64 * 64, number, replace=False)
    z, y, x = np.unravel_index(at, (len(slices[where]), 64, 64))
    volume[slices[where][z], y, x] = 1e6
    volume[rng.integers(0, 40, 300), rng.integers(0, 64, 300), rng.integers(0, 64, 300)] = np.nan
    found = measure(source_of(tmp_path / "a.h5", volume), FULL)
    exact = np.percentile(volume[np.isfinite(volume)], (0.1, 99.9), method="inverted_cdf")
    np.testing.assert_allclose(percentiles(*pool([found]), (0.1, 99.9)), exact, atol=1e-4 * np.ptp(exact))


def test_bright_inclusions_above_the_percentile_are_resolved(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).normal(0, 1, (40, 64, 64)).astype(np.float32)
    volume[1:3, :20] += 1e4  # 1.6 %, between the sampled slices
    found = measure(source_of(tmp_path / "a.h5", volume), FULL)
    exact = np.percentile(volume, (0.1, 99.9), method="inverted_cdf")
    np.testing.assert_allclose(percentiles(*pool([found]), (0.1, 99.9)), exact, atol=1e-4 * np.ptp(exact))


def test_values_per_slice(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).integers(-20, 90, (9, 40, 41)).astype(np.int16)
    found = measure(source_of(tmp_path / "a.h5", volume), FULL)
    expected = np.quantile(volume.reshape(9, -1), QUANTILES, axis=1, method="inverted_cdf").T
    np.testing.assert_array_equal(found["slice_quantiles"], expected)
    floats = volume.astype(np.float32)
    floats[3] = np.nan
    floats[5, :2, 0] = np.nan
    found = measure(source_of(tmp_path / "b.h5", floats), FULL)
    np.testing.assert_array_equal(found["slice_nan"], [0, 0, 0, 40 * 41, 0, 2, 0, 0, 0])
    np.testing.assert_array_equal(found["slice_voxels"] + found["slice_nan"], np.full(9, 40 * 41))
    assert np.isnan(found["slice_quantiles"][3]).all()
    np.testing.assert_allclose(found["slice_quantiles"][4], expected[4], atol=0.01)


def test_rings_are_measured_about_the_middle_of_the_field_of_view(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).normal(0, 0.5, (10, 80, 90)).astype(np.float32)
    y, x = np.ogrid[:80, :90]
    volume[:, np.rint(np.hypot(y - 40, x - 42)) == 25] += 3
    circle = {"kind": "circle", "cy": 40.0, "cx": 42.0, "radius": 38.0}
    profile = measure(source_of(tmp_path / "a.h5", volume), circle)["ring_profile"]
    assert profile.argmax() == 25
    assert profile[25] == pytest.approx(3, abs=0.5)
    assert abs(np.delete(profile, [24, 25, 26])).max() < 0.3


@pytest.mark.parametrize("wider", [1e2, 1e4, 1e7])
def test_percentiles_hold_where_the_sampled_slices_are_nearly_constant(tmp_path: Path, wider: float) -> None:
    rng = np.random.default_rng(0)
    volume = rng.normal(0, wider, (100, 30, 30)).astype(np.float32)
    volume[sampled_slices(100, 8)] = rng.normal(5, 1e-3, (8, 30, 30))
    found = measure(source_of(tmp_path / "a.h5", volume), FULL)
    exact = np.percentile(volume, (0.1, 99.9), method="inverted_cdf")
    np.testing.assert_allclose(percentiles(*pool([found]), (0.1, 99.9)), exact, atol=1e-4 * np.ptp(exact))
