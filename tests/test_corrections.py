"""Corrections: what each takes out, by hand, and the same values however a scan is cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from beamseg.corrections import corrected, estimate, smooth
from beamseg.errors import InputError
from beamseg.histogram import measure
from beamseg.readers import Source, open_source

FULL = {"kind": "full"}
CIRCLE = {"kind": "circle", "cy": 23.0, "cx": 25.0, "radius": 22.0}
NONE = {
    "shading": "none",
    "shading_by": "subtract",
    "background_sigma": 8.0,
    "rings": "none",
    "ring_width": 9,
    "denoise": "none",
    "denoise_strength": 1.0,
    "z_continuous": True,
}
SHAPE = (26, 48, 50)
OPTIONS: list[dict[str, Any]] = [
    {"shading": "drift"},
    {"shading": "cupping", "shading_by": "divide"},
    {"shading": "background"},
    {"rings": "polar"},
    {"denoise": "median"},
    {"denoise": "gaussian", "denoise_strength": 0.7},
    {"denoise": "gaussian", "z_continuous": False},
    {"denoise": "tv"},
    {"denoise": "nlm"},
    {"shading": "background", "shading_by": "divide", "rings": "polar", "denoise": "median"},
]


def source_of(folder: Path, volume: np.ndarray) -> Source:
    with h5py.File(folder / "a.h5", "w") as file:
        file["v"] = volume
    return open_source(folder / "a.h5")


def correction_of(source: Source, fov: dict[str, Any], **settings: Any) -> dict[str, Any]:
    return {"fov": fov, "correction": estimate(source, fov, {**NONE, **settings})}


def noise(seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    return np.random.default_rng(seed).normal(100, 2, shape).astype(np.float32)


def apply(folder: Path, volume: np.ndarray, fov: dict[str, Any] = FULL, **settings: Any) -> np.ndarray:
    source = source_of(folder, volume)
    return corrected(source, correction_of(source, fov, **settings)).read(0, len(volume))


def test_without_a_correction_the_source_is_the_scan(tmp_path: Path) -> None:
    source = source_of(tmp_path, noise())
    assert corrected(source, {"fov": FULL}) is source


@pytest.mark.parametrize("by", ["subtract", "divide"])
def test_drift_is_taken_out_and_the_mean_stays(tmp_path: Path, by: str) -> None:
    place = np.linspace(0, 1, SHAPE[0])[:, None, None]
    shade = (10 * place**3 - 6 * place).astype(np.float32)
    drifting = noise() + shade if by == "subtract" else noise() * (1 + shade / 100)
    found = apply(tmp_path, drifting, shading="drift", shading_by=by)
    assert np.ptp(drifting.mean(axis=(1, 2))) > 4
    assert np.ptp(found.mean(axis=(1, 2))) < 0.25
    assert found.mean() == pytest.approx(drifting.mean(), abs=0.05)


def test_cupping_is_taken_out(tmp_path: Path) -> None:
    y, x = np.ogrid[: SHAPE[1], : SHAPE[2]]
    square = ((y - 23) ** 2 + (x - 25) ** 2) / 22**2
    inside = square <= 1
    found = apply(tmp_path, (noise() + 3 * square).astype(np.float32), CIRCLE, shading="cupping")
    assert np.isnan(found[:, ~inside]).all()
    mean = found.mean(axis=0)
    assert abs(mean[square < 0.3].mean() - mean[(square > 0.7) & inside].mean()) < 0.1


@pytest.mark.parametrize("by", ["subtract", "divide"])
def test_background_flattens_each_slice_but_not_its_details(tmp_path: Path, by: str) -> None:
    x = np.linspace(-1, 1, SHAPE[2])
    checks = (np.indices(SHAPE).sum(axis=0) % 2 * 4).astype(np.float32)
    found = apply(tmp_path, 100 + checks + 20 * x.astype(np.float32), shading="background", shading_by=by)
    middle = found[:, 8:-8, 8:-8]
    assert np.ptp(middle.mean(axis=(0, 1)).reshape(-1, 2).mean(axis=1)) < 2
    assert middle.std() == pytest.approx(2, rel=0.1)


def test_rings_go_and_what_lies_beside_them_stays(tmp_path: Path) -> None:
    y, x = np.ogrid[: SHAPE[1], : SHAPE[2]]
    radius = np.hypot(y - 23, x - 25)
    ring = np.abs(radius - 15) < 1
    volume = noise() + (6 * ring).astype(np.float32)
    volume[:, 20:26, 38:42] += 30  # a grain on the ring
    found = apply(tmp_path, volume, CIRCLE, rings="polar")
    beside = (np.abs(radius - 15) > 4) & (radius < 20) & (radius > 9)
    plain = ring & ~((y >= 18) & (y < 28) & (x >= 36))
    assert abs(found[:, plain].mean() - found[:, beside].mean()) < 1.5
    np.testing.assert_allclose(found[:, beside], volume[:, beside], atol=1.5)
    assert found[:, 20:26, 38:42].mean() > 125


def test_median_removes_a_zinger_and_looks_along_z_where_it_may(tmp_path: Path) -> None:
    volume = np.full(SHAPE, 5.0, np.float32)
    volume[10] = 9
    volume[4, 20, 20] = 1e6
    assert (apply(tmp_path, volume, denoise="median") == 5).all()
    flat = apply(tmp_path, volume, denoise="median", z_continuous=False)
    assert (flat[10] == 9).all()
    assert (flat[4] == 5).all()


@pytest.mark.parametrize("name", ["tv", "nlm"])
def test_slice_filters_lower_the_noise_and_keep_an_edge(tmp_path: Path, name: str) -> None:
    volume = noise()
    volume[:, :, 25:] += 30
    found = apply(tmp_path, volume, denoise=name)
    assert found[:, :, 3:22].std() < 0.7 * volume[:, :, 3:22].std()
    assert found[:, :, 27:].mean() - found[:, :, :23].mean() > 28


def test_smooth_is_the_mean_of_what_counts() -> None:
    values = np.random.default_rng(0).normal(size=(9, 12, 11)).astype(np.float32)
    everything = np.ones(values.shape, bool)
    np.testing.assert_array_equal(smooth(values, everything, 1.0), gaussian_filter(values, 1.0, mode="nearest"))
    constant = np.where(values > 0, np.float32(3), np.float32(np.nan))
    np.testing.assert_allclose(smooth(constant, values > 0, 1.0)[values > 0], 3, rtol=1e-6)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_any_cut_gives_the_same_values(tmp_path: Path, options: dict[str, Any]) -> None:
    volume = noise()
    volume[9, 20, 20:23] = np.nan
    source = source_of(tmp_path, volume)
    scan = corrected(source, correction_of(source, CIRCLE, **options))
    whole = scan.read(0, SHAPE[0])
    assert whole.dtype == np.float32
    valid = np.hypot(*(np.ogrid[:48, :50][i] - c for i, c in enumerate((23, 25)))) <= 22
    np.testing.assert_array_equal(np.isfinite(whole), np.isfinite(volume) & valid)
    pieces = np.concatenate([scan.read(z, z + 5) for z in range(0, SHAPE[0], 5)])
    np.testing.assert_array_equal(pieces, whole)
    np.testing.assert_array_equal(scan.read(8, 10, slice(3, 40), slice(10, 33)), whole[8:10, 3:40, 10:33])


def test_the_histogram_is_of_the_corrected_values_and_the_digest_of_those_stored(tmp_path: Path) -> None:
    volume = (noise() * 100).astype(np.uint16)
    source = source_of(tmp_path, volume)
    scan = correction_of(source, CIRCLE, shading="background", denoise="gaussian")
    values = corrected(source, scan).read(0, SHAPE[0])
    found = measure(source, CIRCLE, 2, "", scan["correction"])
    counts, _ = np.histogram(values[np.isfinite(values)], found["edges"])
    np.testing.assert_allclose(np.cumsum(found["counts"]), np.cumsum(counts), atol=20)
    np.testing.assert_allclose(found["slice_mean"], np.nanmean(values, axis=(1, 2)), rtol=1e-5)
    assert found["content"] == measure(source, CIRCLE)["content"]


def test_a_constant_outside_does_not_count(tmp_path: Path) -> None:
    volume = noise()
    volume[:, :, :10] = 0
    fov = {"kind": "constant", "value": 0.0}
    source = source_of(tmp_path, volume)
    scan = correction_of(source, fov, shading="background", denoise="median")
    values = corrected(source, scan).read(0, SHAPE[0])
    assert np.isnan(values[:, :, :10]).all()
    assert abs(values[:, :, 10:].mean() - 100) < 0.5
    found = measure(source, fov, 1, "", scan["correction"])
    assert found["nan"] == 0
    assert found["counts"].sum() + found["underflow"] + found["overflow"] == volume[:, :, 10:].size


def test_division_by_shading_below_zero_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="divide, and shading down to"):
        apply(tmp_path, noise() - 100, shading="background", shading_by="divide")
    with pytest.raises(InputError, match="divide, and shading down to"):
        apply(tmp_path, noise() - 100, shading="drift", shading_by="divide")


def test_a_scan_without_a_number_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no finite voxel in the sampled slices"):
        apply(tmp_path, np.full(SHAPE, np.nan, np.float32), shading="drift")
