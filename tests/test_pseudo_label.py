"""Pseudo-labels: the table is what the voxels' own clusters are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

from beamseg.errors import InputError
from beamseg.features import FeatureVolume
from beamseg.histogram import measure
from beamseg.pseudo_label import describe, grey_counts, pseudo_label
from beamseg.readers import open_source
from beamseg.volumes import ArrayVolume, Volume, normalize_block

FULL = {"kind": "full"}
FEATURES = {
    "use": ["grey", "smooth"],
    "scales_px": [1],
    "background_px": 0,
    "dimensions": 2,
    "sample_voxels": 5000,
}
SPAN = [10.0, 200.0]


def histogram_of(folder: Path, name: str, volume: np.ndarray) -> Path:
    with h5py.File(folder / f"{name}.h5", "w") as file:
        file["v"] = volume
    np.savez(folder / f"{name}.npz", **measure(open_source(folder / f"{name}.h5"), FULL))
    (folder / "plan.json").write_text(json.dumps({"range": SPAN}))
    return folder / f"{name}.npz"


def run(
    folder: Path, histograms: list[Path], k: int = 3, labeler: str = "kmeans", volumes: Sequence[Volume] = ()
) -> tuple[dict, np.ndarray]:
    settings = {"n_clusters": k, "labeler": labeler, "bins": 65536, "scope": "volume", "features": FEATURES}
    classes = pseudo_label(
        folder / "plan.json", histograms, folder / "classes.json", folder / "table.npy", settings, 0, volumes
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


@pytest.mark.parametrize("labeler", ["kmeans", "multi_otsu", "gmm", "gmm_tied"])
def test_three_phases(tmp_path: Path, labeler: str) -> None:
    rng = np.random.default_rng(0)
    truth = rng.choice(3, (16, 40, 40), p=[0.5, 0.3, 0.2])
    volume = (np.array([40, 100, 170])[truth] + rng.normal(0, 5, truth.shape)).astype(np.float32)
    classes, table = run(tmp_path, [histogram_of(tmp_path, "a", volume)], labeler=labeler)
    assert table.dtype == np.uint8
    assert table.shape == (65536,)
    assert table[0] == 255
    assert (np.diff(table[1:].astype(int)) >= 0).all()
    labels = table[normalize_block(volume, {"range": SPAN, "fov": FULL})]
    np.testing.assert_array_equal(labels, truth)
    for cluster in classes["clusters"]:
        i = cluster["id"]
        assert abs(cluster["fraction"] - (truth == i).mean()) < 1e-9
        [[low, high]] = cluster["intervals"]
        np.testing.assert_array_equal(np.flatnonzero(table == i), np.arange(low, high + 1))
        assert low < cluster["centroid"] < high
    assert classes["clusters"][0]["intervals"][0][0] == 1
    assert classes["clusters"][-1]["intervals"][0][1] == 65535
    assert classes["elbow"]["k"] == [2, 3, 4, 5, 6, 7, 8]
    assert classes["warnings"] == []


def test_clusters_of_several_intervals_or_none_are_described() -> None:
    counts = np.zeros(65536, int)
    counts[[0, 10, 20, 40]] = 100, 6, 2, 2
    table = np.zeros(65536, np.uint8)
    table[:30] = [255, *[1] * 14, *[0] * 15]
    first, second, none = describe(counts, table, 3)
    assert first == {"id": 0, "centroid": 30.0, "intervals": [[15, 65535]], "fraction": 0.4}
    assert second == {"id": 1, "centroid": 10.0, "intervals": [[1, 14]], "fraction": 0.6}
    assert none == {"id": 2, "centroid": None, "intervals": [], "fraction": 0.0}
    table[100:200] = 1
    table[300:302] = 2
    _, second, last = describe(counts, table, 3)
    assert second["intervals"] == [[1, 14], [100, 199]]
    assert last == {"id": 2, "centroid": 300.5, "intervals": [[300, 301]], "fraction": 0.0}


def test_features_leave_their_model_and_no_table(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth = np.repeat(np.repeat(rng.choice(3, (16, 5, 5)), 8, axis=1), 8, axis=2)
    volume = (np.array([40, 100, 170])[truth] + rng.normal(0, 5, truth.shape)).astype(np.float32)
    grey = ArrayVolume(normalize_block(volume, {"range": SPAN, "fov": FULL}))
    classes, table = run(tmp_path, [histogram_of(tmp_path, "a", volume)], labeler="features", volumes=[grey])
    assert (table == 255).all()
    for cluster, mean in zip(classes["clusters"], (40, 100, 170), strict=True):
        assert cluster["intervals"] == []
        np.testing.assert_allclose(cluster["fraction"], (truth == cluster["id"]).mean(), atol=0.05)
        np.testing.assert_allclose(cluster["centroid"], 1 + (mean - 10) / 190 * 65534, rtol=0.1)
    labels = FeatureVolume(grey, classes["features"]).read(0, 16)
    assert (labels == truth).mean() > 0.9


def test_same_bytes_again_and_too_many_clusters(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).integers(20, 25, (9, 12, 11)).astype(np.uint8)
    histogram = histogram_of(tmp_path, "a", volume)
    run(tmp_path, [histogram])
    first = (tmp_path / "table.npy").read_bytes(), (tmp_path / "classes.json").read_bytes()
    run(tmp_path, [histogram])
    assert ((tmp_path / "table.npy").read_bytes(), (tmp_path / "classes.json").read_bytes()) == first
    with pytest.raises(InputError, match="6 clusters, but the scans hold 5 distinct grey levels"):
        run(tmp_path, [histogram], k=6)
