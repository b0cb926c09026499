"""Assign: clusters of each slab or slice under the group's numbers, and clusters of features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beamseg.assign import assign
from beamseg.clusters import label_levels
from beamseg.features import FeatureVolume, cluster_features, sample_features
from beamseg.pseudo_label import describe
from beamseg.slabs import SlabVolume
from beamseg.volumes import ArrayVolume

SETTINGS: dict[str, Any] = {"labeler": "kmeans", "n_clusters": 2, "bins": 65536, "scope": "volume"}
SHAPE = (32, 20, 24)


def drifting() -> tuple[np.ndarray, np.ndarray]:
    """Two phases 8000 apart whose brightness rises along z by 24000, 0 in a corner; and the phases."""
    rng = np.random.default_rng(0)
    truth = rng.choice(2, SHAPE)
    grey = 10000 + 8000 * truth + np.linspace(0, 24000, SHAPE[0])[:, None, None] + rng.normal(0, 300, SHAPE)
    grey[:, :3, :3] = 0
    grey[5] = 0
    return grey.astype(np.uint16), truth


GREY, TRUTH = drifting()


def classes_of(settings: dict[str, Any]) -> dict[str, Any]:
    counts = np.bincount(GREY.ravel(), minlength=65536)
    return {"clusters": describe(counts, label_levels(counts, settings, 0), 2)}


def run(folder: Path, settings: dict[str, Any], classes: dict[str, Any], parts: int = 1) -> np.ndarray:
    manifests = [folder / f"{part + 1}-of-{parts}.json" for part in range(parts)]
    for manifest in manifests:
        assign(
            manifest,
            ArrayVolume(GREY),
            classes,
            settings=settings,
            seed=0,
            slab_depth=8,
            part=manifest.stem,
            identity=str(settings["scope"]),
            mem_budget_mb=1e-6,
        )
    return SlabVolume(manifests, "labels").read(0, SHAPE[0])


@pytest.mark.parametrize("labeler", ["kmeans", "multi_otsu", "gmm", "gmm_tied"])
def test_slices_follow_the_drift(tmp_path: Path, labeler: str) -> None:
    settings = {**SETTINGS, "labeler": labeler, "scope": "slice"}
    labels = run(tmp_path, settings, classes_of(settings))
    np.testing.assert_array_equal(labels == 255, GREY == 0)
    inside = labels != 255
    np.testing.assert_array_equal(labels[inside], TRUTH[inside])


def test_slabs_are_fitted_one_by_one(tmp_path: Path) -> None:
    settings = {**SETTINGS, "scope": "slab"}
    labels = run(tmp_path, settings, classes_of(settings))
    for z in range(0, 32, 8):
        block = GREY[z : z + 8]
        expected = label_levels(np.bincount(block.ravel(), minlength=65536), settings, 0)[block]
        np.testing.assert_array_equal(labels[z : z + 8], expected)
    np.testing.assert_array_equal(run(tmp_path / "parts", settings, classes_of(settings), parts=3), labels)


def test_features_are_those_of_the_volume(tmp_path: Path) -> None:
    features = {
        "use": ["grey", "smooth", "spread"],
        "scales_px": [1, 2],
        "background_px": 10,
        "dimensions": 3,
        "sample_voxels": 4000,
    }
    settings = {**SETTINGS, "labeler": "features", "features": features}
    model, _ = cluster_features(*sample_features([ArrayVolume(GREY)], features, 0), 2, features, 0)
    classes = {"features": model, "clusters": [{"centroid": 1.0}, {"centroid": 2.0}]}
    whole = FeatureVolume(ArrayVolume(GREY), model).read(0, 32)
    np.testing.assert_array_equal(run(tmp_path, settings, classes, parts=2), whole)
    np.testing.assert_array_equal(whole == 255, GREY == 0)
