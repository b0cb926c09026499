"""HDF5: Data Exchange, NeXus, or any file with one 3-D data set."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")  # before h5py: network file systems often refuse locks

import h5py
import hdf5plugin  # noqa: F401  (registers blosc, bitshuffle, lz4, zstd …)

from ..errors import InputError
from .source import Source, native, to_micrometres

AGAIN = "copy the file again, or wait until it is written"
SIZE_ATTRIBUTES = ("voxel_size_um", "element_size_um")


def matches(path: Path) -> bool:
    """Whether the file bears HDF5's signature (at byte 0 or after a user block)."""
    return path.is_file() and bool(h5py.is_hdf5(path))


def open_source(path: Path, dataset: str | None = None) -> Source:
    """Open a data set of an HDF5 file; see `beamseg.readers.open_source`.

    Without a name: `/exchange/data` (Data Exchange), the signal of the default NXdata (NeXus), or the only 3-D
    numeric data set there is.
    """
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        cause = str(error)
        if "truncated" in cause:
            cause = f"a truncated file of {path.stat().st_size} bytes"
        raise InputError(
            path, cause, "a whole HDF5 file", "copy the file again, or wait until it is written"
        ) from error
    try:
        return _open(path, file, dataset)
    except InputError:
        file.close()
        raise


def _open(path: Path, file: h5py.File, dataset: str | None) -> Source:
    _refuse_projections(path, file)
    data = _named(path, file, dataset) if dataset else _find(path, file)
    if data.dtype.kind not in "uifb":
        raise InputError(path, f"{data.name} holds {data.dtype}", "real numbers", "name another data set")
    warnings: list[str] = []
    files = _files(path, data)
    if not data.is_virtual and data.external is None:
        _check_stored(path, data, warnings)

    def read_window(z0: int, z1: int, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        return data[z0:z1, y0:y1, x0:x1]

    return Source(
        format="hdf5",
        shape=data.shape,
        dtype=native(data.dtype),
        files=files,
        read_window=read_window,
        voxel_size_um=_voxel_size(path, file, data),
        warnings=warnings,
        compressed=bool(data.chunks) and data.id.get_create_plist().get_nfilters() > 0,
        depth=int(data.chunks[0]) if data.chunks else 1,
    )


def _named(path: Path, file: h5py.File, name: str) -> h5py.Dataset:
    found = file.get(name)
    if not isinstance(found, h5py.Dataset):
        what = "a group" if isinstance(found, h5py.Group) else "nothing"
        raise InputError(path, f"{what} at {name!r}", "a 3-D data set", f"choose one of: {_listed(candidates(file))}")
    if found.ndim != 3 or 0 in found.shape:
        raise InputError(
            path, f"{name!r} of shape {found.shape}", "a 3-D data set", f"choose one of: {_listed(candidates(file))}"
        )
    return found


def _find(path: Path, file: h5py.File) -> h5py.Dataset:
    exchange = file.get("exchange/data")
    if isinstance(exchange, h5py.Dataset):
        return _named(path, file, "/exchange/data")
    signal = _nexus_signal(path, file)
    if signal is not None:
        return _named(path, file, signal)
    found = candidates(file)
    if len(found) == 1:
        return found[0]
    if not found:
        raise InputError(path, "no 3-D numeric data set", "one", "give a file that holds a reconstructed volume")
    raise InputError(
        path,
        f"{len(found)} 3-D data sets: {_listed(found)}",
        "one, or a name",
        "name it in the column `dataset` of the sample table",
    )


def candidates(file: h5py.File) -> list[h5py.Dataset]:
    """The 3-D numeric data sets of a file with more than one voxel, each once, in order of name."""
    found: dict[Any, h5py.Dataset] = {}

    def visit(_: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and item.ndim == 3 and item.dtype.kind in "uifb" and item.size > 1:
            found.setdefault(hash(item.id), item)

    file.visititems(visit)
    return sorted(found.values(), key=lambda item: item.name)


def _listed(found: list[h5py.Dataset]) -> str:
    return ", ".join(f"{item.name} {item.shape} {item.dtype.name}" for item in found) or "(none)"


def _refuse_projections(path: Path, file: h5py.File) -> None:
    """Data Exchange puts flat and dark fields, and one angle per projection, beside raw data, never beside slices."""
    data = file.get("exchange/data")
    signs = [name for name in ("exchange/data_white", "exchange/data_dark") if name in file]
    theta = file.get("exchange/theta")
    if isinstance(data, h5py.Dataset) and isinstance(theta, h5py.Dataset) and theta.shape == data.shape[:1]:
        signs.append("exchange/theta")
    if signs:
        raise InputError(
            path,
            f"raw projections (the file holds /{signs[0]})",
            "reconstructed slices",
            "reconstruct the scan first (TomoPy, algotom, httomo …) and give the result",
        )


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray):
        value = value.ravel()[0] if value.size else ""
    return value.decode() if isinstance(value, bytes) else str(value)


def _nexus_signal(path: Path, file: h5py.File) -> str | None:
    """Name of the signal that @default leads to; without @default, of the only NXdata with a 3-D signal."""
    group: h5py.Group = file
    for _ in range(8):
        if "default" not in group.attrs:
            break
        name = _text(group.attrs["default"])
        step = group.get(name)
        if not isinstance(step, h5py.Group):
            raise InputError(
                path,
                f"@default of {group.name} names {name!r}, which is no group",
                "a NeXus group",
                "name the data set",
            )
        group = step
    found = _signal_of(group)
    if found is not None:
        return found
    signals: list[str] = []

    def visit(_: str, item: Any) -> None:
        if isinstance(item, h5py.Group) and _text(item.attrs.get("NX_class", "")) == "NXdata":
            name = _signal_of(item)
            if name is not None and file[name].ndim == 3:
                signals.append(name)

    file.visititems(visit)
    return signals[0] if len(signals) == 1 else None


def _signal_of(group: h5py.Group) -> str | None:
    if "signal" in group.attrs:
        name = _text(group.attrs["signal"])
        return f"{group.name.rstrip('/')}/{name}" if isinstance(group.get(name), h5py.Dataset) else None
    for name in group:
        item = group.get(name)
        if isinstance(item, h5py.Dataset) and _text(item.attrs.get("signal", "")) == "1":
            return str(item.name)
    return None


def _files(path: Path, data: h5py.Dataset) -> list[Path]:
    """The files that hold the voxels; raises InputError where one is missing, which HDF5 reads as zeros."""
    files = [path]
    own = Path(data.file.filename)
    if own.resolve() != path.resolve():
        files.append(own)
    names = [s.file_name for s in data.virtual_sources()] if data.is_virtual else [e[0] for e in data.external or ()]
    for name in dict.fromkeys(names):
        if name == ".":
            continue
        part = own.parent / name
        if not part.exists():
            raise InputError(
                path, f"{data.name} takes voxels from {name}, which is missing", "all its files", "copy that file too"
            )
        files.append(part)
    return files


def _check_stored(path: Path, data: h5py.Dataset, warnings: list[str]) -> None:
    """HDF5 reads what was never written as the fill value: say so."""
    if data.id.get_storage_size() == 0:
        raise InputError(path, f"{data.name} was created but never written", "voxels", "write the scan again")
    if data.chunks:
        there = data.id.get_num_chunks()
        wanted = int(np.prod([-(-n // c) for n, c in zip(data.shape, data.chunks, strict=True)]))
        if there < wanted:
            warnings.append(
                f"{wanted - there} of {wanted} chunks of {data.name} were never written; they read as {data.fillvalue}"
            )


def _voxel_size(path: Path, file: h5py.File, data: h5py.Dataset) -> list[float] | None:
    """[z, y, x] in micrometres from the data set's attributes or its NeXus axes, else None."""
    for name in SIZE_ATTRIBUTES:
        if name in data.attrs:
            value = np.asarray(data.attrs[name], dtype=float).ravel()
            size = [float(v) for v in (np.repeat(value, 3) if value.size == 1 else value)]
            if len(size) != 3 or not all(np.isfinite(v) and v > 0 for v in size):
                raise InputError(
                    path,
                    f"attribute {name} of {data.name} is {value.tolist()}",
                    "a positive number of micrometres, or three in the order z, y, x",
                    "mend the attribute, or give `voxel_size_um` in the sample table",
                )
            return size
    return _axes_spacing(data)


def _axes_spacing(data: h5py.Dataset) -> list[float] | None:
    group = data.parent
    if "axes" not in group.attrs:
        return None
    names = [_text(name) for name in np.atleast_1d(group.attrs["axes"])]
    if len(names) != 3:
        return None
    size = []
    for name, n in zip(names, data.shape, strict=True):
        axis = group.get(name)
        if not isinstance(axis, h5py.Dataset) or axis.shape != (n,) or n < 2 or axis.dtype.kind not in "uif":
            return None
        unit = _text(axis.attrs.get("units", axis.attrs.get("unit", "")))
        step = to_micrometres(abs(float(axis[n - 1]) - float(axis[0])) / (n - 1), unit)
        if step is None:
            return None
        size.append(step)
    return size
