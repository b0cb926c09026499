"""Clusters from a histogram against what a user would call on the voxels, paired in one run.

usage: python benchmarks/labelers.py [--size 128] [--voxels 200000] [--repeats 3]

Sizes for the record: --size 512 --voxels 2000000. Each pair is timed in turns, ours and theirs; the times are the least
of the repeats. The histogram pass and the look-up of the labels count on our side.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.optimize import linear_sum_assignment
from skimage.filters import threshold_multiotsu
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture

from beamseg.clusters import binned, label_levels, rebin
from beamseg.corrections import corrected, estimate
from beamseg.features import FeatureVolume, cluster_features, sample_features
from beamseg.mixture import gaussian_mixture
from beamseg.multi_otsu import multi_otsu
from beamseg.readers import Source
from beamseg.volumes import MAX_GREY, ArrayVolume, TableVolume, normalize_block

PHASES, SIGMA = np.array([9000, 22000, 36000, 52000]), 3000
SETTINGS = {"labeler": "kmeans", "n_clusters": 4, "bins": 65536}
FEATURES = {
    "use": ["grey", "smooth"],
    "scales_px": [1, 2, 4],
    "background_px": 25,
    "dimensions": 3,
    "sample_voxels": 200_000,
}

CORRECTION = {
    "shading": "none",
    "shading_by": "subtract",
    "background_sigma": 50,
    "rings": "none",
    "ring_width": 15,
    "denoise": "none",
    "denoise_strength": 1,
    "z_continuous": True,
}


def paired(repeats: int, ours: Callable[[], Any], theirs: Callable[[], Any]) -> tuple[Any, Any, float, float]:
    """Results and least seconds of two calls, made in turns."""
    seconds: list[list[float]] = [[], []]
    results: list[Any] = [None, None]
    for _ in range(repeats):
        for i, call in enumerate((ours, theirs)):
            started = time.perf_counter()
            results[i] = call()
            seconds[i].append(time.perf_counter() - started)
    return results[0], results[1], min(seconds[0]), min(seconds[1])


def say(name: str, ours: float, theirs: float, wanted: float, more: str) -> None:
    """A line of the result."""
    ratio = theirs / ours
    print(f"{name:34} {ours:9.4f} s  {theirs:9.3f} s  {ratio:8.1f} × (wanted {wanted:g})  {more}", flush=True)


def phases(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Grey levels of four phases with noise, uint16."""
    grey = rng.standard_normal(shape, dtype=np.float32)
    grey *= SIGMA
    grey += PHASES.astype(np.float32)[rng.integers(0, 4, shape, dtype=np.uint8)]
    return np.clip(np.rint(grey, out=grey), 1, MAX_GREY, out=grey).astype(np.uint16)


def inertia(grey: np.ndarray, labels: np.ndarray) -> float:
    """Sum of squared distances to the means of four clusters, from the joint counts of cluster and grey level."""
    joint = np.bincount(labels.ravel().astype(np.int64) * 65536 + grey.ravel(), minlength=4 * 65536).reshape(4, -1)
    levels = np.arange(65536.0) - 32768
    mass, first = joint.sum(axis=1), joint @ levels
    return float((joint @ levels**2 - first**2 / np.maximum(mass, 1)).sum())


def histogram(grey: np.ndarray) -> np.ndarray:
    """Counts per level, a slice at a time."""
    counts = np.zeros(65536, np.int64)
    for image in grey:
        counts += np.bincount(image.ravel(), minlength=65536)
    return counts


def against_kmeans(size: int, repeats: int, tolerance: float) -> None:
    """k-means of a volume in memory; scikit-learn's own tolerance, 1e-4, stops it early, 0 lets it end."""
    grey = phases(np.random.default_rng(0), (size, size, size))
    voxels = grey.reshape(-1, 1).astype(np.float64)  # in float32 its sums over 10⁸ voxels lose 0.2 % of the inertia

    def theirs() -> np.ndarray:
        model = KMeans(4, n_init=1, tol=tolerance, random_state=0).fit(voxels)
        return np.argsort(np.argsort(model.cluster_centers_[:, 0])).astype(np.uint8)[model.labels_]

    def ours() -> np.ndarray:
        labels = np.empty(grey.shape, np.uint8)
        volume = TableVolume(ArrayVolume(grey), label_levels(histogram(grey), SETTINGS, 0))
        for z in range(size):
            labels[z] = volume.read(z, z + 1)[0]
        return labels

    mine, other, a, b = paired(repeats, ours, theirs)
    excess = inertia(grey, mine) / inertia(grey, other) - 1
    agree = float((mine.ravel() == other).mean())
    more = f"inertia {excess:+.1e} (wanted ≤ 1e-6), labels agree {agree:.4%}"
    say(f"k-means, {size}³, theirs to {tolerance:g}", a, b, 30, more)


def against_multi_otsu(repeats: int) -> None:
    """multi-Otsu thresholds of a histogram that both are given."""
    counts = histogram(phases(np.random.default_rng(1), (20, 256, 256))) + 1
    _, weights = binned(counts, 256)
    bins = np.arange(256.0)
    mine, other, a, b = paired(
        repeats,
        lambda: bins[multi_otsu(bins, weights, 5)[-1]],
        lambda: threshold_multiotsu(hist=(weights, bins), classes=5),
    )
    say("multi-Otsu, 5 classes, 256 bins", a, b, 100, f"thresholds {mine.tolist()}, {other.tolist()}")
    started = time.perf_counter()
    multi_otsu(*binned(counts, 65536), 10)
    print(
        f"{'multi-Otsu, 10 classes, 65,535 bins':34} {time.perf_counter() - started:9.4f} s  (wanted < 1)", flush=True
    )


def against_mixture(n: int, repeats: int) -> None:
    """Gaussian mixture of voxels in memory."""
    grey = phases(np.random.default_rng(2), (20, n // 20))
    voxels = grey.reshape(-1, 1).astype(np.float64)
    mine, other, a, b = paired(
        repeats,
        lambda: gaussian_mixture(*rebin(histogram(grey)), 4),
        lambda: GaussianMixture(4, random_state=0).fit(voxels),
    )
    density = np.logaddexp.reduce(mine.log_density(np.arange(65536.0)), axis=0)
    gain = float(density[grey].mean()) - other.score(voxels)
    say(f"Gaussian mixture, {n:,} voxels", a, b, 50, f"log-likelihood per voxel {gain:+.1e}")


def features_against_kmeans() -> None:
    """Mean IoU on three phases 0.8 σ apart under cupping of 2 σ, with and without `normalize.shading: cupping`."""
    rng = np.random.default_rng(0)
    shape = (16, 192, 192)
    field = gaussian_filter(rng.normal(size=shape), 5)
    truth = np.digitize(field, np.quantile(field, [0.4, 0.75]))
    y, x = np.ogrid[-1 : 1 : shape[1] * 1j, -1 : 1 : shape[2] * 1j]
    raw = (0.8 * truth + 2 * (y * y + x * x) + rng.normal(size=shape)).astype(np.float32)
    source = Source("array", shape, raw.dtype, [], lambda *w: raw[w[0] : w[1], w[2] : w[3], w[4] : w[5]])
    scan: dict[str, Any] = {"fov": {"kind": "full"}}
    print("mean IoU, phases 0.8 σ apart, cupping of 2 σ")
    for name in ("none", "cupping"):
        if name != "none":
            scan["correction"] = estimate(source, scan["fov"], {**CORRECTION, "shading": name})
        values = corrected(source, scan).read(0, shape[0])
        grey = normalize_block(values, {"range": np.percentile(values, [0.1, 99.9]).tolist(), "fov": scan["fov"]})
        volume = ArrayVolume(grey)
        by_grey = label_levels(histogram(grey), {**SETTINGS, "n_clusters": 3}, 0)[grey]
        scores = [mean_iou(by_grey, truth)]
        for background in (FEATURES["background_px"], 0):
            settings = {**FEATURES, "background_px": background}
            model, _ = cluster_features(*sample_features([volume], settings, 0), 3, settings, 0)
            scores.append(mean_iou(FeatureVolume(volume, model).read(0, shape[0]), truth))
        print(
            f"  shading: {name:8} k-means {scores[0]:.3f}; features {scores[1]:.3f} ({scores[1] / scores[0]:.2f} ×), "
            f"without their own background {scores[2]:.3f} ({scores[2] / scores[0]:.2f} ×)"
        )


def mean_iou(labels: np.ndarray, truth: np.ndarray) -> float:
    """Over three classes, clusters matched to them one to one."""
    counts = np.bincount(3 * labels.ravel().astype(int) + truth.ravel(), minlength=9).reshape(3, 3)
    iou = counts / (counts.sum(axis=0) + counts.sum(axis=1)[:, None] - counts)
    return float(iou[linear_sum_assignment(-iou)].mean())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--voxels", type=int, default=200_000)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    print(f"{'':34} {'ours':>9}    {'theirs':>9}     {'ratio':>8}")
    for tolerance in (1e-4, 0.0):
        against_kmeans(given.size, given.repeats, tolerance)
    against_multi_otsu(given.repeats)
    against_mixture(given.voxels, given.repeats)
    features_against_kmeans()
