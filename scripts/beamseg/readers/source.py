"""What every reader returns: a source, which reads windows of the voxels as they are stored."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

DIGEST_SLICES = 8  # the content digest is taken in blocks of so many slices, whatever the slab depth is
MICROMETRES = {
    "m": 1e6,
    "meter": 1e6,
    "metre": 1e6,
    "mm": 1e3,
    "millimeter": 1e3,
    "um": 1.0,
    "µm": 1.0,
    "μm": 1.0,
    "\\u00b5m": 1.0,
    "micron": 1.0,
    "microns": 1.0,
    "micrometer": 1.0,
    "micrometre": 1.0,
    "nm": 1e-3,
    "nanometer": 1e-3,
    "nanometre": 1e-3,
    "angstrom": 1e-4,
}


@dataclass
class Source:
    """A scan or a label file, open for reading.

    Parameters
    ----------
    format : str
        Name of the reader.
    shape : (z, y, x)
        In voxels.
    dtype : dtype
        In the machine's byte order.
    files : list of Path
        All files that hold voxels.
    read_window : callable
        `(z0, z1, y0, y1, x0, x1) -> ndarray (z, y, x[, channel])`, within the volume.
    voxel_size_um : [z, y, x], optional
        In micrometres; None where the file does not say.
    warnings : list of str
        What a user should know. No paths, only file names, so that a copy reads the same.
    compressed : bool
        Whether reading decodes.
    depth : int
        Slices that are stored together (chunk depth along z); reading fewer decodes the same chunk again.
    channels : int
        0 for grey values, 3 for colour images (labels only).
    """

    format: str
    shape: tuple[int, int, int]
    dtype: np.dtype
    files: list[Path]
    read_window: Callable[[int, int, int, int, int, int], np.ndarray]
    voxel_size_um: list[float] | None = None
    warnings: list[str] = field(default_factory=list)
    compressed: bool = False
    depth: int = 1
    channels: int = 0

    def read(self, z0: int, z1: int, y: slice = slice(None), x: slice = slice(None)) -> np.ndarray:
        """Slices z0 … z1 (clipped to the volume) and the window y, x (steps of 1), in native byte order."""
        z0, z1, _ = slice(max(0, z0), max(0, z1)).indices(self.shape[0])
        y0, y1, _ = y.indices(self.shape[1])
        x0, x1, _ = x.indices(self.shape[2])
        tail = (self.channels,) if self.channels else ()
        if z1 <= z0 or y1 <= y0 or x1 <= x0:
            return np.empty((max(0, z1 - z0), max(0, y1 - y0), max(0, x1 - x0), *tail), self.dtype)
        block = self.read_window(z0, z1, y0, y1, x0, x1)
        return block.view(np.uint8) if block.dtype == bool else np.asarray(block, dtype=self.dtype)


def to_micrometres(value: float, unit: str) -> float | None:
    """A length in micrometres, or None for a unit that is not a length we know (pixel, inch of a screen)."""
    name = unit.strip().lower()
    factor = MICROMETRES.get(name, MICROMETRES.get(name.removesuffix("s")))
    return None if factor is None or not np.isfinite(value) or value <= 0 else float(value) * factor


def native(dtype: Any) -> np.dtype:
    """The dtype in the machine's byte order; booleans are read as uint8."""
    found = np.dtype(dtype)
    return np.dtype(np.uint8) if found.kind == "b" else found.newbyteorder("=")


def file_stat(files: Sequence[Path]) -> list[list[Any]]:
    """[[name, size in bytes, mtime in ns]] of the files: whether they may have changed, in no time."""
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def read_planes(source: Source, z0: int, z1: int, budget_mb: float = 64.0) -> Iterator[tuple[int, np.ndarray, str]]:
    """Read slices z0 … z1 one by one: (z, plane (y, x), digest).

    z0 is a multiple of 8. `digest` is the SHA-256 of the decoded voxels (little-endian) of the block of 8 slices that
    ends with this one, and empty before that. A read takes as many slices as `budget_mb` allows, or a whole chunk.
    """
    value = hashlib.sha256()
    for a, b in planes(source, z0, z1, budget_mb):
        block = source.read(a, b)
        for z, plane in enumerate(block, start=a):
            value.update(np.ascontiguousarray(plane, dtype=plane.dtype.newbyteorder("<")).data.cast("B"))
            last = (z + 1) % DIGEST_SLICES == 0 or z + 1 == source.shape[0]
            yield z, plane, value.hexdigest() if last else ""
            if last:
                value = hashlib.sha256()


def content_digest(source: Source) -> str:
    """Digest of all voxels of a source, as the histogram's pass finds it; reads everything once."""
    found = [digest for z0, z1 in task_borders(source) for _, _, digest in read_planes(source, z0, z1) if digest]
    return combine_digests(found, source.shape, source.dtype)


def combine_digests(blocks: Sequence[str], shape: Sequence[int], dtype: np.dtype) -> str:
    """The content digest of a volume, 16 hexadecimal digits, from those of its blocks of 8 slices in order.

    It depends on voxels, shape and dtype alone: not on the format, the compression, the names of the files, nor on
    how deep the reads were.
    """
    head = f"{list(map(int, shape))} {dtype.name}\n"
    return hashlib.sha256((head + "\n".join(blocks)).encode()).hexdigest()[:16]


def task_borders(source: Source, budget_mb: float = 256.0) -> list[tuple[int, int]]:
    """Cut the volume along z into reads [z0, z1), starts at multiples of 8, that decode no chunk twice.

    A chunk deeper than `budget_mb` allows is decoded more than once rather than held.
    """
    slice_mb = source.shape[1] * source.shape[2] * source.dtype.itemsize / 2**20
    depth = DIGEST_SLICES
    if source.depth > 1:
        common = int(np.lcm(source.depth, DIGEST_SLICES))
        depth = common if common * slice_mb <= budget_mb else DIGEST_SLICES
    return [(z, min(z + depth, source.shape[0])) for z in range(0, source.shape[0], depth)]


def planes(source: Source, z0: int, z1: int, budget_mb: float = 256.0) -> list[tuple[int, int]]:
    """Cut [z0, z1) so that one read holds at most `budget_mb`, one slice and one chunk at least."""
    slice_mb = source.shape[1] * source.shape[2] * source.dtype.itemsize / 2**20
    step = max(1, int(budget_mb / max(slice_mb, 1e-9)), source.depth if source.depth * slice_mb <= 256.0 else 1)
    return [(z, min(z + step, z1)) for z in range(z0, z1, step)]
