"""Measure five stages against a truth from slab files, against reading the same slabs and doing nothing.

usage: python benchmarks/evaluate.py [--slices 32] [--edge 1024] [--pairs 3] [--confusion-matrix]

`reading` is the time of reading alone over that of counting: 1 would be the limit of disk and decompression. With
--confusion-matrix also how long scikit-learn's `confusion_matrix` takes for the five stages against the truth, from
memory, without the ten comparisons of stages with each other, profiles, confidence and least certain regions.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from beamseg.count import count, windows
from beamseg.metrics import STAGES
from beamseg.slabs import SlabVolume, SlabWriter, run_slabs

CLASSES, BUDGET_MB = 4, 512


def make(folder: Path, shape: tuple[int, int, int]) -> dict[str, SlabVolume]:
    """Blocks of 16 px with a tenth of noise of each stage's own, and confidence in 24 steps, as segment stores it."""
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, CLASSES, (shape[1] // 16, shape[2] // 16)).repeat(16, 0).repeat(16, 1)[None]
    made = {}
    for name in (*STAGES, "truth", "confidence"):

        def fill(z0: int, z1: int, writer: SlabWriter, name: str = name) -> None:
            size = (z1 - z0, *shape[1:])
            values = np.where(rng.random(size) < 0.1, rng.integers(0, CLASSES, size), blocks)
            if name == "confidence":
                values = rng.integers(0, 24, size) * 11
            writer.put("labels", z0, values.astype(np.uint8))

        manifest = folder / name / "1-of-1.json"
        options = {"identity": name, "shape": shape, "depth": 16, "dtypes": {"labels": np.uint8}, "fill": fill}
        run_slabs(manifest, stage=name, **options)
        made[name] = SlabVolume([manifest], "labels")
    return made


def main() -> None:
    """Print millions of voxels per second, and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=32)
    parser.add_argument("--edge", type=int, default=1024)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--confusion-matrix", action="store_true")
    args = parser.parse_args()
    shape = (args.slices, args.edge // 16 * 16, args.edge // 16 * 16)
    millions = np.prod(shape) / 1e6
    to_class = np.full(256, 255, np.uint8)
    to_class[:CLASSES] = np.arange(CLASSES)
    with tempfile.TemporaryDirectory() as name:
        volumes = make(Path(name), shape)
        stages = {stage: volumes[stage] for stage in STAGES}
        ratios = []
        for _ in range(args.pairs):
            started = time.monotonic()
            for z0, z1, rows in windows(shape, 34, BUDGET_MB, [(0, shape[0])]):
                for volume in volumes.values():
                    volume.read(z0, z1, rows)
            reading = time.monotonic() - started
            started = time.monotonic()
            count(stages, to_class, volumes["truth"], None, volumes["confidence"], mem_budget_mb=BUDGET_MB)
            ours = time.monotonic() - started
            ratios.append(reading / ours)
            print(f"evaluate {millions / ours:.1f} Mvoxel/s, reading alone {millions / reading:.1f}")
        print(f"reading {statistics.median(ratios):.2f}")
        if args.confusion_matrix:
            from sklearn.metrics import confusion_matrix

            truth, *others = (volumes[name].read(0, shape[0]).ravel() for name in ("truth", *STAGES))
            started = time.monotonic()
            for labels in others:
                confusion_matrix(truth, labels, labels=range(CLASSES))
            print(f"confusion_matrix {millions / (time.monotonic() - started):.1f} Mvoxel/s")


if __name__ == "__main__":
    main()
