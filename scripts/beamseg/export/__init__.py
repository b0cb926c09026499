"""export: the product as files that other programs open, and a manifest that says what they are."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..label_values import UNLABELLED
from ..palette import class_ids
from ..provenance import write_json
from ..slabs import check_room
from ..volumes import TableVolume, Volume
from . import bigtiff, mrc, nexus, ome_zarr, surfaces, tiff
from .labels import Labels

FORMATS: dict[str, tuple[Callable[[Labels, Path], None], str, float]] = {
    "tiff": (tiff.write, "", 0.1),
    "bigtiff": (bigtiff.write, ".ome.tif", 0.1),
    "nexus": (nexus.write, ".h5", 0.1),
    "nexus_virtual": (nexus.write_virtual, "_virtual.h5", 1.0),
    "mrc": (mrc.write, ".mrc", 2.0),
    "ome_zarr": (ome_zarr.write, ".ome.zarr", 0.12),
    "ply": (surfaces.write_ply, "_ply", 0.0),
    "stl": (surfaces.write_stl, "_stl", 0.0),
}
"""Format -> its writer, what its name ends in, and a forecast of bytes per voxel; surfaces depend on shapes."""


def export(
    product: Volume,
    *,
    table: list[dict[str, Any]],
    stage: dict[str, Any],
    voxel_size_um: Sequence[float] | None,
    folder: str | Path,
    out_json: str | Path,
    formats: Sequence[str] = ("tiff",),
    mem_budget_mb: float = 512,
) -> dict[str, Any]:
    """Write the product in every format that is asked for, and the manifest that describes them.

    Parameters
    ----------
    product : Volume
        uint8 cluster ids, 255 outside the field of view.
    table : list of dict
        The class table: id, name, colour, clusters. Files hold class ids, so that merged clusters are one class.
    stage : dict
        `stage` and `reason` of the product.
    voxel_size_um : (z, y, x) or None
        Written as each format has it; None leaves it out.
    folder : path
        Of the TIFF sequence; the others lie beside it, by its name and an ending. What an earlier export left of
        formats that are no longer asked for is removed.
    out_json : path
        The manifest, written last.
    formats : sequence of str
        Keys of `FORMATS`.
    mem_budget_mb : float
        MiB of labels held at once.

    Returns
    -------
    dict
        The manifest: stage, reason, folder and files (of the TIFF sequence; None and 0 without it), exports {format:
        name}, shape, voxel_size_um, classes, outside, digest (of the labels, slice by slice, so that it depends
        neither on slabs nor on compression).

    Raises
    ------
    InputError
        If the disk cannot take the files, by a forecast before the first or when a write fails.
    """
    folder = Path(folder)
    depth, height, width = product.shape
    check_room(folder.parent, int(depth * height * width * sum(FORMATS[name][2] for name in formats)))
    for name, (_, ending, _) in FORMATS.items():
        if name not in formats:
            _remove(folder.with_name(folder.name + ending))
    if "nexus_virtual" not in formats:
        _remove(folder.with_name(f"{folder.name}_virtual"))
    labels = Labels(TableVolume(product, class_ids(table)), table, voxel_size_um, mem_budget_mb)
    content = hashlib.sha256()
    for _, block in labels.blocks("digest"):
        content.update(block.ravel().data)
    labels.digest = content.hexdigest()
    for name in formats:
        write, ending, _ = FORMATS[name]
        write(labels, folder.with_name(folder.name + ending))
    manifest = {
        "stage": stage["stage"],
        "reason": stage["reason"],
        "folder": folder.name if "tiff" in formats else None,
        "files": depth if "tiff" in formats else 0,
        "exports": {name: folder.name + FORMATS[name][1] for name in formats},
        "shape": [depth, height, width],
        "voxel_size_um": None if voxel_size_um is None else [float(size) for size in voxel_size_um],
        "classes": [{key: row[key] for key in ("id", "name", "colour", "clusters")} for row in table],
        "outside": UNLABELLED,
        "digest": labels.digest[:16],
    }
    write_json(out_json, manifest)
    return manifest


def _remove(path: Path) -> None:
    """A file; of a folder what an export writes, and the folder itself if that leaves it empty."""
    if not path.is_dir():
        path.unlink(missing_ok=True)
    elif path.suffix == ".zarr":
        shutil.rmtree(path)
    else:
        for file in path.iterdir():
            if any(name.fullmatch(file.name) for name in (tiff.NAME, surfaces.NAME, nexus.NAME)):
                file.unlink()
        if not any(path.iterdir()):
            path.rmdir()
