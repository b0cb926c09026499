"""A TIFF per slice, which every viewer opens."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tifffile

from ..provenance import atomic_path
from .labels import Labels

NAME = re.compile(r"z_\d{6,}\.tif")


def write(labels: Labels, folder: Path) -> None:
    """Write `z_000000.tif` …: the number is the slice of the scan, uint8, zlib.

    Files of an earlier, longer export are removed; names that are not of this pattern are left alone.
    """
    folder.mkdir(parents=True, exist_ok=True)
    keep = {f"z_{z:06d}.tif" for z in range(labels.shape[0])}
    for path in folder.iterdir():
        if NAME.fullmatch(path.name) and path.name not in keep:
            path.unlink()
    options = _resolution(labels.voxel_size_um)
    for z0, block in labels.blocks("tiff"):
        for z, plane in enumerate(block, start=z0):
            with atomic_path(folder / f"z_{z:06d}.tif") as temporary:
                tifffile.imwrite(temporary, plane, compression="zlib", software="beamseg", **options)


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
