"""OME-Zarr 0.4: a multiscale label image with names and colours of the classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..label_values import UNLABELLED
from ..palette import rgb
from ..provenance import atomic_folder
from .labels import Labels

VERSION = "0.4"  # on Zarr 2, which more programs read than 0.5 on Zarr 3
CHUNK = (32, 256, 256)
COARSEST = 256  # voxels along the longest side of the last level


def write(labels: Labels, path: Path) -> None:
    """Write the levels 0, 1, … (uint8, blosc), each of every second voxel of the one before, to about 256 voxels.

    A voxel of a coarser level is one of the finest, so that no class appears that is not there.
    """
    import zarr  # a third of a second, of every process that knows the formats

    levels = 1
    while max(labels.shape) / 2 ** (levels - 1) > COARSEST:
        levels += 1
    with atomic_folder(path) as temporary:
        group = zarr.open_group(str(temporary), mode="w", zarr_format=2)
        arrays = []
        for level in range(levels):
            shape = [-(-n // 2**level) for n in labels.shape]
            arrays.append(
                group.create_array(
                    str(level),
                    shape=shape,
                    dtype="uint8",
                    chunks=tuple(min(c, n) for c, n in zip(CHUNK, shape, strict=True)),
                    chunk_key_encoding={"name": "v2", "separator": "/"},
                    fill_value=0,
                    # A chunk without a file reads as class 0; written ones tell a copy that is not whole.
                    config={"write_empty_chunks": True},
                )
            )
        for z0, block in labels.blocks("ome_zarr"):
            for level, array in enumerate(arrays):
                stride = 2**level
                part = block[-z0 % stride :: stride, ::stride, ::stride]
                first = -(-z0 // stride)
                array[first : first + len(part)] = part
        group.attrs.update(_metadata(labels, levels))


def _metadata(labels: Labels, levels: int) -> dict[str, Any]:
    sizes = [1.0, 1.0, 1.0] if labels.voxel_size_um is None else [float(size) for size in labels.voxel_size_um]
    unit = {} if labels.voxel_size_um is None else {"unit": "micrometer"}
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [{"type": "scale", "scale": [size * 2**level for size in sizes]}],
        }
        for level in range(levels)
    ]
    colours = [{"label-value": row["id"], "rgba": [*rgb(row["colour"]), 255]} for row in labels.table]
    names = [{"label-value": row["id"], "name": row["name"]} for row in labels.table]
    return {
        "multiscales": [
            {
                "version": VERSION,
                "name": "labels",
                "axes": [{"name": axis, "type": "space"} | unit for axis in "zyx"],
                "datasets": datasets,
                "type": "nearest",
                "metadata": {"description": "level n holds every 2^n-th voxel of level 0 along each axis"},
            }
        ],
        "image-label": {
            "version": VERSION,
            "colors": [*colours, {"label-value": UNLABELLED, "rgba": [0, 0, 0, 0]}],
            "properties": [*names, {"label-value": UNLABELLED, "name": "outside"}],
        },
    }
