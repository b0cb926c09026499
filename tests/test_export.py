"""The exported sequence: what a reader finds, merged classes, and files of earlier exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from beamseg.export import export
from beamseg.palette import class_table
from beamseg.provenance import read_json
from beamseg.volumes import ArrayVolume

LABELS = np.random.default_rng(0).choice(np.array([0, 1, 2, 255], np.uint8), (11, 6, 9))
STAGE = {"stage": "mpp", "reason": "SCM took away more than half of cluster 2", "fallback": True}


def run(tmp_path: Path, labels: np.ndarray = LABELS, **options: Any) -> dict[str, Any]:
    options = {
        "table": class_table(3, None),
        "stage": STAGE,
        "voxel_size_um": (2.0, 0.5, 0.25),
        "folder": tmp_path / "labels",
        "out_json": tmp_path / "labels.json",
    } | options
    return export(ArrayVolume(labels), **options)


def test_slices_read_back_in_order_and_orientation(tmp_path: Path) -> None:
    run(tmp_path)
    files = sorted((tmp_path / "labels").iterdir())
    assert [file.name for file in files] == [f"z_{z:06d}.tif" for z in range(11)]
    assert np.array_equal(np.stack([tifffile.imread(file) for file in files]), LABELS)


def test_imagej_finds_the_voxel_size(tmp_path: Path) -> None:
    run(tmp_path)
    with tifffile.TiffFile(tmp_path / "labels" / "z_000003.tif") as file:
        page = file.pages[0]
        assert page.dtype == np.uint8
        assert page.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
        x, y = (page.tags[name].value for name in ("XResolution", "YResolution"))
        assert (x[0] / x[1], y[0] / y[1]) == (4.0, 2.0)  # pixels per µm
        assert file.imagej_metadata["unit"] == "um"
        assert file.imagej_metadata["spacing"] == 2.0


def test_an_unknown_voxel_size_is_not_made_up(tmp_path: Path) -> None:
    manifest = run(tmp_path, voxel_size_um=None)
    assert manifest["voxel_size_um"] is None
    with tifffile.TiffFile(tmp_path / "labels" / "z_000000.tif") as file:
        assert file.imagej_metadata is None
        assert np.array_equal(file.asarray(), LABELS[0])


def test_merged_clusters_are_one_class(tmp_path: Path) -> None:
    manifest = run(tmp_path, table=class_table(3, {"solid": {"clusters": [1, 2], "colour": "#112233"}}))
    expected = np.array([0, 1, 1] + [255] * 253, np.uint8)[LABELS[4]]
    assert np.array_equal(tifffile.imread(tmp_path / "labels" / "z_000004.tif"), expected)
    assert manifest["classes"][1] == {"id": 1, "name": "solid", "colour": "#112233", "clusters": [1, 2]}
    assert (manifest["stage"], manifest["reason"]) == ("mpp", STAGE["reason"])
    assert read_json(tmp_path / "labels.json") == manifest


def test_files_of_a_longer_export_go_and_others_stay(tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / "labels" / "notes.txt").write_text("mine")
    run(tmp_path, LABELS[:4])
    assert sorted(file.name for file in (tmp_path / "labels").iterdir()) == [
        "notes.txt",
        *(f"z_{z:06d}.tif" for z in range(4)),
    ]


@pytest.mark.parametrize("budget", [1e-6, 2e-3, 100])
def test_blocks_of_any_size_give_equal_bytes(tmp_path: Path, budget: float) -> None:
    whole = run(tmp_path / "whole")
    assert run(tmp_path / "blocks", mem_budget_mb=budget) == whole
    for file in (tmp_path / "whole" / "labels").iterdir():
        assert file.read_bytes() == (tmp_path / "blocks" / "labels" / file.name).read_bytes()


def test_the_digest_follows_the_labels(tmp_path: Path) -> None:
    other = LABELS.copy()
    other[7, 3, 3] = 1 if other[7, 3, 3] != 1 else 2
    assert run(tmp_path)["digest"] != run(tmp_path, other)["digest"]
