"""Accuracy and mean IoU of a run's product against what a user would do without it: filter, then threshold.

usage: python benchmarks/against_thresholds.py RESULTS SAMPLE [SAMPLE ...]

Each SAMPLE is a finished run on a phantom. The scan is read whole, filtered in 3-D with scikit-image and SciPy, cut by
multi-Otsu into as many classes as the truth has, and measured exactly as the workflow measures its stages.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
from scipy.ndimage import gaussian_filter, median_filter
from skimage.filters import threshold_multiotsu
from skimage.restoration import denoise_tv_chambolle

from beamseg.evaluate import evaluate
from beamseg.provenance import read_json
from beamseg.volumes import ArrayVolume

FILTERS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "multi-Otsu": lambda scan: scan,
    "median 3³, multi-Otsu": lambda scan: median_filter(scan, 3),
    "Gaussian σ 1, multi-Otsu": lambda scan: gaussian_filter(scan, 1),
    "Gaussian σ 2, multi-Otsu": lambda scan: gaussian_filter(scan, 2),
    "total variation, multi-Otsu": lambda scan: denoise_tv_chambolle(scan, weight=0.1),
    "background σ 25 subtracted, Gaussian σ 1": lambda scan: gaussian_filter(scan - gaussian_filter(scan, 25), 1),
}
SETTINGS = {"truth_map": {}, "truth_names": {}, "background": [0]}


def measure(labels: np.ndarray, truth: np.ndarray, folder: Path) -> tuple[float, float]:
    """Accuracy and mean IoU of a label volume, by the workflow's own evaluation."""
    result = evaluate(
        {"pseudo_labels": ArrayVolume(labels)},
        n_clusters=4,
        settings=SETTINGS,
        out_json=folder / "thresholds.json",
        out_csv=folder / "thresholds.csv",
        truth=ArrayVolume(truth),
    )
    entry = result["stages"]["pseudo_labels"]
    return entry["accuracy"], entry["mean_iou"]


def main(results: Path, samples: list[str]) -> None:
    """Print a row per filter and sample, and the mean over the samples with the product's ratio to it."""
    scores: dict[str, list[tuple[float, float]]] = {}
    for sample in samples:
        with h5py.File(results / sample / "phantom.h5") as file:
            scan = file["exchange/data"][:]
        with h5py.File(results / sample / "phantom_truth.h5") as file:
            truth = file["truth"][:]
        outside = scan == 0
        low, high = np.percentile(scan[~outside], [0.1, 99.9])
        scan = np.clip((scan - low) / (high - low), 0, 1)
        for name, smooth in FILTERS.items():
            started = time.monotonic()
            filtered = smooth(scan)
            labels = np.digitize(filtered, threshold_multiotsu(filtered[~outside], 4)).astype(np.uint8)
            seconds = time.monotonic() - started
            labels[outside] = 255
            scores.setdefault(name, []).append(measure(labels, truth, results / sample))
            print(f"{sample}  {name:42}  {scores[name][-1][0]:.4f}  {scores[name][-1][1]:.4f}  {seconds:.1f} s")
        metrics = read_json(results / sample / "metrics.json")
        entry = metrics["stages"][metrics["product"]["stage"]]
        scores.setdefault("beamseg", []).append((entry["accuracy"], entry["mean_iou"]))
    product = np.mean(scores["beamseg"], axis=0)
    print(f"\n{'mean over samples':42}  accuracy  mean IoU  product's ratio")
    for name, values in scores.items():
        mean = np.mean(values, axis=0)
        print(f"{name:42}  {mean[0]:8.4f}  {mean[1]:8.4f}  {product[0] / mean[0]:.3f}  {product[1] / mean[1]:.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
