"""Plan: percentiles by hand, groups that fit and groups that do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from beamseg.errors import InputError
from beamseg.histogram import measure
from beamseg.plan import percentiles, plan
from beamseg.readers import open_source
from beamseg.shading import QUANTILES, beyond, cupping, drift, rings, runs_of

SETTINGS = {"percentiles": [0.1, 99.9], "range": None, "warn_drift": 0.1, "warn_cupping": 0.1, "warn_rings": 0.05}
FULL = {"kind": "full"}


def planned(folder: Path, settings: dict[str, Any] | None = None, **volumes: np.ndarray) -> dict[str, Any]:
    scans, histograms = [], []
    for name, volume in volumes.items():
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["v"] = volume
        np.savez(folder / f"{name}.npz", **measure(open_source(folder / f"{name}.h5"), FULL))
        scan = {"name": name, "shape": list(volume.shape), "dtype": volume.dtype.name, "fov": FULL}
        (folder / f"{name}.json").write_text(json.dumps(scan))
        scans.append(folder / f"{name}.json")
        histograms.append(folder / f"{name}.npz")
    return plan(scans, histograms, folder / "plan.json", {**SETTINGS, **(settings or {})})


def test_percentiles_by_hand() -> None:
    values, counts = np.array([1.0, 2.0, 5.0]), np.array([10, 80, 10])
    np.testing.assert_array_equal(percentiles(values, counts, (0, 10, 10.1, 90, 90.1, 100)), [1, 1, 2, 2, 5, 5])


def test_range_of_a_group_is_that_of_all_its_voxels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(100, 10, (10, 50, 40)).astype(np.float32)
    b = rng.normal(110, 12, (8, 50, 40)).astype(np.float32)
    result = planned(tmp_path, a=a, b=b)
    pooled = np.concatenate([a.ravel(), b.ravel()])
    np.testing.assert_allclose(result["range"], np.percentile(pooled, (0.1, 99.9), method="inverted_cdf"), atol=0.01)
    assert abs(result["clipped"]["low"] - 0.001) < 2e-4
    assert abs(result["clipped"]["high"] - 0.001) < 2e-4
    assert set(result["scans"]) == {"a", "b"}
    assert result["scans"]["a"]["content"] != result["scans"]["b"]["content"]
    assert json.loads((tmp_path / "plan.json").read_text()) == result


def test_given_range_and_saturation(tmp_path: Path) -> None:
    volume = np.full((10, 20, 20), 50, np.uint8)
    volume[:, :10] = 60
    volume[0, 0, 0] = 250
    result = planned(tmp_path, a=volume)
    assert result["range"] == [50, 60]
    assert result["clipped"] == {"low": 0.0, "high": 1 / 4000}
    assert "0.03% of the voxels are brighter than the grey range (up to 250" in result["warnings"][0]
    result = planned(tmp_path, {"range": [0, 255]}, a=volume)
    assert result["range"] == [0, 255]
    assert result["warnings"] == []


def test_groups_that_do_not_fit(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    one = rng.integers(0, 100, (8, 20, 20)).astype(np.uint8)
    with pytest.raises(InputError, match="a is uint8, b is uint16"):
        planned(tmp_path, a=one, b=one.astype(np.uint16))
    with pytest.raises(InputError, match="b from 150 to 249"):
        planned(tmp_path, a=one, b=one + 150)
    assert "overlap by 29% only" in planned(tmp_path, a=one, b=one + 70)["warnings"][0]
    with pytest.raises(InputError, match="a grey range from 7 to 7"):
        planned(tmp_path, a=np.full((8, 20, 20), 7, np.uint8))


def test_drift_and_cupping_are_measured(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    z, y, x = np.ogrid[:40, :64, :64]
    noise = rng.normal(0, 1, (40, 64, 64))
    drifting = (noise + 0.1 * z).astype(np.float32)
    result = planned(tmp_path, a=drifting)
    width = np.diff(result["range"])[0]
    assert abs(result["scans"]["a"]["drift"]["slope"] * width - 3.9) < 0.2
    assert any("wanders along z" in w for w in result["warnings"])
    r2 = ((y - 31.5) ** 2 + (x - 31.5) ** 2) / 32**2
    result = planned(tmp_path, a=(noise + 2 * r2).astype(np.float32))
    width = np.diff(result["range"])[0]
    assert abs(result["scans"]["a"]["cupping"]["amplitude"] * width - 2) < 0.2
    assert any("middle of the slices is darker" in w for w in result["warnings"])


def test_shape_of_the_sample_is_not_taken_for_cupping() -> None:
    y, x = np.ogrid[:64, :64]
    rod = np.where((y - 31.5) ** 2 + (x - 31.5) ** 2 < 400, 1.0, 0.0)
    assert cupping(rod, FULL, (10, 64, 64), 1.0)["amplitude"] == pytest.approx(0)
    assert drift(np.full(30, 5.0), 1.0)["amplitude"] == 0


def test_slices_without_voxels_do_not_break_the_profile() -> None:
    means = np.array([1.0, np.nan, 1.0, 2.0])
    assert drift(means, 1.0)["amplitude"] == 1.0


def test_shares_beyond_the_range_by_hand() -> None:
    ramp = np.tile(QUANTILES, (3, 1))  # a slice of values spread evenly from 0 to 1
    ramp[1] = 0.5
    ramp[2] = np.nan
    low, high = beyond(ramp, (0.03, 0.5))
    np.testing.assert_allclose(low, [0.03, 0, 0])
    np.testing.assert_allclose(high, [0.5, 0, 0])
    np.testing.assert_array_equal(beyond(ramp, (0.6, 2.0))[0][1:], [1, 0])


def test_runs_by_hand() -> None:
    assert runs_of(np.array([1, 1, 0, 1, 0])) == [[0, 1], [3, 3]]
    assert runs_of(np.zeros(3, bool)) == []


def test_rings_by_hand() -> None:
    profile = np.zeros(200)
    profile[[50, 60]] = 4, -6
    found = rings(profile, 10)
    assert found["amplitude"] == pytest.approx(np.percentile(np.abs(profile), 99) / 10)
    assert min(found["profile"]) == -0.6
    assert len(found["profile"]) == 64


def test_defects_are_in_the_plan(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).normal(50, 2, (20, 30, 30)).astype(np.float32)
    volume[4] = 50
    volume[7:9] = np.nan
    volume[12, 0, 0] = np.inf
    volume[15] += 30
    result = planned(tmp_path, {"range": [40, 60]}, a=volume)
    found = result["scans"]["a"]["defects"]
    assert found["not_finite"] == 2 * 900 + 1
    assert found["slices_not_finite"] == [[7, 8], [12, 12]]
    assert found["empty_slices"] == [[7, 8]]
    assert found["constant_slices"] == [[4, 4]]
    assert found["clipped_slice"] == {"low": 0.0, "high": 1.0, "z_low": 0, "z_high": 15}
    assert any("slices of one value only: 4;" in warning for warning in result["warnings"])


def test_strong_rings_warn(tmp_path: Path) -> None:
    y, x = np.ogrid[:64, :64]
    volume = np.random.default_rng(0).normal(0, 1, (10, 64, 64)).astype(np.float32)
    volume += 3 * (np.rint(np.hypot(y - 31.5, x - 31.5)) % 10 == 0)
    assert any("rings of" in warning for warning in planned(tmp_path, a=volume)["warnings"])


def test_bits_follow_the_type(tmp_path: Path) -> None:
    assert planned(tmp_path, a=np.arange(2000, dtype=np.uint16).reshape(5, 20, 20))["bits"] == 16
    assert plan([tmp_path / "a.json"], [tmp_path / "a.npz"], tmp_path / "p.json", SETTINGS, "uint8")["bits"] == 8
