"""apply: take over a bundle in place of a group's training."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from .bundle_files import applied_settings, read_index, verify
from .errors import InputError
from .features import names
from .models import build_model
from .plain_files import METADATA, OWN, is_number, is_whole, parse, read_header
from .provenance import atomic_path, write_json
from .scm import SCM

MAX_SIZE = 4096
"""Greatest number that a network's options may hold."""
MAX_SCALE = 16
STACK = range(1, 64, 2)
SIZES = {
    "in_channels": STACK,
    "n_slices": STACK,
    "n_classes": range(2, 255),
    "crop": range(16, 1025),
    "width": range(1, MAX_SIZE + 1),
}
"""What a network's description may hold: channels, classes, pixels of a crop."""
WIDTHS, DEPTHS = range(8, MAX_SIZE + 1, 8), range(2, 9)
FEATURES = ("grey", "smooth", "gradient", "spread")


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
        For whatever `bundle_files` refuses, weights that are not those of the network they are said to be, and weights
        that are no finite numbers.
    """
    folder = Path(folder)
    index = read_index(folder)
    held = verify(folder, index)
    n_classes, n_slices = check_network(folder / "model.safetensors")
    if n_classes != held["classes"]["n_clusters"]:
        found = f"{n_classes} classes, {held['classes']['n_clusters']} clusters"
        raise InputError(folder / "model.safetensors", found, "as many classes as clusters", OWN)
    check_settings(folder / "bundle.json", index, n_classes, n_slices)
    check_features(folder / "classes.json", held["classes"])
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
    """The metadata entry `model` of a weights file, its `sizes` being whole numbers as in `SIZES`."""
    try:
        meta = parse(read_header(path)[METADATA]["model"])
        numbers = [meta[key] for key in sizes]
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(path, f"no description of the network ({error!r})", "the entry `model`", OWN) from error
    for key, value in zip(sizes, numbers, strict=True):
        some = SIZES[key]
        if not is_whole(value) or value not in some:
            wanted = f"{some[0]} … {some[-1]}" + (", an odd number" if some.step == 2 else "")
            raise InputError(path, f"{key} {str(value)[:40]}", wanted, OWN)
    return dict(meta)


def check_network(path: Path) -> tuple[int, int]:
    """Classes and slices of the segmentation network in a file; refuses one that is not what its description says."""
    meta = described(path, ("in_channels", "n_classes", "crop"))
    options = meta.get("options")
    if not isinstance(options, dict) or not all(_is_option(key, value) for key, value in options.items()):
        raise InputError(path, f"options {str(options)[:80]}", f"numbers up to {MAX_SIZE}, widths by 8", OWN)
    try:
        with torch.device("meta"):
            model = build_model(str(meta.get("name")), meta["in_channels"], meta["n_classes"], **options)
    except (TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise InputError(path, f"options {str(options)[:80]} ({error})", "those of the network", OWN) from error
    _check_weights(path, model)
    return int(meta["n_classes"]), int(meta["in_channels"])


def check_settings(path: Path, index: dict[str, Any], n_classes: int, n_slices: int) -> None:
    """Refuse settings, as they are laid over the configuration, that contradict the weights or would fill a memory."""
    layer = applied_settings(index)
    wanted = {
        ("pseudo_label", "n_clusters"): range(n_classes, n_classes + 1),
        ("model", "n_slices"): range(n_slices, n_slices + 1),
        ("self_correct", "batch"): range(1, MAX_SIZE + 1),
    }
    for (section, key), some in wanted.items():
        held = layer.get(section)
        if isinstance(held, dict) and key in held and (not is_whole(held[key]) or held[key] not in some):
            text = str(some[0]) if len(some) == 1 else f"{some[0]} … {some[-1]}"
            raise InputError(path, f"{section}.{key} {str(held[key])[:40]}", f"{text}, as the weights are", OWN)


def check_scm(path: Path, n_classes: int) -> None:
    """Refuse SCM weights that are not what their description says, or are of another number of classes."""
    meta = described(path, ("n_slices", "n_classes", "width"))
    if meta.get("name") != "scm" or meta["n_classes"] != n_classes:
        found = f"{str(meta.get('name'))[:40]!r} of {meta['n_classes']} classes"
        raise InputError(path, found, f"an SCM of {n_classes} classes", OWN)
    with torch.device("meta"):
        model = SCM(meta["n_slices"], meta["n_classes"], meta["width"])
    _check_weights(path, model)


def _check_weights(path: Path, model: nn.Module) -> None:
    """Compare the shapes of a file with a network that takes no memory; then look at its numbers, tensor by tensor."""
    found = {name: entry["shape"] for name, entry in read_header(path).items() if name != METADATA}
    wanted = {name: list(value.shape) for name, value in model.state_dict().items()}
    for name in sorted(found.keys() | wanted.keys()):
        if found.get(name) != wanted.get(name):
            raise InputError(path, f"{name[:60]!r} of shape {found.get(name)}", f"shape {wanted.get(name)}", OWN)
    try:
        with safe_open(str(path), framework="pt") as file:
            for name in sorted(found):
                # The extremes of a tensor with a NaN are NaN, and take no memory.
                if not all(math.isfinite(value) for value in file.get_tensor(name).aminmax()):
                    remedy = "train again: the training left no usable network"
                    raise InputError(path, f"{name[:60]!r} holds NaN or infinity", "finite weights", remedy)
    except SafetensorError as error:
        raise InputError(path, f"not readable as weights ({error})", "a safetensors file", OWN) from error


def check_features(path: Path, classes: dict[str, Any]) -> None:
    """Refuse a model of the labeler `features` that lacks a number, or would ask for absurd windows."""
    model: Any = classes.get("features")
    if model is None and classes["labeler"] != "features":
        return
    settings: Any = model.get("settings") if isinstance(model, dict) else None
    if not _are_settings(settings):
        wanted = f"use, dimensions, background_px, and scales up to {MAX_SCALE} px"
        raise InputError(path, f"features: {str(settings)[:80]}", wanted, OWN)
    count, centres = len(names(settings)), model.get("centres")
    rows = [model.get("mean"), model.get("std"), *(centres if isinstance(centres, list) else [])]
    whole = all(isinstance(row, list) and len(row) == count and all(map(is_number, row)) for row in rows)
    if not whole or len(rows) != 2 + classes["n_clusters"] or min(model["std"]) <= 0:
        raise InputError(path, f"features: {str(model)[:80]}", f"{count} numbers each: mean, std and centres", OWN)


def _are_settings(settings: Any) -> bool:
    """Whether these are settings of `features` that a bundle may hold."""
    if not isinstance(settings, dict):
        return False
    background: Any
    use, scales, background = (settings.get(key) for key in ("use", "scales_px", "background_px"))
    known = isinstance(use, list) and bool(use) and all(name in FEATURES for name in use)
    sized = isinstance(scales, list) and bool(scales) and all(is_number(v) and 0 < v <= MAX_SCALE for v in scales)
    flat = is_number(background) and 0 <= background <= MAX_SIZE
    dimensions = settings.get("dimensions")
    return known and sized and flat and is_whole(dimensions) and dimensions in (2, 3)


def _is_option(key: str, value: Any) -> bool:
    """Whether a network may be given this: a number, a rate of dropout or, as `widths`, a multiple of 8 per level."""
    if key == "widths":
        return isinstance(value, list) and len(value) in DEPTHS and all(is_whole(v) and v in WIDTHS for v in value)
    if key == "dropout":
        return is_number(value) and 0 <= value < 1
    return is_number(value) and abs(value) <= MAX_SIZE
