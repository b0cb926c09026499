"""OME-Zarr 0.4 (Zarr 2) and 0.5 (Zarr 3): one level of a multiscale image, or a bare array."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from ..errors import InputError
from .raw import check_type
from .source import ReadOptions, Source, native, refuse_outside, sizes_um

if TYPE_CHECKING:
    import zarr

METADATA = ("zarr.json", ".zgroup", ".zarray")
SPATIAL = ("z", "y", "x")


def matches(path: Path) -> bool:
    """Whether the folder is a Zarr group or array."""
    return path.is_dir() and any((path / name).is_file() for name in METADATA)


def open_source(path: Path, options: ReadOptions) -> Source:
    """Open a level of a multiscale image, the finest by default; see `beamseg.readers.open_source`.

    `dataset` names an image or array inside the store (`labels/cells`, say). Axes of length 1 that are not z, y or x
    (time, channel) are left out.
    """
    where = path / options.dataset.strip("/") if options.dataset else path
    if not matches(where):
        raise InputError(
            path, f"nothing at {options.dataset!r}", "an image or an array", f"choose one of: {_listed(_images(path))}"
        )
    node = _opened(where)
    if _is_array(node):
        return _source(where, node, _names(node), None, [])
    multiscales = _multiscales(node)
    if multiscales is None:
        found = _images(where)
        if len(found) != 1:
            raise InputError(
                path,
                f"{len(found)} images: {_listed(found)}" if found else "a Zarr group without an image",
                "one, or a name",
                "name it in the column `dataset` of the sample table",
            )
        return open_source(path, replace(options, dataset=(where / found[0]).relative_to(path).as_posix()))
    levels = multiscales["datasets"]
    refuse_outside(path, "a level", [where / entry["path"] for entry in levels], options)
    if options.level >= len(levels):
        raise InputError(
            path,
            f"level {options.level} of {len(levels)}: {', '.join(_level(where, entry) for entry in levels)}",
            f"a level from 0 to {len(levels) - 1}",
            "correct `ingest.level`",
        )
    axes = multiscales["axes"]
    names = [axis["name"] if isinstance(axis, dict) else str(axis) for axis in axes]
    units = {axis["name"]: str(axis.get("unit", "")) for axis in axes if isinstance(axis, dict)}
    array = _opened(where / levels[options.level]["path"])
    if not _is_array(array) or array.ndim != len(names):
        raise InputError(where, f"axes {names} for {array}", "an array with these axes", "write the image again")
    scale = dict(zip(names, _scale(multiscales, levels[options.level], len(names)), strict=True))
    spatial = [name for name in names if name in SPATIAL]
    size, doubts = sizes_um([scale[name] for name in spatial], [units.get(name, "") for name in spatial])
    return _source(where / levels[options.level]["path"], array, names, size, doubts)


def _is_array(node: zarr.Array | zarr.Group) -> TypeGuard[zarr.Array]:
    return hasattr(node, "shape")


def _opened(path: Path) -> zarr.Array | zarr.Group:
    import zarr  # a third of a second, of every process that reads anything

    try:
        return zarr.open(str(path), mode="r")
    except Exception as error:  # metadata that zarr cannot make sense of raises errors of many kinds
        raise InputError(
            path, f"Zarr metadata that cannot be read ({error})", "a whole Zarr store", "copy the folder again"
        ) from error


def _names(array: zarr.Array) -> list[str]:
    """Names of an array's axes: its own (Zarr 3, xarray) where z, y and x are among them, else the last three."""
    found: Any = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS") or ()
    said = [str(name).lower() for name in found]
    guessed = [f"dim_{k}" for k in range(array.ndim - 3)] + list("zyx")
    return said if len(said) == array.ndim and set(SPATIAL) <= set(said) else guessed


def _multiscales(group: zarr.Array | zarr.Group) -> dict[str, Any] | None:
    """The image's entry: under `ome` in version 0.5, at the top in 0.4."""
    attributes: dict[str, Any] = dict(group.attrs)
    found = attributes.get("ome", attributes).get("multiscales")
    return dict(found[0]) if found else None


def _images(path: Path) -> list[str]:
    """Names of images and arrays one or two levels below a group."""
    folders = [p for p in sorted(path.glob("*")) + sorted(path.glob("*/*")) if matches(p)]
    found: list[str] = []
    for folder in folders:
        name = folder.relative_to(path).as_posix()
        node = _opened(folder)
        whole = _is_array(node) or _multiscales(node) is not None
        if whole and not any(name.startswith(f"{other}/") for other in found):
            found.append(name)
    return found


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (" …" if len(names) > 8 else "") or "(none)"


def _level(where: Path, entry: dict[str, Any]) -> str:
    array = _opened(where / entry["path"])
    return f"{entry['path']} {getattr(array, 'shape', '')}"


def _scale(multiscales: dict[str, Any], level: dict[str, Any], ndim: int) -> list[float]:
    """Scale of every axis: that of the level times that of the whole image."""
    scale = np.ones(ndim)
    for holder in (level, multiscales):
        for transform in holder.get("coordinateTransformations") or ():
            if transform.get("type") == "scale":
                scale = scale * np.asarray(transform["scale"], dtype=float)
    return [float(value) for value in scale]


def _source(where: Path, array: zarr.Array, names: list[str], size: list[float] | None, doubts: list[str]) -> Source:
    spatial = [k for k, name in enumerate(names) if name in SPATIAL]
    others = [k for k in range(array.ndim) if k not in spatial]
    if len(spatial) != 3 or array.ndim != len(names) or any(array.shape[k] != 1 for k in others) or 0 in array.shape:
        raise InputError(
            where,
            f"axes {', '.join(names)} of shape {tuple(array.shape)}",
            "z, y, x, and nothing else longer than 1",
            "save one channel and one time point",
        )
    check_type(where, np.dtype(array.dtype))
    fixed = dict.fromkeys(others, 0)
    files = _files(where)
    warnings = _unwritten(where, array, len(files) - 1)

    def read_window(z0: int, z1: int, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        bounds = dict(zip(spatial, ((z0, z1), (y0, y1), (x0, x1)), strict=True))
        window = tuple(fixed[k] if k in fixed else slice(*bounds[k]) for k in range(array.ndim))
        try:
            return np.asarray(array[window])
        except Exception as error:  # codecs raise errors of many kinds; all mean that chunks cannot be read
            raise InputError(
                where,
                f"chunks that cannot be decoded ({error})",
                "readable chunks",
                "copy the folder again, or write it with a codec that this Zarr knows (blosc, zstd, gzip)",
            ) from error

    first, second, third = (array.chunks[k] for k in spatial)
    return Source(
        format="ome_zarr",
        shape=(array.shape[spatial[0]], array.shape[spatial[1]], array.shape[spatial[2]]),
        dtype=native(array.dtype),
        files=files,
        read_window=read_window,
        voxel_size_um=size,
        size_warnings=doubts,
        warnings=warnings,
        compressed=True,
        chunks=(first, second, third),
        axes="".join(names[k] for k in spatial),
    )


def _files(folder: Path) -> list[Path]:
    """The metadata and every chunk of an array."""
    found = [Path(root) / name for root, _, names in os.walk(folder) for name in names]
    return sorted(found, key=lambda file: (file.name not in METADATA, str(file)))


def _unwritten(where: Path, array: zarr.Array, stored: int) -> list[str]:
    """Zarr reads a chunk without a file as the fill value; writers leave out chunks that hold nothing else."""
    there, wanted = int(array.nchunks_initialized), int(array.nchunks)
    if stored == 0 or there == 0:
        raise InputError(where, "an array without a stored chunk", "voxels", "copy the folder again, chunks included")
    if there >= wanted:
        return []
    return [f"{wanted - there} of {wanted} chunks are not stored; they read as {array.fill_value}"]
