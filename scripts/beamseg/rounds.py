"""Rounds of training with more labels each time: the weights of each are kept, and what they gained."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .device import choose
from .losses import SUGGESTED
from .metrics import iou_matrix
from .models import load_weights
from .predict import predict_slices
from .provenance import atomic_path, read_json, write_json
from .volumes import Volume

FOLDER = "rounds"
OVERLAP = {"overlap": 0.5}


def ledger(weights: Path) -> list[dict[str, Any]]:
    """Entries of the rounds beside a weights file, the first round first."""
    path = weights.parent / FOLDER / "rounds.json"
    return list(read_json(path)["rounds"]) if path.exists() else []


def previous(weights: str | Path, identity: str) -> Path | None:
    """Weights of the last round of another identity, that is of other labels; None before the second round."""
    weights = Path(weights)
    earlier = [entry for entry in ledger(weights) if entry["identity"] != identity]
    return weights.parent / FOLDER / earlier[-1]["weights"] if earlier else None


def agreement(
    weights: str | Path, volumes: Sequence[Volume], labels: Sequence[Volume], n_classes: int, device: str
) -> dict[str, Any]:
    """How a network labels the painted pixels: their number, the share that it gets right, mean IoU of their classes.

    Parameters
    ----------
    volumes, labels : sequence of Volume
        uint16 grey levels, and uint8 labels with 255 where nothing is painted; only slices in `slices` are read.
    """
    compute = choose(device)
    model, meta = load_weights(weights, compute.device)
    counts = np.zeros((n_classes, n_classes), np.int64)
    for volume, label in zip(volumes, labels, strict=True):
        for z in getattr(label, "slices", range(label.shape[0])):
            painted = label.read(z, z + 1)[0]
            seen = painted < SUGGESTED
            if not seen.any():
                continue
            slices = predict_slices(model, volume, z, z + 1, OVERLAP, compute, meta["crop"], meta["in_channels"])
            found = next(iter(slices))[1]
            pairs = found[seen].astype(np.int64) * n_classes + painted[seen]
            counts += np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)
    present = counts.sum(axis=0) > 0
    right = float(np.trace(counts) / max(1, counts.sum()))
    mean_iou = float(np.diag(iou_matrix(counts))[present].mean()) if present.any() else 0.0
    return {"painted": int(counts.sum()), "accuracy": round(right, 6), "mean_iou": round(mean_iou, 6)}


def keep_round(
    weights: str | Path,
    identity: str,
    volumes: Sequence[Volume],
    labels: Sequence[Volume],
    n_classes: int,
    device: str = "auto",
) -> dict[str, Any]:
    """Copy the weights into `rounds/` and note how well this round's painted pixels are labelled, before and after.

    Before is by the previous round's weights, which never saw what was painted since; None in the first round. A round
    of the same identity takes the place of its first try.
    """
    weights = Path(weights)
    entries = [entry for entry in ledger(weights) if entry["identity"] != identity]
    number = 1 + len(entries)
    earlier = weights.parent / FOLDER / entries[-1]["weights"] if entries else None
    before = None
    if earlier is not None and load_weights(earlier)[1]["n_classes"] == n_classes:
        before = agreement(earlier, volumes, labels, n_classes, device)
    after = agreement(weights, volumes, labels, n_classes, device)
    name = f"{number}.safetensors"
    with atomic_path(weights.parent / FOLDER / name) as temporary:
        shutil.copyfile(weights, temporary)
    entry = {"round": number, "identity": identity, "weights": name, "before": before, "after": after}
    write_json(weights.parent / FOLDER / "rounds.json", {"rounds": [*entries, entry]})
    return entry


def described(entry: dict[str, Any]) -> str:
    """A line for the log."""
    before, after = entry["before"], entry["after"]
    was = "" if before is None else f", {before['mean_iou']:.3f} by the round before"
    return f"round {entry['round']}: mean IoU {after['mean_iou']:.3f} on {after['painted']} painted pixels{was}"
