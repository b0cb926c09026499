"""Forecasts: the arithmetic by hand, and a check that refuses what cannot run."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from beamseg import check, forecast
from beamseg.footprint import footprint
from beamseg.forecast import scan_rates, stage_seconds, training_seconds, uncontended
from beamseg.readers import open_source

BASEDIR = Path(__file__).resolve().parents[1]
SETTINGS: dict[str, Any] = {
    "train": {"objective": "classification", "crop": 96, "steps": 0, "epochs": 2, "best_of": 0, "batch": 4},
    "self_correct": {"steps": 7, "epochs": 0, "batch": 4, "anchor": 0.7},
    "segment": {"overlap": 0.5},
    "stage3": "unbiased_teacher",
    "refine": ["mpp", "scm"],
    "normalize": {"dtype": "uint16"},
    "slab_depth": 8,
    "export": {"formats": ["tiff"]},
    "pseudo_label": {"n_clusters": 4},
    "model": {"n_slices": 7},
    "mem_budget_mb": 1,
}
RATES = {"histogram": 1e-3, "normalize": 2e-3, "tile": 3.0, "mpp": 1e-4, "scm": 1e-5, "step": 5.0}


def test_seconds_by_hand() -> None:
    found = stage_seconds((10, 96, 144), RATES, SETTINGS, cores=2)
    voxels = 10 * 96 * 144
    assert found == pytest.approx(
        {
            "histogram": voxels * 1e-3 / 2,
            "normalize": voxels * 2e-3 / 2,
            "segment": 2 * 10 * 2 * 3.0,  # networks, slices, tiles of a slice, seconds
            "refine_mpp": voxels * 1e-4,
            "refine_scm": voxels * 1e-5,
        }
    )
    alone = stage_seconds((10, 96, 144), RATES, {**SETTINGS, "stage3": "none", "refine": []}, cores=64)
    assert alone == pytest.approx(
        {"histogram": voxels * 1e-3 / 4, "normalize": voxels * 2e-3 / 4, "segment": 10 * 2 * 3.0}
    )


def test_training_by_hand() -> None:
    found = training_seconds(30, RATES, SETTINGS)
    assert found["train"] == (15, 75.0)  # 2 epochs of 30 slices in batches of 4
    assert found["self_correct"] == (7, pytest.approx(7 * 5.0 * 1.6))
    alone = {**SETTINGS, "self_correct": {**SETTINGS["self_correct"], "anchor": 0.0}}
    assert training_seconds(30, RATES, alone)["self_correct"] == (7, pytest.approx(7 * 5.0 * 1.3))
    assert set(training_seconds(30, RATES, {**SETTINGS, "stage3": "none"})) == {"train"}


def test_footprint_by_hand() -> None:
    found = footprint((24, 100, 100), 4, True, SETTINGS)
    voxels = 24 * 100 * 100
    assert found["scratch"] == 1.5 * voxels
    assert found["results"] == pytest.approx(2 * 0.45 * voxels + 2 * 0.1 * voxels + 0.1 * voxels)
    assert found["files"] == 24 + 3 * (4 + 1) + 45  # slices, slabs of four stages and the cache, the rest
    uncached = footprint((24, 100, 100), 4, False, SETTINGS)
    assert uncached["scratch"] == 0
    assert uncached["files"] == found["files"] - 3
    other = footprint((24, 100, 100), 4, True, SETTINGS | {"export": {"formats": ["mrc"]}})
    assert other["results"] == pytest.approx(found["results"] + 1.9 * voxels)  # two bytes each, in one file
    assert other["files"] == found["files"] - 24
    large = footprint((24, 4000, 4000), 4, True, SETTINGS)["memory_mb"]
    assert large == footprint((2400, 4000, 4000), 4, True, SETTINGS)["memory_mb"]


def test_waits_for_a_processor_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.accumulate([0.0, 10.0, 1.0, 4.0])  # two calls, of 10 s and of 4 s
    waits = iter([{"1": 0.0}, {"1": 7.0, "2": 2.0}, {"1": 7.0}, {"1": 7.5}])
    monkeypatch.setattr(forecast.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(forecast.time, "process_time", lambda: 0.0)
    monkeypatch.setattr(forecast, "_waits", lambda: next(waits))
    assert uncontended(lambda: None, 2) == pytest.approx(3.0)


def test_rates_are_of_the_scan_with_its_corrections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["v"] = np.random.default_rng(0).normal(size=(30, 40, 50)).astype(np.float32)
    monkeypatch.setattr(forecast, "uncontended", lambda call, repeat=3: (call(), 16000.0)[1])
    settings = {"shading": "none", "shading_by": "subtract", "background_sigma": 5, "rings": "none", "ring_width": 5}
    settings |= {"denoise": "gaussian", "denoise_strength": 1.0, "z_continuous": True}
    for chosen in (None, settings):
        found = scan_rates(open_source(tmp_path / "a.h5"), {"kind": "full"}, chosen, "uint8")
        assert found == {"histogram": 1.0, "normalize": 1.0}  # of 8 slices


def test_check_forecasts_valid_samples_and_names_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text("train: {steps: 10}\n")
    (tmp_path / "config" / "samples.tsv").write_text("sample\tpath\na\t../a.h5\nb\t../b.h5\n")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["v"] = np.random.default_rng(0).integers(0, 99, (30, 40, 50)).astype(np.uint8)
    monkeypatch.setattr(check, "network_rates", lambda settings: RATES)
    assert check.check(tmp_path, BASEDIR) == 1
    printed = capsys.readouterr().out
    assert "30×40×50" in printed
    assert "train 10 steps, 50 s" in printed
    assert "b: " in printed
    assert "1 of 2 samples are valid" in printed


def test_check_names_the_parts_that_a_large_scan_wants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config" / "samples").mkdir(parents=True)
    (tmp_path / "config" / "config.yaml").write_text("train: {steps: 10}\n")
    (tmp_path / "config" / "samples.tsv").write_text("sample\tpath\na\t../a.npy\nb\t../a.npy\n")
    (tmp_path / "config" / "samples" / "b.yaml").write_text("parts: 2\n")
    np.save(tmp_path / "a.npy", np.random.default_rng(0).integers(0, 99, (30, 40, 50)).astype(np.uint8))
    monkeypatch.setattr(check, "network_rates", lambda settings: RATES)
    monkeypatch.setattr(check, "PART_GVOXELS", 25_000 / 1e9)
    assert check.check(tmp_path, BASEDIR) == 0
    printed = capsys.readouterr().out
    assert "a: warning: 6e-05 Gvoxels in one part" in printed
    assert "set `parts: 3` in config/samples/a.yaml" in printed
    assert "b: warning: 6e-05" not in printed
