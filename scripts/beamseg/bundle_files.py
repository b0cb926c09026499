"""Reading a bundle, which may come from anywhere: nothing in it is believed before it was looked at.

No pickle is ever opened, only known names of plain files are read, and sizes are bounded before anything is allocated.
"""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from .errors import InputError
from .label_values import UNLABELLED
from .plain_files import (
    METADATA,
    OWN,
    is_number,
    is_whole,
    numbers,
    read_header,
    read_plain_json,
    wholes,
)
from .provenance import file_digest

FORMAT = 1
STAGES = ("stage2", "stage3")
REQUIRED = ("model.safetensors", "plan.json", "classes.json", "arrays.safetensors", "curves.json")
OPTIONAL = ("scm.safetensors",)
LEVELS = 65536
MAX_COLUMNS = 1024
MAX_COUNT = 2**62
VOXEL_UM = (1e-12, 1e12)
"""Sizes beyond which no voxel is, wide enough for one that was given in metres."""
ELBOW = ("k", "inertia", "separation")
ARRAYS = {"table": ("U8", [LEVELS]), "counts": ("I64", [LEVELS])}


def read_index(folder: str | Path) -> dict[str, Any]:
    """The index of a bundle, once its form is known to be right; the files it names are not opened.

    Raises
    ------
    InputError
        If there is no bundle, or one whose index is damaged, too new, or names a file that no bundle holds.
    """
    folder = Path(folder)
    path = folder / "bundle.json"
    if not path.is_file():
        raise InputError(folder, "no bundle.json", "the folder of a bundle", OWN)
    index = read_plain_json(path)
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        found = index.get("format") if isinstance(index, dict) else type(index).__name__
        raise InputError(path, f"format {found!r}", f"format {FORMAT}", "write the bundle again with this version")
    forms = {"stage": str, "reason": str, "scans": list, "settings": dict, "files": dict, "versions": dict}
    for key, form in forms.items():
        if not isinstance(index.get(key), form):
            raise InputError(path, f"{key}: {str(index.get(key))[:80]!r}", f"a {form.__name__}", OWN)
    if index["stage"] not in STAGES:
        raise InputError(path, f"stage {index['stage'][:40]!r}", f"one of {', '.join(STAGES)}", OWN)
    if not index["scans"]:
        raise InputError(path, "no scans", "the scans that the network was trained on", OWN)
    for scan in index["scans"]:
        if not _is_scan(scan):
            wanted = "name, shape, dtype and voxel_size_um, which is three positive numbers or null"
            raise InputError(path, f"scans: {str(scan)[:80]}", wanted, OWN)
    for name, digest in index["files"].items():
        if name not in (*REQUIRED, *OPTIONAL):
            raise InputError(path, f"a file {name[:80]!r}", f"only {', '.join((*REQUIRED, *OPTIONAL))}", OWN)
        if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{16}", digest):
            raise InputError(path, f"digest {str(digest)[:40]!r} of {name}", "16 hexadecimal digits", OWN)
    missing = [name for name in REQUIRED if name not in index["files"]]
    if missing:
        raise InputError(path, f"no {', '.join(missing)}", "all files of a bundle", OWN)
    return index


def verify(folder: str | Path, index: dict[str, Any]) -> dict[str, Any]:
    """Open what an index names, with suspicion.

    Returns
    -------
    dict
        `plan`, `classes` and `curves` (parsed JSON), `table` uint8 and `counts` int64, both (65536,).

    Raises
    ------
    InputError
        For a link, a missing or altered file, a pickle, a header or shape out of bounds, and values out of range.
    """
    folder = Path(folder)
    for name, digest in index["files"].items():
        path = folder / name
        if path.is_symlink():
            raise InputError(path, "a symbolic link", "a plain file", OWN)
        if not path.is_file():
            raise InputError(path, "no such file", "all files that bundle.json names", OWN)
        if file_digest(path) != digest:
            raise InputError(path, f"digest {file_digest(path)}", f"{digest}, as bundle.json says", OWN)
        if name in ("model.safetensors", "scm.safetensors"):
            read_header(path)
    plan = _checked_plan(folder / "plan.json")
    classes = _checked_classes(folder / "classes.json")
    curves = _checked_curves(folder / "curves.json")
    arrays = _checked_arrays(folder / "arrays.safetensors", classes["n_clusters"])
    return {"plan": plan, "classes": classes, "curves": curves, **arrays}


def _is_scan(scan: Any) -> bool:
    """Whether this describes a training scan as `bundle` does."""
    if not isinstance(scan, dict) or not all(isinstance(scan.get(key), str) for key in ("name", "dtype")):
        return False
    shape: Any = scan.get("shape")
    size: Any = scan.get("voxel_size_um", ())
    least, greatest = VOXEL_UM
    known = size is None or (numbers(size, 3) and all(least <= v <= greatest for v in size))
    return known and wholes(shape, 1) and len(shape) == 3


def _checked_plan(path: Path) -> dict[str, Any]:
    """What normalizes a scan, and what the report says of it: range, bits, clipped, scans, warnings."""
    plan = read_plain_json(path)
    plan = plan if isinstance(plan, dict) else {}
    span: Any = plan.get("range")
    bits = plan.get("bits")
    wide = numbers(span, 2) and 0 < span[1] - span[0] <= sys.float_info.max
    if not wide or not is_whole(bits) or bits not in (8, 16):
        raise InputError(path, f"range {str(span)[:60]}", "[lo, hi], lo < hi, and 8 or 16 bits", OWN)
    clipped: Any = plan.get("clipped")
    shares: list[Any] = [clipped.get("low"), clipped.get("high")] if isinstance(clipped, dict) else []
    if not numbers(shares, 2) or not all(0 <= share <= 1 for share in shares):
        raise InputError(path, f"clipped {str(clipped)[:60]}", "low and high, 0 … 1", OWN)
    if not isinstance(plan.get("scans"), dict) or not _texts(plan.get("warnings")):
        found = f"scans {str(plan.get('scans'))[:40]}, warnings {str(plan.get('warnings'))[:40]}"
        raise InputError(path, found, "the scans by name, and a list of texts", OWN)
    return plan


def _checked_classes(path: Path) -> dict[str, Any]:
    """The clusters, and what the report says of them: n_clusters, labeler, clusters, elbow, warnings."""
    classes = read_plain_json(path)
    classes = classes if isinstance(classes, dict) else {}
    n_clusters: Any = classes.get("n_clusters")
    clusters = classes.get("clusters")
    if not is_whole(n_clusters) or not 2 <= n_clusters < UNLABELLED:
        raise InputError(path, f"n_clusters {str(n_clusters)[:40]}", "2 … 254", OWN)
    if not isinstance(clusters, list) or not all(_is_cluster(one, i) for i, one in enumerate(clusters)):
        raise InputError(path, f"clusters {str(clusters)[:80]}", "id, centroid, intervals and fraction of each", OWN)
    if len(clusters) != n_clusters:
        raise InputError(path, f"{len(clusters)} clusters, n_clusters {n_clusters}", "as many as n_clusters", OWN)
    elbow = classes.get("elbow")
    columns: list[Any] = [elbow.get(key) for key in ELBOW] if isinstance(elbow, dict) else [None]
    if not all(_column(column) and len(column) == len(columns[0]) for column in columns):
        raise InputError(path, f"elbow {str(elbow)[:80]}", f"{', '.join(ELBOW)}: as many of each", OWN)
    if not isinstance(classes.get("labeler"), str) or not _texts(classes.get("warnings")):
        found = f"labeler {str(classes.get('labeler'))[:40]}, warnings {str(classes.get('warnings'))[:40]}"
        raise InputError(path, found, "a name, and a list of texts", OWN)
    return classes


def _is_cluster(one: Any, number: int) -> bool:
    """Whether this describes the cluster of that number as `pseudo_label` does."""
    if not isinstance(one, dict) or one.get("id") != number or not _column([one.get("centroid")]):
        return False
    pairs = one.get("intervals")
    levels = isinstance(pairs, list) and all(wholes(p) and len(p) == 2 and max(p) < LEVELS for p in pairs)
    return levels and is_number(one.get("fraction"))


def _checked_curves(path: Path) -> dict[str, Any]:
    """The curves of the training: columns, of which one is `step`, and rows."""
    curves = read_plain_json(path)
    curves = curves if isinstance(curves, dict) else {}
    columns: Any = curves.get("columns")
    rows: Any = curves.get("rows")
    # Names are read as patterns, and drawn.
    named = _texts(columns) and all(re.fullmatch(r"\w{1,64}", name, re.ASCII) for name in columns)
    if not named or "step" not in columns or not len(set(columns)) == len(columns) <= MAX_COLUMNS:
        raise InputError(path, f"columns {str(columns)[:80]}", f"up to {MAX_COLUMNS} names, one of them step", OWN)
    wide = isinstance(rows, list) and all(isinstance(row, list) and len(row) == len(columns) for row in rows)
    if not wide or not all(cell is None or isinstance(cell, str | int | float) for row in rows for cell in row):
        raise InputError(path, "no table", "rows of as many values as columns", OWN)
    step = columns.index("step")
    for row in rows:
        if not _is_step(row[step]):
            raise InputError(path, f"step {str(row[step])[:40]!r}", "a number", OWN)
    return curves


def _checked_arrays(path: Path, n_clusters: int) -> dict[str, np.ndarray]:
    """`table` and `counts`; their types and shapes are known before the file is read."""
    header = read_header(path, {kind for kind, _ in ARRAYS.values()})
    found = {name: (entry["dtype"], entry["shape"]) for name, entry in header.items() if name != METADATA}
    if found != ARRAYS:
        raise InputError(path, str(found)[:120], f"table uint8 and counts int64, both ({LEVELS},)", OWN)
    try:
        arrays = load(path.read_bytes())
    except (SafetensorError, KeyError, ValueError) as error:
        raise InputError(path, f"not readable ({error})", "a safetensors file", OWN) from error
    table, counts = arrays["table"], arrays["counts"]
    if ((table >= n_clusters) & (table != UNLABELLED)).any() or counts.min() < 0:
        raise InputError(path, "values out of range", f"clusters 0 … {n_clusters - 1}, and no count below 0", OWN)
    total = sum(counts.tolist())  # in integers without an end
    if not counts[1:].any() or total >= MAX_COUNT:
        raise InputError(path, f"counts of {total} voxels", f"1 … {MAX_COUNT - 1}, on grey levels from 1", OWN)
    return arrays


def _column(values: Any) -> bool:
    """Whether this is a list of numbers, some of them unknown."""
    return isinstance(values, list) and all(value is None or is_number(value) for value in values)


def _texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _is_step(cell: Any) -> bool:
    """Whether a cell, which may be text, is a number."""
    try:
        return cell is not None and math.isfinite(float(cell))
    except ValueError:
        return False


def without_paths(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings without the paths of labels, which say nothing on another machine."""
    result = {key: without_paths(value) if isinstance(value, dict) else value for key, value in settings.items()}
    if isinstance(result.get("labels"), dict):
        result["labels"].pop("path", None)
    return result


APPLIED = ("normalize", "pseudo_label", "model", "self_correct", "refine_mpp", "refine_scm", "classes", "refine")
CORRECTIONS = ("shading", "rings", "denoise")


def settings_of(index: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """What a bundle's settings fix for a scan that it is applied to, as a layer of the configuration.

    Keys that the schema no longer knows are left out: the weights say themselves what network they are of.
    """
    return _known(applied_settings(index), schema)


def applied_settings(index: dict[str, Any]) -> dict[str, Any]:
    """The same with whatever keys the bundle has."""
    layer: dict[str, Any] = {}
    for entry in index["settings"].values():
        for dotted, value in entry.items() if isinstance(entry, dict) else ():
            section, *rest = str(dotted).split(".")
            if section in APPLIED:
                for key in reversed(rest):
                    value = {key: value}
                if isinstance(value, dict) and isinstance(layer.get(section), dict):
                    value = layer[section] | value
                layer[section] = value
    corrections = index["settings"].get("corrections") or dict.fromkeys(CORRECTIONS, "none")
    if isinstance(corrections, dict) and isinstance(layer.setdefault("normalize", {}), dict):
        layer["normalize"] |= {key: value for key, value in corrections.items() if key != "z_continuous"}
    return layer


def _known(layer: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    known = schema.get("properties")
    if known is None:
        return layer
    kept = {key: value for key, value in layer.items() if key in known}
    return {key: _known(value, known[key]) if isinstance(value, dict) else value for key, value in kept.items()}
