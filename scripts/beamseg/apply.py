"""apply: take over a bundle in place of a group's training."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from .bundle_files import OWN, read_header, read_index, verify
from .errors import InputError
from .models import build_model
from .provenance import atomic_path, write_json
from .scm import SCM

MAX_SIZE = 4096
"""Greatest number that a network's description may hold: channels, pixels of a crop."""


def apply(folder: str | Path, out: dict[str, str | Path]) -> None:
    """Look at a whole bundle and write what the stages downstream read.

    Parameters
    ----------
    folder : path
        The bundle; see `bundle`.
    out : dict
        What to write, of: index (its bundle.json), plan, classes, table (npy), arrays, weights, curves (CSV), scm.

    Raises
    ------
    InputError
        For whatever `bundle_files` refuses, and weights that are not those of the network they are said to be.
    """
    folder = Path(folder)
    index = read_index(folder)
    held = verify(folder, index)
    n_classes = check_network(folder / "model.safetensors")
    if n_classes != held["classes"]["n_clusters"]:
        found = f"{n_classes} classes, {held['classes']['n_clusters']} clusters"
        raise InputError(folder / "model.safetensors", found, "as many classes as clusters", OWN)
    check_features(folder / "classes.json", held["classes"].get("features"))
    if "scm.safetensors" in index["files"]:
        check_scm(folder / "scm.safetensors", n_classes)
    copied = {"arrays": "arrays.safetensors", "weights": "model.safetensors", "scm": "scm.safetensors"}
    for name in copied.keys() & out.keys():
        with atomic_path(out[name]) as temporary:
            shutil.copyfile(folder / copied[name], temporary)
    for name in ("plan", "classes"):
        if name in out:
            write_json(out[name], held[name])
    if "table" in out:
        with atomic_path(out["table"]) as temporary, open(temporary, "wb") as file:
            np.save(file, held["table"])
    if "curves" in out:
        with atomic_path(out["curves"]) as temporary:
            pd.DataFrame(held["curves"]["rows"], columns=held["curves"]["columns"]).to_csv(temporary, index=False)
    if "index" in out:
        write_json(out["index"], index)


def described(path: Path, sizes: tuple[str, ...]) -> dict[str, Any]:
    """The metadata entry `model` of a weights file, its `sizes` being whole numbers within bounds."""
    try:
        meta = json.loads(read_header(path)["__metadata__"]["model"])
        numbers = [meta[key] for key in sizes]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(path, f"no description of the network ({error!r})", "the entry `model`", OWN) from error
    for key, value in zip(sizes, numbers, strict=True):
        if not isinstance(value, int) or not 1 <= value <= MAX_SIZE:
            raise InputError(path, f"{key} {str(value)[:40]}", f"1 … {MAX_SIZE}", OWN)
    return dict(meta)


def check_network(path: Path) -> int:
    """Number of classes of the segmentation network in a file; refuses one that is not what its description says."""
    meta = described(path, ("in_channels", "n_classes", "crop"))
    options = meta.get("options")
    if not isinstance(options, dict) or not all(_is_small(value) for value in options.values()):
        raise InputError(path, f"options {str(options)[:80]}", f"numbers up to {MAX_SIZE}", OWN)
    try:
        with torch.device("meta"):
            model = build_model(str(meta.get("name")), meta["in_channels"], meta["n_classes"], **options)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(path, f"options {str(options)[:80]} ({error})", "those of the network", OWN) from error
    _check_shapes(path, model)
    return int(meta["n_classes"])


def check_scm(path: Path, n_classes: int) -> None:
    """Refuse SCM weights that are not what their description says, or are of another number of classes."""
    meta = described(path, ("n_slices", "n_classes", "width"))
    if meta.get("name") != "scm" or meta["n_classes"] != n_classes:
        found = f"{str(meta.get('name'))[:40]!r} of {meta['n_classes']} classes"
        raise InputError(path, found, f"an SCM of {n_classes} classes", OWN)
    with torch.device("meta"):
        model = SCM(meta["n_slices"], meta["n_classes"], meta["width"])
    _check_shapes(path, model)


def _check_shapes(path: Path, model: nn.Module) -> None:
    """Compare the shapes of a file with a network that takes no memory."""
    found = {name: entry["shape"] for name, entry in read_header(path).items() if name != "__metadata__"}
    wanted = {name: list(value.shape) for name, value in model.state_dict().items()}
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise InputError(path, f"{name[:60]!r} of shape {found.get(name)}", f"shape {wanted.get(name)}", OWN)


def check_features(path: Path, model: Any) -> None:
    """Refuse a model of the labeler `features` whose numbers would ask for absurd windows; None is none."""
    if model is None:
        return
    settings = model.get("settings") if isinstance(model, dict) else None
    scales = settings.get("scales_px") if isinstance(settings, dict) else None
    sizes = [*scales, settings.get("background_px")] if isinstance(settings, dict) and isinstance(scales, list) else []
    if not sizes or not all(_is_small(value) and not isinstance(value, str) for value in sizes):
        raise InputError(path, f"features: {str(settings)[:80]}", f"scales up to {MAX_SIZE} px", OWN)


def _is_small(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= 64
    return isinstance(value, int | float) and math.isfinite(value) and abs(value) <= MAX_SIZE
