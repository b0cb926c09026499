"""HDF5 as NeXus describes data (NXdata): one file with gzip, which every HDF5 has, or a virtual data set over slabs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from pathlib import Path

import h5py
import numpy as np

from ..label_values import UNLABELLED
from ..provenance import atomic_path
from ..slabs import RecordedFile, even_chunks
from .labels import Labels

SLAB = 128  # slices of a file
NAME = re.compile(r"slab_\d{6,}\.h5")


def write(labels: Labels, path: Path) -> None:
    """Write `/entry/labels/labels` (z, y, x), uint8, gzip, with its axes in µm (in voxels where their size is unknown).

    `@default` and `@signal` lead there. Beside the data: `voxel_size` [z, y, x] with units, and `classes` with id,
    name and colour of each.
    """
    shape = labels.shape
    chunks = even_chunks(shape)
    with atomic_path(path) as temporary, RecordedFile(temporary) as raw:
        with h5py.File(raw, "w") as file:
            array = _data(file, labels).create_dataset(
                "labels", shape=shape, dtype=np.uint8, chunks=chunks, compression="gzip", compression_opts=1
            )
            _describe(file, array, labels)
            _fill(array, labels.blocks("nexus"), raw, path)
        raw.check(path)


def write_virtual(labels: Labels, path: Path) -> None:
    """Write the same as a virtual data set over files of `SLAB` slices, in the folder of its name.

    The files hold `labels` without compression, one after another in memory's order, so that any program maps them;
    whole ones alone have their names. A file that is missing reads as 255, which is no class.
    """
    depth, *edges = labels.shape
    folder = path.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    layout = h5py.VirtualLayout(labels.shape, np.uint8)
    layout.dcpl.set_obj_track_times(False)  # unlike other data sets it would hold the second it was made in
    blocks = labels.blocks("nexus_virtual", cut=SLAB)
    for number, group in itertools.groupby(blocks, key=lambda block: block[0] // SLAB):
        z0 = number * SLAB
        shape = (min(SLAB, depth - z0), *edges)
        slab = folder / f"slab_{z0:06d}.h5"
        with atomic_path(slab) as temporary, RecordedFile(temporary) as raw:
            with h5py.File(raw, "w") as file:
                _fill(file.create_dataset("labels", shape, np.uint8), group, raw, slab, z0)
            raw.check(slab)
        layout[z0 : z0 + shape[0]] = h5py.VirtualSource(f"{folder.name}/{slab.name}", "labels", shape)
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        array = _data(file, labels).create_virtual_dataset("labels", layout, fillvalue=UNLABELLED)
        _describe(file, array, labels)


def _fill(
    array: h5py.Dataset, blocks: Iterable[tuple[int, np.ndarray]], raw: RecordedFile, path: Path, first: int = 0
) -> None:
    for z0, block in blocks:
        array[z0 - first : z0 - first + len(block)] = block
        raw.check(path)


def _data(file: h5py.File, labels: Labels) -> h5py.Group:
    """The NXdata group and its axes."""
    file.attrs.update({"NX_class": "NXroot", "default": "entry"})
    entry = _group(file, "entry", "NXentry", default="labels")
    entry["title"] = "segmentation by beamseg"
    data = _group(entry, "labels", "NXdata", signal="labels", axes=["z", "y", "x"])
    sizes = labels.voxel_size_um or (1.0, 1.0, 1.0)
    for number, (axis, n, size) in enumerate(zip("zyx", labels.shape, sizes, strict=True)):
        data[axis] = np.arange(n) * float(size)
        data[axis].attrs["units"] = "um" if labels.voxel_size_um else "voxel"
        data.attrs[f"{axis}_indices"] = number
    return data


def _describe(file: h5py.File, array: h5py.Dataset, labels: Labels) -> None:
    """Voxel size and class table."""
    array.attrs["long_name"] = "class"
    entry = file["entry"]
    if labels.voxel_size_um:
        sizes = np.asarray(labels.voxel_size_um, dtype=float)
        array.attrs.update({"voxel_size": sizes, "voxel_size_units": "um"})
        entry["voxel_size"] = sizes
        entry["voxel_size"].attrs["units"] = "um"
    classes = _group(entry, "classes", "NXcollection")
    classes["id"] = np.array([row["id"] for row in labels.table], np.uint8)
    for key in ("name", "colour"):
        classes.create_dataset(key, data=[row[key] for row in labels.table], dtype=h5py.string_dtype())


def _group(parent: h5py.Group, name: str, nx_class: str, **attributes: object) -> h5py.Group:
    group = parent.create_group(name)
    group.attrs.update({"NX_class": nx_class, **attributes})
    return group
