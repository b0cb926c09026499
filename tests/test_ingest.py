"""Ingest: the field of view is found, and only a change of the voxels changes scan.json."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from beamseg.errors import InputError
from beamseg.histogram import histogram
from beamseg.ingest import field_of_view, ingest
from beamseg.provenance import read_json
from beamseg.readers import open_source

AUTO = {"kind": "auto", "cy": None, "cx": None, "radius": None, "value": None}
SETTINGS = {"fov": AUTO, "slab_depth": 0}
NOISE = np.random.default_rng(0).normal(5, 1, (20, 64, 60)).astype(np.float32)


def write(path: Path, volume: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        file["v"] = volume
    return path


def fov_of(path: Path, volume: np.ndarray, **settings: Any) -> dict[str, Any]:
    return field_of_view(open_source(write(path, volume)), {**AUTO, **settings})


def disc(cy: float, cx: float, radius: float, shape: tuple[int, int] = (64, 60)) -> np.ndarray:
    y, x = np.ogrid[: shape[0], : shape[1]]
    return (y - cy) ** 2 + (x - cx) ** 2 <= radius**2


@pytest.mark.parametrize("outside", [0.0, np.nan, -3.5])
@pytest.mark.parametrize("circle", [(32.0, 30.0, 29.5), (30.5, 31.0, 35.0), (32.0, 30.0, 20.0)])
def test_circle_is_found(tmp_path: Path, outside: float, circle: tuple[float, float, float]) -> None:
    inside = disc(*circle)
    found = fov_of(tmp_path / "a.h5", np.where(inside, NOISE, np.float32(outside)))
    assert found["kind"] == "circle"
    wrong = disc(found["cy"], found["cx"], found["radius"]) != inside
    assert wrong.sum() <= 0.02 * (~inside).sum()


def test_what_is_no_disc_stays_full(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    square = np.zeros_like(NOISE)
    square[:, 10:50, 10:50] = NOISE[:, 10:50, 10:50]
    assert fov_of(path, square) == {"kind": "full"}
    assert fov_of(path, NOISE) == {"kind": "full"}
    assert fov_of(path, np.zeros_like(NOISE)) == {"kind": "full"}
    three_corners = np.where(disc(32, 30, 29.5), NOISE, 0)
    three_corners[:, :20, :20] = NOISE[:, :20, :20]
    assert fov_of(path, three_corners) == {"kind": "full"}


def test_voids_of_the_outside_value_do_not_hide_the_circle(tmp_path: Path) -> None:
    volume = np.where(disc(32, 30, 29.5), NOISE, 0)
    volume[:, 25:35, 20:40] = 0
    assert fov_of(tmp_path / "a.h5", volume)["kind"] == "circle"


def test_fov_of_the_settings_wins(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    assert fov_of(path, NOISE, kind="circle", radius=20) == {"kind": "circle", "cy": 31.5, "cx": 29.5, "radius": 20.0}
    assert fov_of(path, NOISE, kind="constant", value=3) == {"kind": "constant", "value": 3}
    assert fov_of(path, np.where(disc(32, 30, 29), NOISE, 0), kind="full") == {"kind": "full"}
    with pytest.raises(InputError, match=r"radius None"):
        fov_of(path, NOISE, kind="circle")


def run(folder: Path, path: Path, **options: Any) -> tuple[bytes, dict[str, Any]]:
    """As the workflow does: the declared outputs go before the job starts."""
    for name in ("scan.json", "source.json"):
        (folder / name).unlink(missing_ok=True)
    scan = ingest(
        path,
        None,
        SETTINGS,
        folder / "scan.json",
        folder / "source.json",
        name="a",
        histogram=folder / "histogram.npz",
        **options,
    )
    return (folder / "scan.json").read_bytes(), scan


def test_only_changed_voxels_change_scan_json(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    path = write(tmp_path / "a.h5", NOISE)
    first, scan = run(out, path)
    assert scan["shape"] == [20, 64, 60]
    assert "content" not in scan
    histogram(out / "scan.json", out / "histogram.npz")
    os.utime(path, ns=(1, 10**18))
    assert run(out, path)[0] == first
    copy = Path(shutil.copy(path, tmp_path / "b.h5"))
    assert run(out, copy)[0] == first
    assert read_json(out / "source.json")["path"] == str(copy)
    changed = NOISE.copy()
    changed[3, 4, 5] += 1
    second, scan = run(out, write(path, changed))
    assert len(scan["content"]) == 16
    histogram(out / "scan.json", out / "histogram.npz")
    os.utime(path, ns=(1, 10**18))
    assert run(out, path)[0] == second
    assert run(out, write(path, NOISE))[0] == first


def test_another_data_set_of_the_same_file_is_another_content(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file["v"], file["w"] = NOISE, NOISE + 1
    options = {"name": "a", "histogram": tmp_path / "histogram.npz"}
    for dataset, changed in (("v", False), ("v", False), ("w", True), ("v", False)):
        scan = ingest(path, dataset, SETTINGS, tmp_path / "scan.json", tmp_path / "source.json", **options)
        assert ("content" in scan) == changed
        histogram(tmp_path / "scan.json", tmp_path / "histogram.npz")


def test_no_path_and_given_voxel_size(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h5", NOISE)
    text, scan = run(tmp_path, path, voxel_size_um=1.5)
    assert scan["voxel_size_um"] == [1.5, 1.5, 1.5]
    assert str(tmp_path).encode() not in text
    with pytest.raises(InputError, match="voxel_size_um"):
        run(tmp_path, path, voxel_size_um=[1.0, -2.0, 1.0])


@pytest.mark.parametrize(("value", "found"), [(300, "300, in a scan of uint8"), (0.5, "0.5, in a scan of uint8")])
def test_a_marker_that_the_type_cannot_hold_is_refused(tmp_path: Path, value: float, found: str) -> None:
    with pytest.raises(InputError, match=f"{found}(.|\n)*a whole number from 0 to 255"):
        fov_of(tmp_path / "a.h5", np.zeros((4, 8, 8), np.uint8), kind="constant", value=value)


def test_a_marker_that_is_not_a_number_is_as_none(tmp_path: Path) -> None:
    volume = np.zeros((4, 8, 8), np.float32)
    assert fov_of(tmp_path / "a.h5", volume, kind="constant", value=float("nan"))["value"] is None
    assert fov_of(tmp_path / "b.h5", volume, kind="constant", value=-1.5)["value"] == -1.5


def test_corrections_stand_in_scan_json_only_where_they_are_asked_for(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).normal(100, 1, (9, 20, 21)).astype(np.float32)
    volume += np.arange(9, dtype=np.float32)[:, None, None]
    path = write(tmp_path / "a.h5", volume)
    correct = {"shading": "drift", "shading_by": "subtract", "background_sigma": 9, "rings": "none", "ring_width": 9}
    correct |= {"denoise": "none", "denoise_strength": 1, "z_continuous": True}
    scans = []
    for chosen in (None, correct, correct):
        ingest(path, None, SETTINGS, tmp_path / "scan.json", tmp_path / "source.json", name="a", correct=chosen)
        scans.append((tmp_path / "scan.json").read_text())
    assert "correction" not in scans[0]
    assert scans[1] == scans[2]
    found = json.loads(scans[1])["correction"]
    assert found["shading"] == "drift"
    assert np.polyval(found["curve"], 1) - np.polyval(found["curve"], 0) == pytest.approx(8, abs=0.3)
    assert found["noise"] == pytest.approx(1, abs=0.2)
