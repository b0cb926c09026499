"""Normalize: the cache is what the source gives, whatever slabs, parts and threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile

from beamseg.errors import InputError
from beamseg.ingest import ingest
from beamseg.normalize import normalize
from beamseg.provenance import read_json, write_json
from beamseg.slabs import SlabVolume
from beamseg.volumes import NormalizedVolume, open_normalized

CIRCLE = {"kind": "circle", "cy": None, "cx": None, "radius": 17.0, "value": None}
SETTINGS = {"materialize": "always", "scratch_mb": float("inf"), "mem_budget_mb": 4000}
CORRECT = {
    "shading": "background",
    "shading_by": "subtract",
    "background_sigma": 9.0,
    "rings": "polar",
    "ring_width": 7,
    "denoise": "gaussian",
    "denoise_strength": 0.6,
    "z_continuous": True,
}
VOLUME = np.random.default_rng(0).normal(0, 1, (45, 40, 37)).astype(np.float32)
VOLUME[7, 20, 20] = np.nan


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("v", data=VOLUME, chunks=(10, 40, 37), compression="gzip")
    return take_in(tmp_path, tmp_path / "a.h5", 8)


def take_in(folder: Path, path: Path, depth: int, correct: dict[str, Any] | None = None, bits: int = 16) -> Path:
    settings = {"fov": CIRCLE, "slab_depth": depth}
    ingest(path, None, settings, folder / "scan.json", folder / "source.json", name="a", correct=correct)
    write_json(folder / "plan.json", {"range": [-2.5, 2.5], "bits": bits, "scans": {}})
    return folder


def run(folder: Path, part: str = "1-of-1", threads: int = 1, **settings: Any) -> Path:
    manifest = folder / "normalize" / f"{part}.json"
    normalize(manifest, folder / "scan.json", folder / "plan.json", {**SETTINGS, **settings}, part, "identity", threads)
    return manifest


@pytest.mark.parametrize(("depth", "parts", "threads"), [(8, 1, 1), (8, 3, 2), (24, 2, 1), (400, 1, 2)])
def test_cache_equals_source(scan: Path, depth: int, parts: int, threads: int) -> None:
    take_in(scan, scan / "a.h5", depth)
    manifests = [run(scan, f"{k + 1}-of-{parts}", threads) for k in range(parts)]
    stored = open_normalized(scan / "scan.json", scan / "plan.json", manifests)
    direct = open_normalized(scan / "scan.json", scan / "plan.json")
    assert isinstance(stored, SlabVolume)
    assert isinstance(direct, NormalizedVolume)
    whole = stored.read(0, 45)
    np.testing.assert_array_equal(direct.read(0, 45), whole)
    np.testing.assert_array_equal(direct.read(3, 30, slice(5, 21), slice(11, 37)), whole[3:30, 5:21, 11:37])
    assert whole.dtype == np.uint16
    assert whole[7, 20, 20] == 0
    assert whole[:, 0, 0].max() == 0
    inside = np.isfinite(VOLUME[:, 20, 20])
    expected = 1 + (VOLUME[inside, 20, 20].clip(-2.5, 2.5) + 2.5) / 5 * 65534
    np.testing.assert_allclose(whole[inside, 20, 20], expected, atol=0.51)


def test_field_of_view_holds_in_slices_of_several_tiles(tmp_path: Path) -> None:
    volume = np.full((9, 800, 400), 2, np.uint8)
    volume[:, 400] = 3
    tifffile.imwrite(tmp_path / "a.tif", volume, photometric="minisblack")
    take_in(tmp_path, tmp_path / "a.tif", 8)
    stored = open_normalized(tmp_path / "scan.json", tmp_path / "plan.json", [run(tmp_path)])
    y, x = np.ogrid[:800, :400]
    inside = (y - 399.5) ** 2 + (x - 199.5) ** 2 <= 17**2
    np.testing.assert_array_equal(stored.read(0, 9) > 0, np.broadcast_to(inside, volume.shape))


def test_readers_fall_back_when_slabs_are_gone(scan: Path) -> None:
    manifest = run(scan)
    text = manifest.read_text()
    whole = open_normalized(scan / "scan.json", scan / "plan.json", [manifest]).read(0, 45)
    (scan / "normalize" / read_json(manifest)["slabs"][2]["file"]).unlink()
    fallen = open_normalized(scan / "scan.json", scan / "plan.json", [manifest])
    assert isinstance(fallen, NormalizedVolume)
    np.testing.assert_array_equal(fallen.read(0, 45), whole)
    partial = open_normalized(scan / "scan.json", scan / "plan.json", [run(scan, "1-of-2")])
    assert isinstance(partial, NormalizedVolume)
    run(scan)
    assert manifest.read_text() == text


def test_never_leaves_a_manifest_without_slabs(scan: Path) -> None:
    run(scan)
    manifest = run(scan, materialize="never")
    assert read_json(manifest)["slabs"] == []
    assert not list((scan / "normalize").glob("*.h5"))
    volume = open_normalized(scan / "scan.json", scan / "plan.json", [manifest])
    assert isinstance(volume, NormalizedVolume)


def test_auto_leaves_out_the_cache_where_the_source_reads_as_fast(scan: Path) -> None:
    assert read_json(run(scan, materialize="auto"))["slabs"]  # float, compressed
    path = scan / "b.tif"
    tifffile.imwrite(path, (np.isfinite(VOLUME)).astype(np.uint8), photometric="minisblack")
    take_in(scan, path, 8)
    assert not read_json(run(scan, materialize="auto"))["slabs"]
    assert read_json(run(scan, materialize="auto", mem_budget_mb=0.01))["slabs"]


@pytest.mark.parametrize("correct", [None, CORRECT])
def test_eight_bits_and_corrections_are_the_same_both_ways(scan: Path, correct: dict[str, Any] | None) -> None:
    take_in(scan, scan / "a.h5", 16, correct, 8)
    manifest = run(scan, threads=2)
    assert read_json(manifest)["arrays"] == {"grey": "uint8"}
    direct = open_normalized(scan / "scan.json", scan / "plan.json").read(0, 45)
    stored = open_normalized(scan / "scan.json", scan / "plan.json", [manifest]).read(0, 45)
    np.testing.assert_array_equal(stored, direct)
    assert stored.dtype == np.uint16
    take_in(scan, scan / "a.h5", 16, correct, 16)
    fine = open_normalized(scan / "scan.json", scan / "plan.json").read(0, 45)
    assert abs(fine.astype(int) - stored).max() <= 130  # half of the step between 255 levels
    np.testing.assert_array_equal(fine == 0, stored == 0)
    assert len(np.unique(stored)) <= 256 < len(np.unique(fine))


def test_a_corrected_scan_is_cached_in_any_case(scan: Path) -> None:
    path = scan / "b.tif"
    tifffile.imwrite(path, (np.abs(np.nan_to_num(VOLUME)) * 20).astype(np.uint8), photometric="minisblack")
    take_in(scan, path, 8, CORRECT)
    manifest = run(scan, materialize="auto")
    assert read_json(manifest)["slabs"]
    direct = open_normalized(scan / "scan.json", scan / "plan.json")
    stored = open_normalized(scan / "scan.json", scan / "plan.json", [manifest])
    np.testing.assert_array_equal(stored.read(0, 45), direct.read(0, 45))


def test_caches_stay_under_their_limit(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["v"] = VOLUME
    for name in "abc":
        (tmp_path / name).mkdir()
        take_in(tmp_path / name, tmp_path / "a.h5", 8)
    room = 2.1 * VOLUME.size / 2**20  # one cache, whatever its voxels
    assert read_json(run(tmp_path / "a", scratch_mb=room))["slabs"]
    assert not read_json(run(tmp_path / "b", scratch_mb=room))["slabs"]
    assert read_json(run(tmp_path / "a", scratch_mb=room))["slabs"]  # its own does not count
    # One that another job is writing counts at the size that it will have.
    write_json(tmp_path / "b" / "normalize" / "1-of-1.reserved", {"bytes": 2 * VOLUME.size})
    assert not read_json(run(tmp_path / "c", scratch_mb=2 * room))["slabs"]
    assert not list(tmp_path.glob("[ac]/normalize/*.reserved"))
    (tmp_path / "b" / "normalize" / "1-of-1.reserved").unlink()
    take_in(tmp_path / "b", tmp_path / "a.h5", 8, CORRECT)
    with pytest.raises(InputError, match="left by other scans' caches, and a corrected scan that needs"):
        run(tmp_path / "b", scratch_mb=room)
