"""One HDF5 file as NeXus describes data (NXdata), with gzip, which every HDF5 has."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from ..provenance import atomic_path
from ..slabs import CHUNK, RecordedFile
from .labels import Labels


def write(labels: Labels, path: Path) -> None:
    """Write `/entry/labels/labels` (z, y, x), uint8, with its axes in µm (in voxels where their size is unknown).

    `@default` and `@signal` lead there. Beside the data: `voxel_size` [z, y, x] with units, and `classes` with id,
    name and colour of each.

    One file is streamed. A virtual data set over the slab files was not chosen: it reads zeros for a file that is
    missing, and slabs hold clusters, not classes.
    """
    shape = labels.shape
    with atomic_path(path) as temporary, RecordedFile(temporary) as raw:
        with h5py.File(raw, "w") as file:
            file.attrs.update({"NX_class": "NXroot", "default": "entry"})
            entry = _group(file, "entry", "NXentry", default="labels")
            entry["title"] = "segmentation by beamseg"
            data = _group(entry, "labels", "NXdata", signal="labels", axes=["z", "y", "x"])
            sizes = (1.0, 1.0, 1.0) if labels.voxel_size_um is None else labels.voxel_size_um
            unit = "voxel" if labels.voxel_size_um is None else "um"
            for number, (axis, n, size) in enumerate(zip("zyx", shape, sizes, strict=True)):
                data[axis] = np.arange(n) * float(size)
                data[axis].attrs["units"] = unit
                data.attrs[f"{axis}_indices"] = number
            array = data.create_dataset(
                "labels",
                shape=shape,
                dtype=np.uint8,
                chunks=tuple(min(c, n) for c, n in zip(CHUNK, shape, strict=True)),
                compression="gzip",
                compression_opts=1,
            )
            array.attrs["long_name"] = "class"
            if labels.voxel_size_um is not None:
                array.attrs["voxel_size"] = np.asarray(sizes, dtype=float)
                array.attrs["voxel_size_units"] = unit
                entry["voxel_size"] = np.asarray(sizes, dtype=float)
                entry["voxel_size"].attrs["units"] = unit
            classes = _group(entry, "classes", "NXcollection")
            classes["id"] = np.array([row["id"] for row in labels.table], np.uint8)
            for key in ("name", "colour"):
                classes.create_dataset(key, data=[row[key] for row in labels.table], dtype=h5py.string_dtype())
            for z0, block in labels.blocks("nexus"):
                array[z0 : z0 + len(block)] = block
                raw.check(path)
        raw.check(path)


def _group(parent: h5py.Group, name: str, nx_class: str, **attributes: object) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs.update({"NX_class": nx_class, **attributes})
    return group
