"""bundle: what is needed to segment another scan with a group's model, in one folder of JSON and safetensors."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from . import provenance
from .bundle_files import FORMAT, without_paths
from .provenance import atomic_path, file_digest, read_json, write_json
from .volumes import grey_counts


def bundle(
    out: str | Path,
    *,
    weights: str | Path,
    plan: str | Path,
    classes: str | Path,
    table: str | Path,
    curves: str | Path,
    scans: Sequence[str | Path],
    histograms: Sequence[str | Path],
    class_table: list[dict[str, Any]],
    settings: dict[str, Any],
    verdict: dict[str, Any] | None,
    scm: str | Path | None = None,
    versions: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Copy the files of a group's model beside `out` and write their index.

    Parameters
    ----------
    out : path
        `bundle/bundle.json`: stage of the weights and why, class table, scans with voxel sizes, settings, versions, and
        a digest per file: model.safetensors, scm.safetensors (where there is one), plan.json, classes.json,
        arrays.safetensors (`table` uint8 and `counts` int64, the training scans' voxels per grey level, both (65536,)),
        curves.json (columns, rows).
    curves : path
        CSV of the training.
    scans, histograms : sequence of path
        Of the reference scans, in the same order.
    versions : dict, optional
        Of the packages that made the model, see `ended.made_with`; else those of this process.
    """
    folder = Path(out).parent
    folder.mkdir(parents=True, exist_ok=True)
    copied = {"model.safetensors": weights, "plan.json": plan, "classes.json": classes}
    copied |= {} if scm is None else {"scm.safetensors": scm}
    for name, path in copied.items():
        with atomic_path(folder / name) as temporary:
            shutil.copyfile(path, temporary)
    arrays = {"table": np.load(table), "counts": grey_counts(read_json(plan), histograms)}
    with atomic_path(folder / "arrays.safetensors") as temporary:
        temporary.write_bytes(save(arrays))
    with open(curves, newline="") as file:
        columns, *rows = csv.reader(file)
    write_json(folder / "curves.json", {"columns": columns, "rows": rows})
    described = [read_json(path) for path in scans]
    content = {
        "format": FORMAT,
        "stage": "stage2" if verdict is None else verdict["use"],
        "reason": "no stage 3 was asked for" if verdict is None else verdict["reason"],
        "class_table": class_table,
        "scans": [{key: scan[key] for key in ("name", "shape", "dtype", "voxel_size_um")} for scan in described],
        "settings": without_paths(settings),
        "files": {name: file_digest(folder / name) for name in (*copied, "arrays.safetensors", "curves.json")},
        "versions": versions or provenance.versions(),
    }
    write_json(out, content)
    return content
