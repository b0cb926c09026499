"""Rounds of training with more labels each time: weights and painted pixels of each are kept, and what they gained."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .device import choose
from .label_values import SUGGESTED
from .ledger import FOLDER, ledger
from .metrics import iou_matrix
from .models import load_weights
from .predict import predict_slices
from .provenance import atomic_path, write_json
from .volumes import Volume

OVERLAP = {"overlap": 0.5}


def previous(weights: str | Path, identity: str, pixels: dict[str, np.ndarray]) -> Path | None:
    """Weights of the round trained last on other labels; None before there is one.

    Only of rounds all of whose painted pixels are still painted: what was taken back is evaluated, so no network may
    have learned it.

    Parameters
    ----------
    identity : str
        Of the labels.
    pixels : dict
        What is painted now; see `painted_pixels`.
    """
    folder = Path(weights).parent / FOLDER
    for entry in reversed(ledger(Path(weights))):
        there = (folder / entry["weights"]).exists() and (folder / entry["painted"]).exists()
        if entry["identity"] != identity and there and _still_painted(folder / entry["painted"], pixels):
            return folder / entry["weights"]
    return None


def _still_painted(path: Path, pixels: dict[str, np.ndarray]) -> bool:
    with np.load(path) as known:
        return all(
            key in pixels and known[key].shape == pixels[key].shape and not (known[key] & ~pixels[key]).any()
            for key in known.files
        )


def painted_pixels(names: Sequence[str], labels: Sequence[Volume]) -> dict[str, np.ndarray]:
    """Scan and slice, `<name>:<z>`, -> where the user painted, bool (y, x); slices without a stroke are left out."""
    found = {}
    for name, label in zip(names, labels, strict=True):
        for z in getattr(label, "slices", range(label.shape[0])):
            seen = label.read(z, z + 1)[0] < SUGGESTED
            if seen.any():
                found[f"{name}:{z}"] = seen
    return found


def agreement(
    weights: str | Path,
    volumes: Sequence[Volume],
    labels: Sequence[Volume],
    sets: Sequence[dict[str, np.ndarray]],
    names: Sequence[str],
    n_classes: int,
    device: str,
) -> list[dict[str, Any]]:
    """How a network labels sets of pixels: of each their number, the share that is right, mean IoU of their classes.

    Parameters
    ----------
    volumes, labels : sequence of Volume
        uint16 grey levels, and uint8 labels of the scans `names`.
    sets : sequence of dict
        Of them, which; see `painted_pixels`.
    """
    compute = choose(device)
    model, meta = load_weights(weights, compute.device)
    counts = np.zeros((len(sets), n_classes, n_classes), np.int64)
    for key in sorted({key for pixels in sets for key in pixels}):
        name, _, z = key.rpartition(":")
        volume, label = (given[list(names).index(name)] for given in (volumes, labels))
        painted = label.read(int(z), int(z) + 1)[0]
        slices = predict_slices(model, volume, int(z), int(z) + 1, OVERLAP, compute, meta["crop"], meta["in_channels"])
        found = next(iter(slices))[1]
        for own, pixels in zip(counts, sets, strict=True):
            if key in pixels:
                pairs = found[pixels[key]].astype(np.int64) * n_classes + painted[pixels[key]]
                own += np.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)
    return [_measured(own) for own in counts]


def _measured(counts: np.ndarray) -> dict[str, Any]:
    present = counts.sum(axis=0) > 0
    right = float(np.trace(counts) / max(1, counts.sum()))
    mean_iou = float(np.diag(iou_matrix(counts))[present].mean()) if present.any() else 0.0
    return {"painted": int(counts.sum()), "accuracy": round(right, 6), "mean_iou": round(mean_iou, 6)}


def keep_round(
    weights: str | Path,
    identity: str,
    volumes: Sequence[Volume],
    labels: Sequence[Volume],
    names: Sequence[str],
    n_classes: int,
    device: str = "auto",
) -> dict[str, Any]:
    """Copy the weights into `rounds/` and note how well painted pixels are labelled, before and after.

    Before is by the round that this one began with (see `previous`), None without one, and after by this round; each on
    `all` that is painted, and on what is `new`, painted in no other round (None where nothing is). Before, of the new
    ones alone, is of pixels that the network had not learned, and where these were prefilled what the user left as it
    was counts as right; after is of pixels that were trained on. Labels that come back keep their number.

    Parameters
    ----------
    identity : str
        Of the labels.
    names : sequence of str
        Of the scans, whose order may change.
    """
    weights = Path(weights)
    folder = weights.parent / FOLDER
    everything = ledger(weights)
    entries = [entry for entry in everything if entry["identity"] != identity]
    of_labels = {entry["identity"]: int(entry["round"]) for entry in everything}
    number = of_labels.get(identity, 1 + max(of_labels.values(), default=0))

    pixels = painted_pixels(names, labels)
    new = dict(pixels)
    for path in (folder / entry["painted"] for entry in entries):
        with np.load(path) as known:
            new |= {key: new[key] & ~known[key] for key in new.keys() & set(known.files)}
    new = {key: seen for key, seen in new.items() if seen.any()}
    last = previous(weights, identity, pixels)
    if last is not None and load_weights(last)[1]["n_classes"] != n_classes:
        last = None
    rest = (volumes, labels, [pixels, new], names, n_classes, device)
    after = agreement(weights, *rest)
    before = [None, None] if last is None else agreement(last, *rest)
    measured: dict[str, Any] = {
        key: {"before": b, "after": a} for key, b, a in zip(("all", "new"), before, after, strict=True)
    }
    if not new or last is None:
        measured["new"] = None

    with atomic_path(folder / f"{number}.safetensors") as temporary:
        shutil.copyfile(weights, temporary)
    kept: dict[str, Any] = dict(pixels)
    with atomic_path(folder / f"{number}.npz") as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **kept)
    entry = {"round": number, "identity": identity, "weights": f"{number}.safetensors", "painted": f"{number}.npz"}
    entry |= measured
    write_json(folder / "rounds.json", {"rounds": [*entries, entry]})
    return entry
