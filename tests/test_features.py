"""Features: the same whatever the window, and better than grey levels where these overlap."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.optimize import linear_sum_assignment

import beamseg.features
from beamseg.clusters import label_levels
from beamseg.errors import InputError
from beamseg.features import (
    FeatureVolume,
    background,
    cluster_features,
    features,
    halo,
    interpolate,
    names,
    nearest,
    sample_features,
)
from beamseg.volumes import ArrayVolume, Volume, normalize_block

SETTINGS: dict[str, Any] = {
    "use": ["grey", "smooth", "gradient", "spread"],
    "scales_px": [0.5, 1, 2],
    "background_px": 20,
    "dimensions": 3,
    "sample_voxels": 20000,
}


def overlapping(shape: tuple[int, int, int] = (24, 120, 116)) -> tuple[np.ndarray, np.ndarray]:
    """Grey levels of three phases 0.8 σ apart under cupping of 2 σ, 0 outside a circle, and the phases."""
    rng = np.random.default_rng(0)
    field = gaussian_filter(rng.normal(size=shape), 4)
    truth = np.digitize(field, np.quantile(field, [0.4, 0.75]))
    y, x = np.ogrid[-1 : 1 : shape[1] * 1j, -1 : 1 : shape[2] * 1j]
    raw = (0.8 * truth + 2.0 * (y * y + x * x) + rng.normal(size=shape)).astype(np.float32)
    fov = {"kind": "circle", "cy": (shape[1] - 1) / 2, "cx": (shape[2] - 1) / 2, "radius": 0.5 * shape[2]}
    return normalize_block(raw, {"range": np.percentile(raw, [0.1, 99.9]).tolist(), "fov": fov}), truth


GREY, TRUTH = overlapping()


def model_of(volume: Volume, settings: dict[str, Any] = SETTINGS, k: int = 3) -> dict[str, Any]:
    sample, grey = sample_features([volume], settings, 0)
    return cluster_features(sample, grey, k, settings, 0)[0]


def mean_iou(labels: np.ndarray) -> float:
    counts = np.zeros((3, 3))
    inside = labels != 255
    np.add.at(counts, (labels[inside], TRUTH[inside]), 1)
    iou = counts / (counts.sum(axis=0) + counts.sum(axis=1)[:, None] - counts)
    return float(iou[linear_sum_assignment(-iou)].mean())


@pytest.mark.parametrize("dimensions", [2, 3])
def test_windows_have_the_labels_of_the_whole(dimensions: int, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {**SETTINGS, "dimensions": dimensions}
    model = model_of(ArrayVolume(GREY), settings)
    whole = FeatureVolume(ArrayVolume(GREY), model).read(0, 24)
    assert whole.shape == GREY.shape
    np.testing.assert_array_equal(whole == 255, GREY == 0)
    assert set(np.unique(whole)) == {0, 1, 2, 255}
    monkeypatch.setattr(beamseg.features, "TILE", 37)
    small = FeatureVolume(ArrayVolume(GREY), model, threads=3, mem_budget_mb=1e-6)
    assert small.depth == 1
    np.testing.assert_array_equal(small.read(0, 24), whole)
    np.testing.assert_array_equal(small.read(5, 11, slice(13, 90), slice(50, None)), whole[5:11, 13:90, 50:])
    np.testing.assert_array_equal(small.read(-3, 1, slice(0, 1), slice(7, 8)), whole[:1, :1, 7:8])


def test_features_themselves_are_bitwise_those_of_the_whole() -> None:
    flat = np.random.default_rng(0).normal(size=(30, 40, 50)).astype(np.float32)
    reach = halo(SETTINGS)
    assert reach == 7
    whole = features(flat, SETTINGS)
    assert len(whole) == len(names(SETTINGS)) == 6
    part = features(flat[4:30, 0:33, 11:44], SETTINGS)
    for a, b in zip(whole, part, strict=True):
        np.testing.assert_array_equal(
            a[4 + reach :, : 33 - reach, 11 + reach : 44 - reach], b[reach:, : 33 - reach, reach : 33 - reach]
        )


def test_features_of_a_plane_and_of_a_single_slice() -> None:
    ramp = np.broadcast_to(np.arange(40, dtype=np.float32) * 2, (1, 40, 40))
    found = dict(zip(names(SETTINGS), features(np.ascontiguousarray(ramp), SETTINGS), strict=True))
    centre = (0, 20, 20)
    np.testing.assert_allclose(found["grey"][centre], 40)
    np.testing.assert_allclose(found["smooth 2"][centre], 40, rtol=1e-5)
    np.testing.assert_allclose(found["gradient"][centre], 2, rtol=1e-5)
    # A ramp of slope 2 under a Gaussian of σ = 1 that is cut at 3 σ spreads by 2 · 0.9853.
    offsets = np.arange(-3, 4)
    kernel = np.exp(-(offsets**2) / 2)
    np.testing.assert_allclose(
        found["spread"][centre], 2 * np.sqrt((kernel * offsets**2).sum() / kernel.sum()), rtol=1e-3
    )


def test_the_background_is_the_shading_and_not_the_outside() -> None:
    y, x = np.mgrid[:160, :160]
    shade = (20000 + 40 * x).astype(np.uint16)
    shade[(y - 80) ** 2 + (x - 80) ** 2 > 70**2] = 0
    coarse = background(ArrayVolume(np.repeat(shade[None], 3, axis=0)), 8)
    assert coarse.shape == (20, 20)
    found = interpolate(coarse, range(60, 100), range(60, 100))
    np.testing.assert_allclose(found, 20000 + 40.0 * x[60:100, 60:100], rtol=1e-3)
    np.testing.assert_array_equal(interpolate(coarse, range(70, 80), range(90, 93)), found[10:20, 30:33])
    np.testing.assert_allclose(background(ArrayVolume(shade[None]), 0), shade[shade > 0].mean(), rtol=1e-6)


def test_nearest_takes_the_first_of_equals() -> None:
    model = {"mean": [1.0, 0.0], "std": [2.0, 1.0], "centres": [[-1, 0], [1, 0], [0, 5]]}
    x = np.array([[[-1.0, 3.0, 1.0, 1.0]]], np.float32)
    y = np.array([[[0.0, 0.0, 0.0, 4.0]]], np.float32)
    np.testing.assert_array_equal(nearest([x, y], model), [[[0, 1, 0, 2]]])


def test_a_model_is_numbers_alone_and_repeats_itself() -> None:
    model, again = (model_of(ArrayVolume(GREY)) for _ in range(2))
    assert model == again
    assert json.loads(json.dumps(model)) == model
    assert model["names"] == ["grey", "smooth 0.5", "smooth 1", "smooth 2", "gradient", "spread"]


def test_clusters_are_in_the_order_of_grey() -> None:
    sample, grey = sample_features([ArrayVolume(GREY), ArrayVolume(GREY[:8])], SETTINGS, 1)
    assert abs(len(sample) - 20000) < 20
    assert (grey > 0).all()
    _, labels = cluster_features(sample, grey, 4, SETTINGS, 1)
    means = [grey[labels == cluster].mean() for cluster in range(4)]
    assert (np.diff(means) > 0).all()


def test_beats_grey_levels_under_cupping() -> None:
    settings = {**SETTINGS, "use": ["grey", "smooth"], "scales_px": [1, 2, 4]}
    volume = ArrayVolume(GREY)
    counts = np.bincount(GREY.ravel(), minlength=65536)
    table = label_levels(counts, {"labeler": "kmeans", "n_clusters": 3}, 0)
    by_grey, by_features = (
        mean_iou(table[GREY]),
        mean_iou(FeatureVolume(volume, model_of(volume, settings)).read(0, 24)),
    )
    assert by_features > 1.3 * by_grey


def test_a_scan_of_one_value_is_refused() -> None:
    flat = ArrayVolume(np.full((4, 30, 30), 9, np.uint16))
    with pytest.raises(InputError, match="2 clusters, but the sample holds 1 distinct voxels"):
        model_of(flat, k=2)


def test_the_edge_of_the_field_of_view_makes_no_cluster() -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:120, :120]
    right = np.broadcast_to(x >= 60, (8, 120, 120))
    grey = (30000 + 9000 * right + rng.normal(0, 1000, right.shape)).astype(np.uint16)
    grey[:, (y - 60) ** 2 + (x - 60) ** 2 > 58**2] = 0
    settings = {**SETTINGS, "use": ["smooth"], "background_px": 0}
    labels = FeatureVolume(ArrayVolume(grey), model_of(ArrayVolume(grey), settings, 2)).read(0, 8)
    seen = (labels != 255) & (np.abs(x - 60) > 6)  # away from the border of the phases
    np.testing.assert_array_equal(labels[seen], right[seen])
