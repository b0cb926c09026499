"""bundle: what is needed to segment another scan with a group's model, in one folder."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .provenance import atomic_path, file_digest, read_json, versions, write_json


def bundle(
    out: str | Path,
    *,
    weights: str | Path,
    plan: str | Path,
    classes: str | Path,
    table: str | Path,
    scans: Sequence[str | Path],
    histograms: Sequence[str | Path],
    class_table: list[dict[str, Any]],
    settings: dict[str, Any],
    verdict: dict[str, Any] | None,
) -> dict[str, Any]:
    """Copy the files of a group's model beside `out` and write their index.

    Parameters
    ----------
    out : path
        `bundle/bundle.json`: stage of the weights and why, class table, voxel sizes, settings, versions, and a digest
        per file (model.safetensors, plan.json, classes.json, table.npy, histogram_<n>.npz).
    scans, histograms : sequence of path
        Of the reference scans, in the same order.
    """
    folder = Path(out).parent
    files = {"model.safetensors": weights, "plan.json": plan, "classes.json": classes, "table.npy": table}
    files |= {f"histogram_{number}.npz": path for number, path in enumerate(histograms)}
    folder.mkdir(parents=True, exist_ok=True)
    for name, path in files.items():
        with atomic_path(folder / name) as temporary:
            shutil.copyfile(path, temporary)
    described = [read_json(path) for path in scans]
    content = {
        "stage": "stage2" if verdict is None else verdict["use"],
        "reason": "no stage 3 was asked for" if verdict is None else verdict["reason"],
        "class_table": class_table,
        "scans": [{key: scan[key] for key in ("name", "shape", "dtype", "voxel_size_um")} for scan in described],
        "settings": settings,
        "files": {name: file_digest(folder / name) for name in files},
        "versions": versions(),
    }
    write_json(out, content)
    return content
