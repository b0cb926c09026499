"""Pseudo-labels: the table is what the voxels' own clusters are."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from beamseg.errors import InputError
from beamseg.histogram import measure
from beamseg.pseudo_label import grey_counts, pseudo_label
from beamseg.readers import open_source
from beamseg.volumes import normalize_block

FULL = {"kind": "full"}
SPAN = [10.0, 200.0]


def histogram_of(folder: Path, name: str, volume: np.ndarray) -> Path:
    with h5py.File(folder / f"{name}.h5", "w") as file:
        file["v"] = volume
    np.savez(folder / f"{name}.npz", **measure(open_source(folder / f"{name}.h5"), FULL))
    (folder / "plan.json").write_text(json.dumps({"range": SPAN}))
    return folder / f"{name}.npz"


def run(folder: Path, histograms: list[Path], k: int = 3) -> tuple[dict, np.ndarray]:
    settings = {"n_clusters": k, "labeler": "kmeans"}
    classes = pseudo_label(
        folder / "plan.json", histograms, folder / "classes.json", folder / "table.npy", settings, seed=0
    )
    assert json.loads((folder / "classes.json").read_text()) == classes
    return classes, np.load(folder / "table.npy")


def test_counts_are_those_of_the_normalized_voxels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    volumes = [rng.integers(0, 256, (9, 12, 11)).astype(np.uint8) for _ in range(2)]
    histograms = [histogram_of(tmp_path, f"s{i}", v) for i, v in enumerate(volumes)]
    grey = [normalize_block(v, {"range": SPAN, "fov": FULL}).ravel() for v in volumes]
    expected = np.bincount(np.concatenate(grey), minlength=65536)
    np.testing.assert_array_equal(grey_counts({"range": SPAN}, histograms), expected)


def test_what_lies_beyond_the_histogram_is_clipped(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).normal(100, 1, (40, 64, 64)).astype(np.float32)
    volume[1, 3, 3:6] = 1e9
    volume[1, 4, 3] = -1e9
    counts = grey_counts({"range": SPAN}, [histogram_of(tmp_path, "a", volume)])
    assert counts[65535] == 3
    assert counts[1] == 1
    assert counts.sum() == volume.size


def test_three_phases(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth = rng.choice(3, (16, 40, 40), p=[0.5, 0.3, 0.2])
    volume = (np.array([40, 100, 170])[truth] + rng.normal(0, 5, truth.shape)).astype(np.float32)
    classes, table = run(tmp_path, [histogram_of(tmp_path, "a", volume)])
    assert table.dtype == np.uint8
    assert table.shape == (65536,)
    assert table[0] == 255
    assert (np.diff(table[1:].astype(int)) >= 0).all()
    labels = table[normalize_block(volume, {"range": SPAN, "fov": FULL})]
    np.testing.assert_array_equal(labels, truth)
    for cluster in classes["clusters"]:
        i = cluster["id"]
        assert abs(cluster["fraction"] - (truth == i).mean()) < 1e-9
        assert (table[cluster["cut_low"] : cluster["cut_high"] + 1] == i).all()
        assert cluster["cut_low"] < cluster["centroid"] < cluster["cut_high"]
    assert classes["clusters"][0]["cut_low"] == 1
    assert classes["clusters"][-1]["cut_high"] == 65535


def test_same_bytes_again_and_too_many_clusters(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).integers(20, 25, (9, 12, 11)).astype(np.uint8)
    histogram = histogram_of(tmp_path, "a", volume)
    run(tmp_path, [histogram])
    first = (tmp_path / "table.npy").read_bytes(), (tmp_path / "classes.json").read_bytes()
    run(tmp_path, [histogram])
    assert ((tmp_path / "table.npy").read_bytes(), (tmp_path / "classes.json").read_bytes()) == first
    with pytest.raises(InputError, match="6 clusters, but the scans hold 5 distinct grey levels"):
        run(tmp_path, [histogram], k=6)
