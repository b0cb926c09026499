"""Normalize: the cache is what the source gives, whatever slabs, parts and threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile

from beamseg.ingest import ingest
from beamseg.normalize import normalize
from beamseg.provenance import read_json, write_json
from beamseg.slabs import SlabVolume
from beamseg.volumes import NormalizedVolume, open_normalized

CIRCLE = {"kind": "circle", "cy": None, "cx": None, "radius": 17.0, "value": None}
SETTINGS = {"materialize": "always", "mem_budget_mb": 4000}
VOLUME = np.random.default_rng(0).normal(0, 1, (45, 40, 37)).astype(np.float32)
VOLUME[7, 20, 20] = np.nan


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("v", data=VOLUME, chunks=(10, 40, 37), compression="gzip")
    return take_in(tmp_path, tmp_path / "a.h5", 8)


def take_in(folder: Path, path: Path, depth: int) -> Path:
    settings = {"fov": CIRCLE, "slab_depth": depth}
    ingest(path, None, settings, folder / "scan.json", folder / "source.json", name="a")
    write_json(folder / "plan.json", {"range": [-2.5, 2.5], "scans": {}})
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
    tifffile.imwrite(path, np.zeros(VOLUME.shape, np.uint8), photometric="minisblack")
    take_in(scan, path, 8)
    assert not read_json(run(scan, materialize="auto"))["slabs"]
    assert read_json(run(scan, materialize="auto", mem_budget_mb=0.01))["slabs"]
