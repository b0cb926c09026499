"""The simulated scan: geometry, physics, files, determinism."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from yaml import safe_load

from beamseg.errors import InputError
from beamseg.layers import defaults
from beamseg.provenance import file_digest
from beamseg.simulate import draw_slice, make_sample, measure_slice
from beamseg.simulate import simulate as simulate_scan
from beamseg.specimens.crystal import BACKGROUND, BOUNDARY, CLASSES, INTERGROWTH, MATRIX

SCHEMA = safe_load((Path(__file__).parents[1] / "workflow/schemas/phantom.yaml").read_text())


def phantom(**changes: Any) -> dict[str, Any]:
    return {**defaults(SCHEMA), "size": [16, 64, 64], "angles": 60, **changes}


QUIET = {"dose": 1e12, "rings": 0.0, "hardening": 0.0, "drift": 0.0, "blur": 0.0}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """The tiny scan of the tests with the default contrast, noise and drift."""
    folder = tmp_path_factory.mktemp("tiny")
    summary = simulate_scan(folder / "scan.h5", folder / "truth.h5", phantom(size=[32, 96, 96], angles=360))
    with h5py.File(folder / "scan.h5") as scan, h5py.File(folder / "truth.h5") as truth:
        return scan["exchange/data"][:], truth["truth"][:], summary


def test_summary_counts_the_written_voxels(tiny: tuple[np.ndarray, np.ndarray, dict[str, Any]]) -> None:
    grey, truth, summary = tiny
    assert summary["shape"] == [32, 96, 96]
    assert list(summary["classes"]) == list(CLASSES)
    for index, entry in enumerate(summary["classes"].values()):
        assert entry["voxels"] == (truth == index).sum() > 0.02 * truth.size
        assert entry["mean"] == pytest.approx(grey[truth == index].mean(dtype=float), rel=1e-9)
    means = [entry["mean"] for entry in summary["classes"].values()]
    assert means == sorted(means)


def test_outside_the_circle_is_zero_and_background(tiny: tuple[np.ndarray, np.ndarray, dict[str, Any]]) -> None:
    grey, truth, _ = tiny
    y, x = np.ogrid[:96, :96]
    outside = np.hypot(y - 48, x - 48) > 48
    assert not grey[:, outside].any()
    assert (truth[:, outside] == BACKGROUND).all()
    assert np.isfinite(grey).all()
    assert (grey[:, ~outside] != 0).mean() > 0.999


def test_sheets_are_about_as_bright_as_the_noise(tiny: tuple[np.ndarray, np.ndarray, dict[str, Any]]) -> None:
    grey, truth, _ = tiny
    # Differences of voxels two apart cancel the slow drift and leave sqrt(2) of the noise.
    both = (truth[:, 2:] == MATRIX) & (truth[:, :-2] == MATRIX)
    noise = (grey[:, 2:] - grey[:, :-2])[both].std() / np.sqrt(2)
    contrast = grey[truth == INTERGROWTH].mean() - grey[truth == MATRIX].mean()
    assert 0.8 < contrast / noise < 2.2


def test_sheets_go_on_from_slice_to_slice(tiny: tuple[np.ndarray, np.ndarray, dict[str, Any]]) -> None:
    truth = tiny[1] == INTERGROWTH
    pairs = [(truth[z] & truth[z + 1]).sum() / max(truth[z].sum(), 1) for z in range(len(truth) - 1)]
    assert min(pairs) > 0.6


def test_boundary_wraps_the_crystal() -> None:
    settings = phantom()
    truth = draw_slice(make_sample(settings), settings, 8)[1]
    middle = truth[32]
    solid = np.flatnonzero(middle == BOUNDARY)
    assert np.flatnonzero(middle != BACKGROUND)[[0, -1]].tolist() == [solid[0], solid[-1]]


def test_attenuations_are_those_of_the_settings() -> None:
    settings = phantom(drift=0.0, n_sheets=0)
    attenuation, truth = draw_slice(make_sample(settings), settings, 3)
    assert INTERGROWTH not in truth
    assert np.median(attenuation[truth == MATRIX]) == pytest.approx(1.6)
    assert attenuation[truth == BOUNDARY].max() == pytest.approx(2.5)
    assert attenuation[0, 0] == 0


@pytest.mark.parametrize("width", [16, 33, 64])
@pytest.mark.parametrize("seed", range(4))
def test_the_sample_lies_in_the_circle(width: int, seed: int) -> None:
    settings = phantom(size=[16, width, width], seed=seed, angles=8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # radon warns when the image leaves its circle
        measure_slice(draw_slice(make_sample(settings), settings, 15)[0], settings, 15)


def test_drift_has_the_deviation_asked_for() -> None:
    sheetless = phantom(n_sheets=0, size=[16, 96, 96])
    ratios = []
    for index in range(16):
        flat, truth = draw_slice(make_sample(sheetless), {**sheetless, "drift": 0.0}, index)
        drifted, _ = draw_slice(make_sample(sheetless), {**sheetless, "drift": 0.05}, index)
        ratios.append((drifted / np.maximum(flat, 1e-6))[truth == MATRIX])
    ratio = np.concatenate(ratios)
    assert ratio.mean() == pytest.approx(1, abs=0.02)
    assert ratio.std() == pytest.approx(0.05, rel=0.3)


def disc(width: int = 64, radius: int = 24) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.ogrid[:width, :width]
    distance = np.hypot(y - width // 2, x - width // 2)
    return (1.6 * (distance < radius)).astype(np.float32), distance


def test_a_clean_measurement_gives_the_attenuation_back() -> None:
    attenuation, distance = disc()
    grey = measure_slice(attenuation, phantom(angles=180, **QUIET), 0)
    assert grey.dtype == np.float32
    assert grey[distance < 20].mean() == pytest.approx(1.6, rel=0.02)
    assert grey[(distance > 27) & (distance < 31)].mean() == pytest.approx(0, abs=0.03)


def test_hardening_makes_a_cup() -> None:
    attenuation, distance = disc()
    flat = measure_slice(attenuation, phantom(angles=180, **QUIET), 0)
    cupped = measure_slice(attenuation, phantom(angles=180, **{**QUIET, "hardening": 1.0}), 0)
    loss = flat - cupped
    assert loss[distance < 6].mean() > 1.1 * loss[(distance > 16) & (distance < 21)].mean() > 0


def test_noise_falls_with_the_root_of_the_dose() -> None:
    attenuation, distance = disc()
    clean = measure_slice(attenuation, phantom(**QUIET), 0)
    low, high = (
        (measure_slice(attenuation, phantom(**{**QUIET, "dose": dose}), 0) - clean)[distance < 30].std()
        for dose in (1e4, 4e4)
    )
    assert low / high == pytest.approx(2, rel=0.1)


def test_detector_gain_makes_rings() -> None:
    attenuation, distance = disc()
    clean = measure_slice(attenuation, phantom(angles=180, **QUIET), 0)
    ringed = measure_slice(attenuation, phantom(angles=180, **{**QUIET, "rings": 0.01}), 0)
    error, ring = ringed - clean, np.round(distance).astype(int)
    inside = (ring > 4) & (ring < 30)
    along = np.bincount(ring[inside], error[inside]) / np.maximum(np.bincount(ring[inside]), 1)
    assert along[ring[inside]].std() > 0.5 * error[inside].std()


def test_equal_settings_give_equal_bytes_whatever_the_workers(tmp_path: Path) -> None:
    for name, workers in (("a", 1), ("b", 1), ("c", 2)):
        simulate_scan(tmp_path / f"{name}.h5", tmp_path / f"{name}_truth.h5", phantom(), workers)
    for kind in ("", "_truth"):
        assert len({file_digest(tmp_path / f"{name}{kind}.h5") for name in "abc"}) == 1
    simulate_scan(tmp_path / "d.h5", tmp_path / "d_truth.h5", phantom(seed=1))
    with h5py.File(tmp_path / "a_truth.h5") as one, h5py.File(tmp_path / "d_truth.h5") as other:
        assert (one["truth"][:] != other["truth"][:]).mean() > 0.05


def test_files_say_what_they_hold(tmp_path: Path) -> None:
    simulate_scan(tmp_path / "scan.h5", tmp_path / "truth.h5", phantom(voxel_size_um=0.5))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scan.h5", "truth.h5"]
    with h5py.File(tmp_path / "scan.h5") as scan:
        data = scan["exchange/data"]
        assert scan["implements"][()].decode().split(":")[0] == "exchange"
        assert (data.shape, data.dtype, data.chunks) == ((16, 64, 64), np.float32, (1, 64, 64))
        assert data.attrs["voxel_size_um"].tolist() == [0.5, 0.5, 0.5]
        assert data.attrs["units"] == "1/mm"
        resolution = scan["measurement/instrument/detection_system/objective/resolution"]
        assert (resolution[()], resolution.attrs["units"]) == (0.5, "um")
        assert "truth" not in scan
    with h5py.File(tmp_path / "truth.h5") as truth:
        assert truth["truth"].dtype == np.uint8
        assert list(truth["truth"].attrs["classes"]) == list(CLASSES)


@pytest.mark.parametrize(
    ("change", "where", "remedy"),
    [
        ({"size": [16, 64, 48]}, "phantom.size", "set size to [16, 48, 48]"),
        (
            {"attenuation": {"matrix": 1.6, "intergrowth": 1.5, "boundary": 2.5}},
            "phantom.attenuation",
            "mend the attenuations",
        ),
        ({"hardening": 9.0}, "phantom.hardening", "set hardening below 2.671, or lower the attenuations"),
    ],
)
def test_impossible_settings_are_refused(tmp_path: Path, change: dict[str, Any], where: str, remedy: str) -> None:
    with pytest.raises(InputError) as error:
        simulate_scan(tmp_path / "scan.h5", tmp_path / "truth.h5", phantom(**change))
    assert (error.value.where, error.value.remedy) == (where, remedy)
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beamseg.simulate.measure_slice", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        simulate_scan(tmp_path / "scan.h5", tmp_path / "truth.h5", phantom())
    assert not list(tmp_path.iterdir())
