"""Slabs: the files a volume is cut into along z, one HDF5 file per slab and stage.

A slab is the unit of files and of resume. A stage writes its slabs, then one manifest (JSON) that lists them with
digests; readers go by manifests and refuse a missing slab. A part `k-of-n` takes every n-th slab and leaves a
manifest of its own; the manifests of all parts together make the volume.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np

from .errors import InputError
from .progress import Progress
from .provenance import atomic_path, no_room, read_json, write_json

ALIGN = 8
CHUNK = (8, 256, 256)
MAX_LAYER = 2**28
"""Most voxels of a layer, the chunks that a slice runs through, which a writer holds until the layer is whole."""
MAX_SLAB_BYTES = 4 * 2**30
STORED = {"grey": 0.75, "labels": 0.1, "confidence": 0.35, "votes": 0.2}
"""Bytes on disk per byte of an array, as measured on noisy scans; of votes, a guess."""


def slab_borders(n_slices: int, depth: int) -> list[tuple[int, int]]:
    """Cut `n_slices` into slabs [z0, z1) that start at multiples of 8; the last takes the remainder.

    `depth` is rounded down to a multiple of 8 (at least 8). A volume under 16 slices is one slab, and a remainder
    shorter than 8 slices joins the slab before it.
    """
    if n_slices < 2 * ALIGN:
        return [(0, n_slices)]
    depth = max(ALIGN, depth // ALIGN * ALIGN)
    starts = list(range(0, n_slices, depth))
    if len(starts) > 1 and n_slices - starts[-1] < ALIGN:
        starts.pop()
    return list(zip(starts, [*starts[1:], n_slices], strict=True))


def default_depth(shape: Sequence[int], itemsize: int = 2, most: int = 128) -> int:
    """Slab depth in slices: at most `most`, and at most 4 GiB of `itemsize`-byte voxels."""
    slice_bytes = int(shape[1]) * int(shape[2]) * itemsize
    return max(ALIGN, min(most, MAX_SLAB_BYTES // max(1, slice_bytes)))


def parse_part(part: str) -> tuple[int, int]:
    """`'2-of-4'` -> (1, 4): index from 0, and the number of parts."""
    index, _, count = part.partition("-of-")
    return int(index) - 1, int(count)


def even_chunks(shape: Sequence[int]) -> tuple[int, ...]:
    """Chunks of at most (8, 256, 256), alike: the last of a row is stored in full however little it holds.

    4, 2 or 1 slices deep where eight slices have more than `MAX_LAYER` voxels.
    """
    depth, *most = CHUNK
    while depth > 1 and depth * shape[1] * shape[2] > MAX_LAYER:
        depth //= 2
    return (min(depth, shape[0]), *(-(-n // -(-n // edge)) for n, edge in zip(shape[1:], most, strict=True)))


def slab_arrays(dtypes: dict[str, Any], shape: tuple[int, int, int]) -> dict[str, dict[str, Any]]:
    """h5py options per array: chunks as in `even_chunks`; blosc-lz4 bitshuffle for grey levels, gzip for labels."""
    chunks = even_chunks(shape)
    options: dict[str, dict[str, Any]] = {}
    for name, dtype in dtypes.items():
        if name == "grey":
            filters = dict(hdf5plugin.Blosc(cname="lz4", clevel=5, shuffle=hdf5plugin.Blosc.BITSHUFFLE))
        else:
            filters = {"compression": "gzip", "compression_opts": 1}
        options[name] = {"dtype": np.dtype(dtype), "shape": shape, "chunks": chunks, **filters}
    return options


def stored_bytes(dtypes: dict[str, Any], voxels: int) -> int:
    """Forecast of what slabs of so many voxels take on disk."""
    return math.ceil(voxels * sum(STORED[name] * np.dtype(dtype).itemsize for name, dtype in dtypes.items()))


def most_bytes(dtypes: dict[str, Any], voxels: int) -> int:
    """What slabs of so many voxels may take on disk: noise in all bits cannot be compressed."""
    return math.ceil(1.01 * voxels * sum(np.dtype(dtype).itemsize for dtype in dtypes.values()))


class RecordedFile(io.FileIO):
    """A file for h5py whose writes never fail: the first error is kept, and `check` raises it.

    HDF5 drops chunks that it cannot write and crashes when a file is closed after that; so it is not told.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "w+")
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        """Write all of `data`, or remember why not."""
        left = memoryview(data).cast("B")
        size = len(left)
        while self.error is None and len(left):
            try:
                left = left[super().write(left) :]
            except OSError as error:
                self.error = error
        return size

    def truncate(self, size: int | None = None) -> int:
        """Set the file's size, or remember why not."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return self.tell() if size is None else size

    def check(self, path: Path) -> None:
        """Raise InputError if a write has failed."""
        if self.error is not None:
            raise no_room(path, os.strerror(self.error.errno or errno.EIO))


class SlabWriter:
    """One open slab file: `put(name, z, block)` writes slices z … of the volume's z axis, in increasing order.

    Slices wait until their layer of chunks is whole, so that each chunk is compressed once. `check` is called after
    each `put`, to raise what has gone wrong, and `progress` with the voxels of the first array.
    """

    def __init__(
        self,
        file: h5py.File,
        z0: int,
        check: Callable[[], None] = lambda: None,
        progress: Callable[[int], None] = lambda voxels: None,
    ) -> None:
        self._z0, self._check, self._progress = z0, check, progress
        self._arrays: dict[str, h5py.Dataset] = dict(file)
        self._layers: dict[str, np.ndarray] = {}
        self._hashes = {name: hashlib.sha256() for name in file}
        self._next = dict.fromkeys(file, z0)
        self.notes: dict[str, Any] = {}

    def put(self, name: str, z: int, block: np.ndarray) -> None:
        """Write `block` (nz, y, x) at slice `z` of the volume; raises ValueError when slices come out of order."""
        if z != self._next[name]:
            raise ValueError(f"slab array {name!r}: slice {z} came, slice {self._next[name]} was due")
        array = self._arrays[name]
        block = np.ascontiguousarray(block, dtype=array.dtype)
        first, end, depth = z - self._z0, z - self._z0 + len(block), array.chunks[0]
        for a in range(first // depth * depth, end, depth):
            b = min(a + depth, len(array))
            start, stop = max(a, first), min(b, end)
            part = block[start - first : stop - first]
            if (start, stop) != (a, b):
                if start == a:
                    self._layers[name] = np.empty((b - a, *array.shape[1:]), array.dtype)
                self._layers[name][start - a : stop - a] = part
                part = self._layers[name]
            if stop == b:
                array[a:b] = part
                self._layers.pop(name, None)
        self._check()
        self._hashes[name].update(block.view(np.uint8).data)
        self._next[name] += len(block)
        if name == next(iter(self._next)):
            self._progress(block.size)

    def finish(self, z1: int) -> dict[str, str]:
        """Digests of the arrays; raises ValueError if one of them was not written to its end."""
        for name, z in self._next.items():
            if z != z1:
                raise ValueError(f"slab array {name!r} ends at slice {z}, not at {z1}")
        return {name: value.hexdigest()[:16] for name, value in self._hashes.items()}


def run_slabs(
    manifest: str | Path,
    *,
    stage: str,
    identity: str,
    shape: tuple[int, int, int],
    depth: int,
    dtypes: dict[str, Any],
    fill: Callable[[int, int, SlabWriter], None],
    part: str = "1-of-1",
    notes: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Compute the slabs of one part of a stage and write its manifest; finished slabs are kept.

    Parameters
    ----------
    manifest : path
        The stage's output, `<folder>/<part>.json`; slab files `slab_<z0>.h5` go beside it.
    identity : str
        Digest of settings and inputs. A slab file that bears it is complete (it was renamed into place) and is
        not computed again.
    shape : (z, y, x)
        Of the whole volume.
    depth : int
        Slab depth in slices.
    dtypes : dict
        Array name -> dtype of what each slab holds.
    fill : callable
        `fill(z0, z1, writer)` writes slices z0 … z1 of every array, in order. What it leaves in `writer.notes`
        (JSON-like) is kept in the manifest entry of the slab.
    part : str
        `k-of-n`; this call takes every n-th slab from the k-th.
    notes : dict, optional
        Further entries of the manifest.

    Returns
    -------
    dict
        The manifest: stage, identity, shape, part, arrays, slabs [{z0, z1, file, digests, notes}].

    Raises
    ------
    InputError
        If the disk cannot take the slabs, by a forecast before the first or when a write fails.
    """
    manifest = Path(manifest)
    index, count = parse_part(part)
    borders = slab_borders(shape[0], depth)[index::count]
    entries = []
    paths = {z0: manifest.parent / f"slab_{z0:06d}.h5" for z0, _ in borders}
    finished = {z0: _finished(paths[z0], identity, z1) for z0, z1 in borders}
    missing = sum(z1 - z0 for z0, z1 in borders if finished[z0] is None) * shape[1] * shape[2]
    check_room(manifest.parent, stored_bytes(dtypes, missing))
    voxels = sum(z1 - z0 for z0, z1 in borders) * shape[1] * shape[2]
    with Progress(voxels, "voxels", stage, done=voxels - missing) as progress:
        for z0, z1 in borders:
            entry = finished[z0] or _write_slab(paths[z0], identity, (z0, z1), shape, dtypes, fill, progress.update)
            entries.append({"z0": z0, "z1": z1, "file": paths[z0].name, **entry})
    result = {
        "stage": stage,
        "identity": identity,
        "shape": list(shape),
        "part": part,
        "arrays": {name: np.dtype(dtype).name for name, dtype in dtypes.items()},
        "slabs": entries,
        **(notes or {}),
    }
    write_json(manifest, result)
    return result


def check_room(folder: Path, needed: int) -> None:
    """Raise InputError unless `folder` can be written to and its disk has `needed` bytes left."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError as error:
        raise no_room(folder, os.strerror(error.errno or errno.EIO)) from error
    if needed and not writable:
        raise no_room(folder, "a folder that cannot be written to")
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise no_room(folder, f"{free / 1e9:.3g} GB free, and about {needed / 1e9:.3g} GB to write")


def _finished(path: Path, identity: str, z1: int) -> dict[str, Any] | None:
    """Digests and notes of a slab already written up to `z1` under this identity, else None."""
    if not path.exists():
        return None
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("identity") != identity or file.attrs.get("z1") != z1:
                return None
            return json.loads(file.attrs["entry"])
    except (OSError, KeyError):
        return None


def _write_slab(
    path: Path,
    identity: str,
    border: tuple[int, int],
    shape: tuple[int, int, int],
    dtypes: dict[str, Any],
    fill: Callable[[int, int, SlabWriter], None],
    progress: Callable[[int], None],
) -> dict[str, Any]:
    z0, z1 = border
    with atomic_path(path) as temporary, RecordedFile(temporary) as raw:
        with h5py.File(raw, "w") as file:
            for name, options in slab_arrays(dtypes, (z1 - z0, *shape[1:])).items():
                file.create_dataset(name, **options)
            writer = SlabWriter(file, z0, lambda: raw.check(path), progress)
            fill(z0, z1, writer)
            entry = {"digests": writer.finish(z1), "notes": writer.notes}
            file.attrs["identity"], file.attrs["z1"] = identity, z1
            file.attrs["entry"] = json.dumps(entry, sort_keys=True)
        raw.check(path)
    return entry


class SlabVolume:
    """A volume read through the manifests of a stage's parts.

    Raises
    ------
    InputError
        If a slab is missing from the manifests or from the disk.
    """

    def __init__(self, manifests: Sequence[str | Path], array: str) -> None:
        self.array = array
        self._slabs: list[tuple[int, int, Path]] = []
        self.manifests = [read_json(path) for path in manifests]
        for path, manifest in zip(manifests, self.manifests, strict=True):
            if array not in manifest["arrays"]:
                raise InputError(
                    path, f"arrays {sorted(manifest['arrays'])}", f"an array {array!r}", "remove the file and rerun"
                )
            self._slabs += [(s["z0"], s["z1"], Path(path).parent / s["file"]) for s in manifest["slabs"]]
        self._slabs.sort()
        self.shape: tuple[int, int, int] = tuple(self.manifests[0]["shape"])
        self.dtype = np.dtype(self.manifests[0]["arrays"][array])
        z = 0
        for z0, z1, path in self._slabs:
            if z0 != z:
                break
            if not path.exists():
                raise InputError(path, "no such slab file", "the slab that its manifest lists", _REBUILD)
            z = z1
        if z != self.shape[0]:
            raise InputError(manifests[0], f"slabs up to slice {z}", f"{self.shape[0]} slices", _REBUILD)
        self._open: dict[Path, h5py.File] = {}

    def slabs(self) -> Iterator[dict[str, Any]]:
        """Manifest entries of all slabs, in order of z."""
        yield from sorted((s for m in self.manifests for s in m["slabs"]), key=lambda s: s["z0"])

    def read(self, z0: int, z1: int, y: slice = slice(None), x: slice = slice(None)) -> np.ndarray:
        """Slices z0 … z1 (clipped to the volume) and the window y, x; shape (z, y, x)."""
        z0, z1 = max(0, z0), min(self.shape[0], z1)
        pieces = []
        for s0, s1, path in self._slabs:
            if s0 < z1 and s1 > z0:
                pieces.append(self._file(path)[self.array][max(z0, s0) - s0 : min(z1, s1) - s0, y, x])
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _file(self, path: Path) -> h5py.File:
        if path not in self._open:
            if len(self._open) >= 16:
                self._open.pop(next(iter(self._open))).close()
            self._open[path] = h5py.File(path, "r")
        return self._open[path]

    def close(self) -> None:
        """Close the slab files."""
        for file in self._open.values():
            file.close()
        self._open.clear()


_REBUILD = "rerun the stage: delete its manifest and start the same command again"
