"""A bundle of an untrained network, as `bundle` writes it: what the tests of reprocessing share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from beamseg import scm
from beamseg.bundle import bundle
from beamseg.models import build_model, save_weights
from beamseg.provenance import file_digest, read_json, write_json

N_CLASSES = 3
TABLE = np.concatenate([[255], np.repeat([0, 1, 2], 21845)]).astype(np.uint8)


def histogram(path: Path, counts: np.ndarray, lo: float = 0.0, hi: float = 100.0) -> Path:
    """A histogram of bins between lo and hi, with nothing beyond."""
    none = np.array(0)
    edges = np.linspace(lo, hi, len(counts) + 1)
    np.savez(path, edges=edges, counts=counts, underflow=none, overflow=none, low=np.array(lo), high=np.array(hi))
    return path


def write_bundle(
    folder: Path,
    with_scm: bool = True,
    settings: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
) -> Path:
    """A bundle of three classes, trained on one scan of 100 grey values spread evenly; returns its folder."""
    options = {"dropout": 0.1} | (options or {})
    parts = folder / "parts"
    parts.mkdir(parents=True)
    torch.manual_seed(0)
    model = build_model("unet_noskip", 3, N_CLASSES, **options)
    meta = {"name": "unet_noskip", "in_channels": 3, "n_classes": N_CLASSES, "options": options, "crop": 32}
    save_weights(parts / "w.safetensors", model, {**meta, "stage": "stage3"})
    scm.save(scm.SCM(5, N_CLASSES, 8), parts / "scm.safetensors")
    plan = {"range": [0.0, 100.0], "bits": 16, "clipped": {"low": 0.0, "high": 0.0}, "scans": {}, "warnings": []}
    write_json(parts / "plan.json", plan)
    clusters = [{"id": i, "centroid": 1.0, "intervals": [[1, 9]], "fraction": 1 / 3} for i in range(3)]
    elbow = {"k": [2, 3], "inertia": [0.3, 0.1], "separation": [3.5, None]}
    classes = {"n_clusters": 3, "labeler": "kmeans", "clusters": clusters, "elbow": elbow, "warnings": []}
    write_json(parts / "classes.json", classes)
    write_json(
        parts / "scan.json", {"name": "old", "shape": [8, 9, 9], "dtype": "uint16", "voxel_size_um": [1.0, 1.0, 1.0]}
    )
    np.save(parts / "table.npy", TABLE)
    (parts / "train.csv").write_text("step,loss\n1,0.5\n2,0.25\n")
    bundle(
        folder / "bundle" / "bundle.json",
        weights=parts / "w.safetensors",
        plan=parts / "plan.json",
        classes=parts / "classes.json",
        table=parts / "table.npy",
        curves=parts / "train.csv",
        scans=[parts / "scan.json"],
        histograms=[histogram(parts / "histogram.npz", np.full(100, 50))],
        class_table=[],
        settings=settings
        or {
            "plan": {"normalize.dtype": "uint8"},
            "train": {
                "model": {"name": "unet_noskip", "n_slices": 3, "dropout": 0.1},
                "labels": {"path": "/home/me/l.tif"},
            },
            "pseudo_label": {"pseudo_label": {"n_clusters": 3}, "seed": 7},
            "bundle": {"classes": {"solid": {"clusters": [1, 2]}}, "refine": ["mpp", "scm"] if with_scm else ["mpp"]},
            "corrections": None,
        },
        verdict={"use": "stage3", "reason": "it passed"},
        scm=parts / "scm.safetensors" if with_scm else None,
    )
    return folder / "bundle"


def sign(folder: Path, *names: str) -> None:
    """Put the digests of altered files into the index, as a forger would."""
    index = read_json(folder / "bundle.json")
    index["files"] |= {name: file_digest(folder / name) for name in names}
    write_json(folder / "bundle.json", index)


def split(path: Path) -> tuple[dict[str, Any], bytes]:
    """Header and data of a safetensors file."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def join(path: Path, header: dict[str, Any] | str, data: bytes) -> None:
    """Write a safetensors file of a header, or of its text, and data that need not fit each other."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def rewrite_header(path: Path, edit: Any) -> None:
    """Edit the JSON header of a safetensors file, its data left as they are."""
    header, data = split(path)
    edit(header)
    join(path, header, data)


def describe(folder: Path, name: str, change: dict[str, Any]) -> None:
    """Put other entries into the description of the network in a bundle's weights, and sign it."""

    def lie(header: dict[str, Any]) -> None:
        header["__metadata__"]["model"] = json.dumps(json.loads(header["__metadata__"]["model"]) | change)

    rewrite_header(folder / name, lie)
    sign(folder, name)
