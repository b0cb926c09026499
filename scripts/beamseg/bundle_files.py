"""Reading a bundle, which may come from anywhere: nothing in it is believed before it was looked at.

No pickle is ever opened, only known names of plain files are read, and sizes are bounded before anything is allocated.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load

from .errors import InputError
from .provenance import file_digest

FORMAT = 1
REQUIRED = ("model.safetensors", "plan.json", "classes.json", "arrays.safetensors", "curves.json")
OPTIONAL = ("scm.safetensors",)
LEVELS = 65536
UNLABELLED = 255
MAX_JSON = 16 << 20
MAX_HEADER = 1 << 20
ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "U8": 1, "BOOL": 1}
OWN = "use a bundle that beamseg wrote (results/groups/<group>/bundle), copied whole"


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
    for scan in index["scans"]:
        size = scan.get("voxel_size_um") if isinstance(scan, dict) else ()
        if size is not None and not (_numbers(size, 3) and all(v > 0 for v in size)):
            raise InputError(path, f"scans: {str(scan)[:80]}", "a voxel size of three positive numbers, or null", OWN)
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
        if name.endswith(".safetensors"):
            read_header(path)
    plan, classes, curves = (read_plain_json(folder / f"{name}.json") for name in ("plan", "classes", "curves"))
    span: Any = plan.get("range") if isinstance(plan, dict) else None
    if not _numbers(span, 2) or not span[0] < span[1] or plan.get("bits") not in (8, 16):
        raise InputError(folder / "plan.json", f"range {str(span)[:60]}", "[lo, hi], lo < hi, and 8 or 16 bits", OWN)
    n_clusters = classes.get("n_clusters") if isinstance(classes, dict) else None
    if not isinstance(n_clusters, int) or not 2 <= n_clusters < UNLABELLED:
        raise InputError(folder / "classes.json", f"n_clusters {str(n_clusters)[:40]}", "2 … 254", OWN)
    columns: Any = curves.get("columns") if isinstance(curves, dict) else None
    rows: Any = curves.get("rows") if isinstance(curves, dict) else None
    tables = isinstance(columns, list) and isinstance(rows, list)
    if not tables or not all(isinstance(row, list) and len(row) == len(columns) for row in rows):
        raise InputError(folder / "curves.json", "no table", "columns, and rows of as many values", OWN)
    arrays = load((folder / "arrays.safetensors").read_bytes())
    for name, kind in (("table", np.uint8), ("counts", np.int64)):
        found = arrays.get(name)
        if found is None or found.shape != (LEVELS,) or found.dtype != kind:
            what = "nothing" if found is None else f"{found.dtype.name} {found.shape}"
            raise InputError(
                folder / "arrays.safetensors", f"{name}: {what}", f"{np.dtype(kind).name} ({LEVELS},)", OWN
            )
    labels = arrays["table"]
    if ((labels >= n_clusters) & (labels != UNLABELLED)).any() or arrays["counts"].min() < 0:
        raise InputError(folder / "arrays.safetensors", "values out of range", f"clusters 0 … {n_clusters - 1}", OWN)
    return {"plan": plan, "classes": classes, "curves": curves, **arrays}


def read_plain_json(path: Path) -> Any:
    """JSON of bounded size, without NaN and infinity; raises InputError for anything else, links included."""
    if path.is_symlink():
        raise InputError(path, "a symbolic link", "a plain file", OWN)
    size = path.stat().st_size
    if size > MAX_JSON:
        raise InputError(path, f"{size} bytes", f"at most {MAX_JSON}", OWN)

    def refuse(constant: str) -> None:
        raise ValueError(f"the constant {constant}")

    try:
        return json.loads(path.read_bytes(), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise InputError(path, f"no JSON ({error})", "plain JSON", OWN) from error


def read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file, once its sizes are known to agree with the file.

    Raises
    ------
    InputError
        For a file of another kind (a pickle, say), and a header or a shape beyond the file.
    """
    size = path.stat().st_size
    wanted = "a safetensors file"
    with open(path, "rb") as file:
        first = file.read(8)
        length = int.from_bytes(first, "little")
        if first[:1] == b"\x80" or first[:2] == b"PK":
            raise InputError(path, "a pickle or an archive, which may run code when opened", wanted, OWN)
        if size < 8 or length > min(size - 8, MAX_HEADER):
            raise InputError(path, f"a header of {length} bytes in a file of {size}", f"at most {MAX_HEADER}", OWN)
        try:
            header = json.loads(file.read(length))
        except (ValueError, RecursionError) as error:
            raise InputError(path, f"a header that is no JSON ({error})", wanted, OWN) from error
    if not isinstance(header, dict):
        raise InputError(path, f"a header that is a {type(header).__name__}", wanted, OWN)
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        entry = entry if isinstance(entry, dict) else {}
        shape: Any = entry.get("shape")
        span: Any = entry.get("data_offsets")
        whole = isinstance(shape, list) and all(isinstance(n, int) and n >= 0 for n in shape)
        inside = _numbers(span, 2) and 0 <= span[0] <= span[1] <= size - 8 - length
        item = ITEM_BYTES.get(str(entry.get("dtype")))
        if not whole or not inside or item is None or math.prod(shape) * item != span[1] - span[0]:
            raise InputError(path, f"tensor {name[:60]!r}: {str(entry)[:120]}", "a shape that fits its bytes", OWN)
    return header


def _numbers(values: Any, count: int) -> bool:
    """Whether these are `count` finite numbers in a list."""
    if not isinstance(values, list) or len(values) != count:
        return False
    return all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values)


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
    return _known(layer, schema)


def _known(layer: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    known = schema.get("properties")
    if known is None:
        return layer
    kept = {key: value for key, value in layer.items() if key in known}
    return {key: _known(value, known[key]) if isinstance(value, dict) else value for key, value in kept.items()}
