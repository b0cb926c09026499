"""The labels that are handed on: a TIFF sequence that any viewer opens, and a manifest that says what they are."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from .progress import Progress
from .provenance import atomic_path, write_json
from .slabs import UNLABELLED
from .volumes import Volume

_NAME = re.compile(r"z_\d{6,}\.tif")


def export(
    product: Volume,
    *,
    table: list[dict[str, Any]],
    stage: dict[str, Any],
    voxel_size_um: Sequence[float] | None,
    folder: str | Path,
    out_json: str | Path,
    mem_budget_mb: float = 512,
) -> dict[str, Any]:
    """Write the product as `z_000000.tif` …, a page per slice, and the manifest that describes them.

    Parameters
    ----------
    product : Volume
        uint8 cluster ids, 255 outside the field of view.
    table : list of dict
        The class table: id, name, colour, clusters. Files hold class ids, so that merged clusters are one class.
    stage : dict
        `stage` and `reason` of the product.
    voxel_size_um : (z, y, x) or None
        Written as the resolution that Fiji reads, in µm; None leaves it out.
    folder : path
        Files of an earlier, longer export are removed from it; names that are not of this pattern are left alone.
    out_json : path
        The manifest, written last.
    mem_budget_mb : float
        MiB of labels held at once.

    Returns
    -------
    dict
        The manifest: stage, reason, folder, files, shape, voxel_size_um, classes, outside, digest (of the labels,
        slice by slice, so that it depends neither on slabs nor on compression).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    to_class = np.full(256, UNLABELLED, np.uint8)
    for row in table:
        to_class[row["clusters"]] = row["id"]
    depth, height, width = product.shape
    keep = {f"z_{z:06d}.tif" for z in range(depth)}
    for path in folder.iterdir():
        if _NAME.fullmatch(path.name) and path.name not in keep:
            path.unlink()
    options = _resolution(voxel_size_um)
    content = hashlib.sha256()
    step = max(1, int(mem_budget_mb * 2**20 / (3 * height * width)))
    step = step // 8 * 8 if step > 8 else step
    with Progress(math.prod(product.shape), "voxels", "export") as progress:
        for z0 in range(0, depth, step):
            block = to_class[product.read(z0, min(z0 + step, depth))]
            for z, labels in enumerate(block, start=z0):
                content.update(labels.tobytes())
                with atomic_path(folder / f"z_{z:06d}.tif") as temporary:
                    tifffile.imwrite(temporary, labels, compression="zlib", software="beamseg", **options)
                progress.update(labels.size)
    manifest = {
        "stage": stage["stage"],
        "reason": stage["reason"],
        "folder": folder.name,
        "files": depth,
        "shape": [depth, height, width],
        "voxel_size_um": None if voxel_size_um is None else [float(size) for size in voxel_size_um],
        "classes": [{key: row[key] for key in ("id", "name", "colour", "clusters")} for row in table],
        "outside": UNLABELLED,
        "digest": content.hexdigest()[:16],
    }
    write_json(out_json, manifest)
    return manifest


def _resolution(voxel_size_um: Sequence[float] | None) -> dict[str, Any]:
    """Options of tifffile for a pixel size in µm that Fiji reads; its slice spacing is in the description."""
    if voxel_size_um is None:
        return {"metadata": None, "photometric": "minisblack"}
    z, y, x = (float(size) for size in voxel_size_um)
    # ImageJ reads resolution in pixels per unit and the unit from its own description.
    return {
        "imagej": True,
        "resolution": (1 / x, 1 / y),
        "metadata": {"unit": "um", "spacing": z, "axes": "YX"},
    }
