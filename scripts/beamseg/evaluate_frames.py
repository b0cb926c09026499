"""Masks and angles against a human's: the frames kept for the test, and the truth where there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .contact_angle import CLASSES, measure
from .errors import InputError
from .frames import read_mask
from .metrics import contingency, scores
from .provenance import read_json, write_json

DEFINITIONS = {
    "accuracy": "pixels of the right class over all pixels",
    "angle": "difference of the angle on the mask from that measured on the human's mask, degrees",
    "mean IoU and mean Dice": "over background, wire and droplet that are in the human's masks",
}


def evaluate_frames(
    masks: str | Path,
    geometry: str | Path,
    tested: dict[str, Path],
    out: str | Path,
    *,
    grey_to_class: dict[int, int],
    seed: int,
) -> None:
    """Compare the masks of `tested` frames with a human's.

    Parameters
    ----------
    masks : path
        Manifest of `segment_frames`.
    geometry : path
        CSV of `contact_angle`.
    tested : dict
        Frame -> the human's mask, of frames that no training has seen.
    out : path
        JSON: `stages.frames` with accuracy, mean_iou, mean_dice and, per class, iou and dice; `angle` with mse, rmse,
        bias (degrees), how many frames were measured on both masks, and of how many the human's angle lies in the
        interval; `frames` tested.
    grey_to_class : dict
        Grey value in the human's masks -> class.
    seed : int

    Raises
    ------
    InputError
        For a mask that cannot be read, has an unknown value or another size than its frame.
    """
    manifest = read_json(masks)
    own_classes = {int(grey): c for grey, c in manifest["grey"].items()}
    table = pd.read_csv(geometry, dtype={"frame": str})
    columns = [table[f"{key}_deg"].to_numpy(float) for key in ("angle", "angle_low", "angle_high")]
    measured = dict(zip(table["frame"], zip(*columns, strict=True), strict=True))
    n = len(CLASSES)
    counts, left_out = np.zeros((n, n), np.int64), np.zeros(n, np.int64)
    errors, covered, frames = [], [], []
    for name, file in tested.items():
        truth = read_mask(file, grey_to_class, n)
        found = read_mask(Path(masks).parent / manifest["frames"][name]["file"], own_classes, n)
        if truth.shape != found.shape:
            raise InputError(file, f"a mask of {truth.shape}", f"its frame's size, {found.shape}", "export it again")
        pairs = contingency(found, truth)
        counts += pairs[:n, :n]
        human = measure(truth, seed).angle_deg
        angle, low, high = map(float, measured[name])
        frames.append({"name": name, "human_deg": human, "angle_deg": angle if np.isfinite(angle) else None})
        if human is not None and np.isfinite(angle):
            errors.append(angle - human)
            covered.append(low <= human <= high)
    result: dict[str, Any] = {
        "stages": {},
        "angle": {},
        "frames": frames,
        "lost_classes": {},
        "definitions": DEFINITIONS,
    }
    if tested:
        found_scores = scores(counts, left_out, [False] * n)
        per_class = {
            name: {key: found_scores[key][index] for key in ("iou", "dice")} for index, name in enumerate(CLASSES)
        }
        accuracy = float(np.trace(counts) / max(1, counts.sum()))
        means = {key: found_scores[key] for key in ("mean_iou", "mean_dice")}
        result["stages"]["frames"] = {"accuracy": accuracy, **means, "classes": per_class}
    if errors:
        difference = np.array(errors)
        result["angle"] = {
            "mse": float((difference**2).mean()),
            "rmse": float(np.sqrt((difference**2).mean())),
            "bias": float(difference.mean()),
            "n": len(errors),
            "covered": int(sum(covered)),
        }
    write_json(out, result)
