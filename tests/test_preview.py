"""preview: the crop of highest contrast, whole or binned."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from beamseg.preview import best_window, crop_fov, cut_crop, preview
from beamseg.provenance import read_json
from workflow import BASEDIR, TINY, Workflow


@dataclass
class Scan:
    array: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def read(self, z0: int, z1: int, y: slice = slice(None), x: slice = slice(None)) -> np.ndarray:
        return self.array[z0:z1, y, x]


def test_the_window_with_structure_is_found_and_noise_is_none() -> None:
    rng = np.random.default_rng(0)
    slices = rng.normal(0, 1.0, (2, 256, 256))
    slices[:, 128:192:16, 128:192] += 20
    y, x = best_window(slices, (64, 64))
    assert 96 <= y <= 160
    assert 96 <= x <= 160


def test_a_small_scan_is_taken_whole() -> None:
    array = np.random.default_rng(0).normal(size=(20, 40, 48)).astype(np.float32)
    block, corner = cut_crop(Scan(array), 1)
    assert corner == (0, 0, 0)
    np.testing.assert_array_equal(block, array)


def test_binning_takes_means_of_blocks() -> None:
    array = np.random.default_rng(0).normal(size=(20, 40, 48)).astype(np.float32)
    block, _ = cut_crop(Scan(array), 2)
    assert block.shape == (10, 20, 24)
    np.testing.assert_allclose(block[0, 0, 0], array[:2, :2, :2].mean(), rtol=1e-5)


def test_the_field_of_view_moves_and_shrinks_with_the_crop() -> None:
    fov = {"kind": "circle", "cy": 50.0, "cx": 60.0, "radius": 40.0}
    assert crop_fov(fov, (0, 10, 20), 2) == {"kind": "circle", "cy": 20.0, "cx": 20.0, "radius": 20.0}
    assert crop_fov({"kind": "full"}, (0, 10, 20), 2) == {"kind": "full"}


def test_the_crop_goes_through_every_stage(tmp_path: Path) -> None:
    """Also where the scan's own row has labels to train on, which are not the crop's."""
    rng = np.random.default_rng(0)
    phases = rng.integers(0, 4, (40, 8, 8)).repeat(12, axis=1).repeat(12, axis=2)
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"] = (phases + rng.normal(0, 0.2, phases.shape)).astype(np.float32)
    Workflow(tmp_path, TINY, f"sample\tpath\tlabels\tlabel_source\na\t{tmp_path}/scan.h5\tmine.tif\tslices\n")
    preview(tmp_path, BASEDIR, "a", binning=2, steps=4)
    folder = tmp_path / "results" / "preview" / "a"
    assert (folder / "contact_sheet.png").exists()
    assert read_json(folder / "results" / "a" / "metrics.json")["product"]["stage"] == "scm"
    assert read_json(folder / "results" / "a" / "labels.json")["shape"] == [20, 48, 48]
