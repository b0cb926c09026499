"""One TIFF with a page per slice, of any size: BigTIFF, described as OME-TIFF, which Bio-Formats (Fiji) reads."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import tifffile

from ..provenance import atomic_path
from .labels import Labels


def write(labels: Labels, path: Path) -> None:
    """Write uint8 pages, zlib, with voxel size in µm and class names in the OME description.

    The file is a BigTIFF whatever its size, so that labels over 4 GiB are nothing special.
    """
    metadata: dict[str, Any] = {
        "axes": "ZYX",
        "UUID": str(uuid.uuid5(uuid.NAMESPACE_OID, labels.digest)),  # equal labels, equal bytes
        "Name": "labels",
        "Description": ", ".join(f"{row['id']}: {row['name']}" for row in labels.table),
    }
    options: dict[str, Any] = {}
    if labels.voxel_size_um is not None:
        z, y, x = (float(size) for size in labels.voxel_size_um)
        for axis, size in (("X", x), ("Y", y), ("Z", z)):
            metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "µm"}
        options = {"resolution": (1e4 / x, 1e4 / y), "resolutionunit": "CENTIMETER"}
    pages = (plane for _, block in labels.blocks("bigtiff") for plane in block)
    with atomic_path(path) as temporary, tifffile.TiffWriter(temporary, bigtiff=True, ome=True) as file:
        file.write(
            pages,
            shape=labels.shape,
            dtype="uint8",
            photometric="minisblack",
            compression="zlib",
            software="beamseg",
            metadata=metadata,
            **options,
        )
