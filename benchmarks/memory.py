"""Peak memory of each stage that visits every voxel, against the number of slices; it should stay the same to 10 %.

usage: python benchmarks/memory.py [--slices 64 256] [--edge 128] [--stages histogram normalize …]

At size: --slices 512 4096 --edge 512. Each stage and size is a process of its own (ru_maxrss). The scan is a sparse
HDF5 file: chunks of noise every 64 slices, the rest is its fill value. Labels are made where they are read, so only
what a stage writes is on disk. `segment` and `refine_scm` run untrained networks, and take by far the longest: half an
hour each on 2 cores.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from beamseg.histogram import histogram
from beamseg.ingest import ingest
from beamseg.normalize import normalize
from beamseg.plan import plan
from beamseg.provenance import write_json

EVERY = 64
CROP, N_SLICES, CLASSES = 96, 7, 4
CORRECT = {
    "shading": "background",
    "shading_by": "subtract",
    "background_sigma": 20.0,
    "rings": "polar",
    "ring_width": 15,
    "denoise": "median",
    "denoise_strength": 1.0,
    "z_continuous": True,
}
PLAN = {"percentiles": [0.1, 99.9], "range": None, "warn_drift": 1.0, "warn_cupping": 1.0, "warn_rings": 1.0}
PART = {"slab_depth": 128, "part": "1-of-1", "identity": "benchmark"}


class Made:
    """A volume of repeated noise below `top`, made where it is read."""

    def __init__(self, shape: tuple[int, int, int], top: int, dtype: type) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self._tile = np.random.default_rng(0).integers(1, top, (16, *shape[1:])).astype(dtype)

    def read(self, z0: int, z1: int, y: slice = slice(None), x: slice = slice(None)) -> np.ndarray:
        """The window, as of any volume."""
        return self._tile[np.arange(max(0, z0), min(self.shape[0], z1)) % 16, y, x]


def sparse_scan(folder: Path, shape: tuple[int, int, int], correct: dict[str, Any] | None) -> tuple[Path, Path]:
    """A scan taken in: scan.json and its folder."""
    with h5py.File(folder / "scan.h5", "w") as file:
        data = file.create_dataset("data", shape, np.float32, chunks=(8, *shape[1:]), fillvalue=1.0)
        noise = np.random.default_rng(0).normal(0, 1, (8, *shape[1:])).astype(np.float32)
        for z in range(0, shape[0], EVERY):
            data[z : z + 8] = noise[: shape[0] - z]
    settings = {"fov": {"kind": "full"}, "slab_depth": PART["slab_depth"]}
    scan = folder / "scan.json"
    ingest(folder / "scan.h5", None, settings, scan, folder / "source.json", name="a", correct=correct)
    return scan, folder


def run_histogram(folder: Path, shape: tuple[int, int, int], correct: dict[str, Any] | None = None) -> None:
    """Stage histogram."""
    scan, _ = sparse_scan(folder, shape, correct)
    histogram(scan, folder / "histogram.npz", threads=2)


def run_normalize(folder: Path, shape: tuple[int, int, int], correct: dict[str, Any] | None = None) -> None:
    """Stage normalize, with the grey range given."""
    scan, _ = sparse_scan(folder, shape, correct)
    write_json(folder / "plan.json", {"range": [-3.0, 3.0], "bits": 16})
    settings = {"materialize": "always", "scratch_mb": float("inf"), "mem_budget_mb": 4000}
    normalize(folder / "n" / "1-of-1.json", scan, folder / "plan.json", settings, "1-of-1", "benchmark", threads=2)


def run_plan(folder: Path, shape: tuple[int, int, int]) -> None:
    """Stages histogram and plan."""
    scan, _ = sparse_scan(folder, shape, None)
    histogram(scan, folder / "histogram.npz", threads=2)
    plan([scan], [folder / "histogram.npz"], folder / "plan.json", PLAN)


def run_segment(folder: Path, shape: tuple[int, int, int]) -> None:
    """Stage segment, with the default network, untrained."""
    from beamseg.models import build_model, save_weights
    from beamseg.segment import segment

    name = "unet_noskip"
    meta = {"name": name, "in_channels": N_SLICES, "n_classes": CLASSES, "options": {}, "crop": CROP}
    save_weights(folder / "w.safetensors", build_model(name, N_SLICES, CLASSES), meta)
    grey = Made(shape, 65535, np.uint16)
    segment(
        folder / "s" / "1-of-1.json", grey, folder / "w.safetensors", settings={"overlap": 0.25}, stage="stage2", **PART
    )


def run_refine_mpp(folder: Path, shape: tuple[int, int, int]) -> None:
    """Stage refine_mpp."""
    from beamseg.refine_mpp import refine_mpp

    settings = {"support": 1, "sheet_px": 30, "min_volume_um3": None, "warn_fraction": 1.0}
    settings |= {"anchor_reach": 4, "erode_px": 1}
    refine_mpp(
        folder / "m" / "1-of-1.json",
        Made(shape, CLASSES, np.uint8),
        CLASSES,
        settings=settings,
        voxel_size_um=None,
        **PART,
    )


def run_refine_scm(folder: Path, shape: tuple[int, int, int]) -> None:
    """Stage refine_scm, with an untrained network."""
    from beamseg import scm
    from beamseg.refine_scm import refine_scm

    scm.save(scm.SCM(N_SLICES, CLASSES, 16), folder / "scm.safetensors")
    labels = Made(shape, CLASSES, np.uint8)
    where = {"device": "auto", "mpp": labels, "settings": {"warn_fraction": 1.0}}
    refine_scm(folder / "c" / "1-of-1.json", labels, folder / "scm.safetensors", **where, **PART)


def run_evaluate(folder: Path, shape: tuple[int, int, int]) -> None:
    """Stage evaluate, with truth."""
    from beamseg.evaluate import evaluate

    labels = Made(shape, CLASSES, np.uint8)
    evaluate(
        {"pseudo_labels": labels, "stage2": labels},
        n_clusters=CLASSES,
        settings={"truth_map": {}, "truth_names": {}, "background": [0]},
        out_json=folder / "metrics.json",
        out_csv=folder / "metrics.csv",
        truth=labels,
        mem_budget_mb=64,
    )


def run_assign(folder: Path, shape: tuple[int, int, int], labeler: str = "kmeans") -> None:
    """Stage assign: a table per slice, or clusters of features that were fitted to a sample."""
    from beamseg.assign import assign
    from beamseg.features import cluster_features, sample_features

    grey = Made(shape, 65535, np.uint16)
    scope = "volume" if labeler == "features" else "slice"
    settings = {"labeler": labeler, "scope": scope, "n_clusters": CLASSES, "bins": 256}
    classes: dict[str, Any] = {"clusters": [{"centroid": 10000.0 * (1 + i)} for i in range(CLASSES)]}
    if labeler == "features":
        options = {
            "use": ["grey", "smooth"],
            "background_px": 50,
            "scales_px": [1, 2, 4],
            "dimensions": 3,
            "sample_voxels": 20000,
        }
        sample, levels = sample_features([Made((64, *shape[1:]), 65535, np.uint16)], options, 0)
        classes["features"], _ = cluster_features(sample, levels, CLASSES, options, 0)
    assign(folder / "a" / "1-of-1.json", grey, classes, settings=settings, seed=0, threads=2, **PART)


def run_export(folder: Path, shape: tuple[int, int, int], formats: tuple[str, ...] = ("tiff",)) -> None:
    """Stage export."""
    from beamseg.export import export
    from beamseg.palette import class_table

    export(
        Made(shape, CLASSES, np.uint8),
        table=class_table(CLASSES, {}),
        stage={"stage": "scm", "reason": "last of the chain"},
        voxel_size_um=(1.0, 1.0, 1.0),
        folder=folder / "labels",
        out_json=folder / "labels.json",
        formats=formats,
        mem_budget_mb=64,
    )


STAGES: dict[str, Callable[..., None]] = {
    "histogram": run_histogram,
    "histogram, corrected": lambda folder, shape: run_histogram(folder, shape, CORRECT),
    "plan": run_plan,
    "normalize": run_normalize,
    "normalize, corrected": lambda folder, shape: run_normalize(folder, shape, CORRECT),
    "segment": run_segment,
    "refine_mpp": run_refine_mpp,
    "refine_scm": run_refine_scm,
    "evaluate": run_evaluate,
    "assign, slice": run_assign,
    "assign, features": lambda folder, shape: run_assign(folder, shape, "features"),
    "export": run_export,
    "export, others": lambda folder, shape: run_export(
        folder, shape, ("bigtiff", "nexus", "nexus_virtual", "mrc", "ome_zarr")
    ),
}


def peak_mb(stage: str, shape: tuple[int, int, int]) -> float:
    """Peak memory of a stage in a process of its own, MiB."""
    command = [sys.executable, __file__, "--alone", stage, json.dumps(shape)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{stage} at {shape}: {done.stderr[-2000:]}")
    return float(done.stdout.split()[-1])


def main() -> None:
    """Print MiB per stage and size, and the ratio of the largest size to the smallest."""
    if sys.argv[1:2] == ["--alone"]:
        with tempfile.TemporaryDirectory() as folder:
            STAGES[sys.argv[2]](Path(folder), tuple(json.loads(sys.argv[3])))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--edge", type=int, default=128)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    args = parser.parse_args()
    print(f"{'MiB at slices of':24}" + "".join(f"{n:>10}" for n in args.slices) + f"{'ratio':>10}")
    for stage in args.stages:
        peaks = [peak_mb(stage, (n, args.edge, args.edge)) for n in args.slices]
        print(f"{stage:24}" + "".join(f"{p:10.0f}" for p in peaks) + f"{peaks[-1] / peaks[0]:10.3f}", flush=True)


if __name__ == "__main__":
    main()
