"""HDF5: Data Exchange, NeXus, Savu, HTTomo, Nabu, tomocupy, or any file with one 3-D data set."""

from __future__ import annotations

from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401  (registers blosc, bitshuffle, lz4, zstd …)
import numpy as np

from ..errors import InputError
from .hdf5_layouts import Inside, axes_of, candidates, find, listed, refuse_projections, voxel_size
from .raw import check_type
from .source import AGAIN, ReadOptions, Source, native, refuse_outside, said_size

LOCKS = "unset HDF5_USE_FILE_LOCKING, or set it to FALSE: no lock is needed"
DEEPEST = 8
"""Files that a virtual data set may lead through, one to the next."""


def matches(path: Path) -> bool:
    """Whether the file bears HDF5's signature (at byte 0 or after a user block)."""
    return path.is_file() and bool(h5py.is_hdf5(path))


def open_source(path: Path, options: ReadOptions) -> Source:
    """Open a data set of an HDF5 file; see `beamseg.readers.open_source`.

    Without a name, the layouts of `hdf5_layouts` are tried, then the only 3-D numeric data set there is.
    """
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        if isinstance(error, PermissionError):
            raise
        cause = str(error)
        if "lock file" in cause:
            raise InputError(
                path, f"no lock to be had ({cause})", "a file system with locks, or none asked for", LOCKS
            ) from error
        if "truncated" in cause:
            cause = f"a truncated file of {path.stat().st_size} bytes"
        raise InputError(path, cause, "a whole HDF5 file", AGAIN) from error
    try:
        return _open(path, file, options)
    except InputError:
        file.close()
        raise


def _open(path: Path, file: h5py.File, options: ReadOptions) -> Source:
    scan = Inside(path, file, options)
    data = _named(scan, options.dataset or find(scan))
    refuse_projections(scan, data)
    check_type(path, data.dtype)
    warnings: list[str] = []
    files = [path, *_parts(path, data, warnings)]
    refuse_outside(path, data.name, files, options)
    _check_filters(path, data)
    if not data.is_virtual and data.external is None:
        _check_stored(path, data, warnings)
    size, doubts = said_size(lambda: voxel_size(scan, data))

    def read_window(z0: int, z1: int, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        return data[z0:z1, y0:y1, x0:x1]

    return Source(
        format="hdf5",
        shape=data.shape,
        dtype=native(data.dtype),
        files=files,
        read_window=read_window,
        voxel_size_um=size,
        warnings=warnings,
        size_warnings=doubts,
        compressed=bool(data.chunks) and data.id.get_create_plist().get_nfilters() > 0,
        chunks=data.chunks or (1, 1, 1),
        axes=axes_of(scan, data),
    )


def _named(scan: Inside, name: str) -> h5py.Dataset:
    path, file = scan.path, scan.file
    found = scan.get(name)
    choose = f"choose one of: {listed(candidates(file))}"
    if not isinstance(found, h5py.Dataset):
        what = "a group" if isinstance(found, h5py.Group) else "nothing"
        raise InputError(path, f"{what} at {name!r}", "a 3-D data set", choose)
    if found.ndim != 3 or 0 in found.shape:
        raise InputError(path, f"{name!r} of shape {found.shape}", "a 3-D data set", choose)
    if not found.external:
        return found
    place = found.name.encode()
    del found  # HDF5 opens it in another way only once it is closed
    beside = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    beside.set_efile_prefix(b"${ORIGIN}")  # by default files of bare voxels are looked for in the working directory
    return h5py.Dataset(h5py.h5d.open(file.id, place, beside))


def _check_filters(path: Path, data: h5py.Dataset) -> None:
    """Raise InputError where a filter that the voxels need is not installed."""
    properties = data.id.get_create_plist()
    for index in range(properties.get_nfilters()):
        code, _, _, name = properties.get_filter(index)
        if not h5py.h5z.filter_avail(code):
            called = f"{name.decode(errors='replace')!r} " if name else ""
            raise InputError(
                path,
                f"{data.name} is compressed by the filter {called}({code}), which is not installed",
                "a filter that h5py and hdf5plugin have (gzip, lzf, blosc, bitshuffle, lz4, zstd, zfp …)",
                "put the filter's plugin where HDF5_PLUGIN_PATH points, or repack the file where it was written: "
                f"h5repack -f {data.name}:GZIP=4 {path.name} repacked.h5",
            )


def _parts(path: Path, data: h5py.Dataset, warnings: list[str], depth: int = 0) -> list[Path]:
    """Other files that hold the voxels; raises InputError where one is missing, which HDF5 reads as zeros."""
    own = Path(data.file.filename)
    if depth > DEEPEST:
        found = f"{data.name} leads through more than {DEEPEST} files"
        raise InputError(path, found, "voxels", "merge the parts where it was made")
    parts = [own] if own.resolve() != path.resolve() else []
    if not data.is_virtual:
        return parts + [_raw_part(path, data, own.parent, *entry) for entry in data.external or ()]
    mapped = 0
    seen: set[tuple[Path, str]] = set()
    for source in data.virtual_sources():
        mapped += source.vspace.get_select_npoints()
        if source.file_name == ".":
            parts += _check_part(path, data, data.file, own.name, source.dset_name, warnings, depth)
            continue
        part = _part(path, data, own.parent, source.file_name)
        if (part, source.dset_name) in seen:
            continue
        seen.add((part, source.dset_name))
        parts += [] if part in parts else [part]
        try:
            with h5py.File(part, "r") as file:
                parts += _check_part(path, data, file, part.name, source.dset_name, warnings, depth)
        except OSError as error:
            if isinstance(error, PermissionError):
                raise
            size = part.stat().st_size
            raise InputError(
                part, f"a truncated or damaged part of {size} bytes ({error})", "a whole HDF5 file", AGAIN
            ) from error
    if mapped < data.size:
        warnings.append(f"{data.size - mapped} of {data.size} voxels of {data.name} are in no file; they read as 0")
    return parts


def _part(path: Path, data: h5py.Dataset, folder: Path, name: str) -> Path:
    """Where a part lies: HDF5 looks for its name beside the file, where an absolute path is gone."""
    for candidate in (folder / name, folder / Path(name).name) if Path(name).is_absolute() else (folder / name,):
        if candidate.exists():
            return candidate
    raise InputError(
        path, f"{data.name} takes voxels from {name}, which is missing", "all its files", "copy that file too"
    )


def _raw_part(path: Path, data: h5py.Dataset, folder: Path, name: str, offset: int, size: int) -> Path:
    """A file of bare voxels; raises InputError where it is too short, the rest of which HDF5 reads as zeros."""
    part = _part(path, data, folder, name)
    wanted = offset + (data.nbytes if size == h5py.h5f.UNLIMITED else min(size, data.nbytes))
    if (found := part.stat().st_size) < wanted:
        raise InputError(part, f"a truncated file of {found} bytes", f"{wanted} bytes of voxels", AGAIN)
    return part


def _check_part(
    path: Path,
    data: h5py.Dataset,
    file: h5py.File,
    name: str,
    inside: str,
    warnings: list[str],
    depth: int,
) -> list[Path]:
    """Refuse a part that cannot be read; further files that it leads to."""
    part = file.get(inside)
    if not isinstance(part, h5py.Dataset):
        raise InputError(
            path, f"{data.name} takes voxels from {inside} of {name}, which is missing", "all its parts", AGAIN
        )
    _check_filters(path, part)
    if not part.is_virtual and part.external is None:
        _check_stored(path, part, warnings, f" of {name}")
    leads_on = part.is_virtual or part.external is not None or part.file.filename != file.filename
    return _parts(path, part, warnings, depth + 1) if leads_on else []


def _check_stored(path: Path, data: h5py.Dataset, warnings: list[str], where: str = "") -> None:
    """HDF5 reads what was never written as the fill value: say so."""
    if data.id.get_storage_size() == 0:
        raise InputError(path, f"{data.name}{where} was created but never written", "voxels", "write the scan again")
    if data.chunks:
        there = data.id.get_num_chunks()
        wanted = int(np.prod([-(-n // c) for n, c in zip(data.shape, data.chunks, strict=True)]))
        if there < wanted:
            warnings.append(
                f"{wanted - there} of {wanted} chunks of {data.name}{where} were never written; "
                f"they read as {data.fillvalue}"
            )
