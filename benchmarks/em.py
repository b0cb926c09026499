"""Four labelled slices of a serial-section EM stack: what each step of the EM poster adds, and stage 3.

    python benchmarks/em.py FOLDER [--scale smoke|cpu|full] [--directory DIR] [--cores N] [--dry-run]

FOLDER holds `raw` and `mitochondria`, 20 slices each, of groundtruth-drosophila-vnc (figshare 856713). A study is
written to DIR and run there; Dice and IoU are of the 16 slices that are not labelled.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import yaml

BASEDIR = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(BASEDIR / "scripts"))

from beamseg.readers import open_labels  # noqa: E402
from beamseg.study import run_study  # noqa: E402

VOXEL_UM = [0.045, 0.0046, 0.0046]


def study_of(folder: Path) -> dict[str, Any]:
    """The study: cells of the poster's ablation and stage 3, for slices of 45 nm. Every value above 0 is the class."""
    masks = open_labels(folder / "mitochondria", None)
    values = {int(v) for z in range(masks.shape[0]) for v in np.unique(masks.read(z, z + 1))}
    classes = {str(value): int(value > 0) for value in sorted(values | {0})}
    metrics = [f"product.classes.mitochondrion.{name}" for name in ("dice", "iou")]
    return {
        "title": "Mitochondria of a serial-section stack from four labelled slices",
        "about": "Slices 2, 7, 12 and 17 of 20, 45 nm apart, are labelled. SCM sees 5 masks, MPP ±1, without sweeps.",
        "base": {
            "preset": "slices",
            "path": str(folder / "raw"),
            "voxel_size_um": VOXEL_UM,
            "truth": str(folder / "mitochondria"),
            "labels": {
                "path": str(folder / "mitochondria"),
                "every": 5,
                "map": classes,
            },
            "evaluate": {
                "truth_map": classes,
                "truth_names": {"0": "background", "1": "mitochondrion"},
            },
            "refine_mpp": {"support": 1, "anchor_reach": 0},
            "refine_scm": {"adjacent_slices": 5},
        },
        "cells": {
            "unet": {"train.piecewise_affine.scale": 0, "refine": []},
            "affine": {"refine": []},
            "mpp": {"refine": ["mpp"]},
            "scm": {"refine": ["mpp", "scm"]},
            "stage3": {"refine": [], "stage3": "unbiased_teacher"},
            "stage3_scm": {"refine": ["mpp", "scm"], "stage3": "unbiased_teacher"},
        },
        "scales": {
            "smoke": {
                "set": {
                    "train": {"steps": 4, "batch": 2, "crop": 64},
                    "self_correct": {"steps": 4, "batch": 2},
                    "refine_scm": {"steps": 4, "batch": 2, "crop": 32},
                },
                "seeds": [0],
                "cells": ["unet", "stage3_scm"],
            },
            "cpu": {
                "set": {"train": {"steps": 800, "batch": 8, "crop": 128}, "self_correct": {"steps": 400, "batch": 8}},
                "seeds": [0, 1, 2],
            },
            "full": {"seeds": [0, 1, 2, 3, 4]},
        },
        "show": metrics,
        "paper": {
            "columns": metrics,
            "rows": {"unet": [90.5, 82.6], "affine": [92.5, 86.9], "mpp": [93.6, 88.0], "scm": [94.2, 89.0]},
        },
        "paper_note": "The poster's ablation, of the isotropic EPFL stack; levels are not to be compared.",
    }


def main() -> int:
    """Write the study and run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scale", choices=("smoke", "cpu", "full"), default="cpu")
    parser.add_argument("--directory", type=Path, default=Path())
    parser.add_argument("--cores")
    parser.add_argument("--dry-run", action="store_true")
    given = parser.parse_args()
    path = given.directory / "vnc_slices.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(study_of(given.folder.resolve()), sort_keys=False))
    return run_study(str(path), given.scale, given.directory, BASEDIR, cores=given.cores, dry_run=given.dry_run)


if __name__ == "__main__":
    sys.exit(main())
