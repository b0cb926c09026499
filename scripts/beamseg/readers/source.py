"""What every reader returns: a source, which reads windows of the voxels as (z, y, x), however they are stored."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError

DIGEST_SLICES = 8  # the content digest is taken in blocks of so many slices, whatever the slab depth is
MICROMETRES = {
    "m": 1e6,
    "meter": 1e6,
    "metre": 1e6,
    "cm": 1e4,
    "centimeter": 1e4,
    "centimetre": 1e4,
    "mm": 1e3,
    "millimeter": 1e3,
    "millimetre": 1e3,
    "um": 1.0,
    "µm": 1.0,
    "μm": 1.0,
    "\\u00b5m": 1.0,
    "micron": 1.0,
    "micrometer": 1.0,
    "micrometre": 1.0,
    "nm": 1e-3,
    "nanometer": 1e-3,
    "nanometre": 1e-3,
    "å": 1e-4,
    "ångström": 1e-4,
    "angstrom": 1e-4,
}
AGAIN = "copy the file again, or wait until it is written"


@dataclass(frozen=True)
class ReadOptions:
    """How a path is to be read, where the file alone does not say it; see the section `ingest` of the schema."""

    dataset: str | None = None
    axes: str | None = None
    flip: tuple[str, ...] | None = None
    level: int = 0
    allow_gaps: bool = False
    external_links: str = "none"


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
    size_warnings : list of str
        What is doubtful about the voxel size; void where the configuration gives one.
    compressed : bool
        Whether reading decodes.
    chunks : (z, y, x)
        Voxels that are stored together; reading fewer decodes the same chunk again.
    channels : int
        0 for grey values, 3 for colour images (labels only).
    axes : str
        Order of the axes in the file. Readers describe the stored array (shape, window, sizes, chunks all in stored
        order) and say here what it is by the format's own convention; `oriented` turns it into z, y, x.
    flip : tuple of str
        Axes whose first stored index is the far end: `('y',)` where the first stored row is the lowest of the image.
    """

    format: str
    shape: tuple[int, int, int]
    dtype: np.dtype
    files: list[Path]
    read_window: Callable[[int, int, int, int, int, int], np.ndarray]
    voxel_size_um: list[float] | None = None
    warnings: list[str] = field(default_factory=list)
    size_warnings: list[str] = field(default_factory=list)
    compressed: bool = False
    chunks: tuple[int, int, int] = (1, 1, 1)
    channels: int = 0
    axes: str = "zyx"
    flip: tuple[str, ...] = ()

    @property
    def depth(self) -> int:
        """Slices that are stored together."""
        return self.chunks[0]

    def read(self, z0: int, z1: int, y: slice = slice(None), x: slice = slice(None)) -> np.ndarray:
        """Slices z0 … z1 (clipped to the volume) and the window y, x (steps of 1), in native byte order."""
        z0, z1, _ = slice(max(0, z0), max(0, z1)).indices(self.shape[0])
        y0, y1, _ = y.indices(self.shape[1])
        x0, x1, _ = x.indices(self.shape[2])
        tail = (self.channels,) if self.channels else ()
        if z1 <= z0 or y1 <= y0 or x1 <= x0:
            return np.empty((max(0, z1 - z0), max(0, y1 - y0), max(0, x1 - x0), *tail), self.dtype)
        try:
            block = self.read_window(z0, z1, y0, y1, x0, x1)
        except OSError as error:
            raise InputError(
                self.files[0],
                f"slices {z0} to {z1 - 1} cannot be read ({error})",
                "readable voxels",
                "check the disk and the permissions, or copy the file again",
            ) from error
        return block.view(np.uint8) if block.dtype == bool else np.asarray(block, dtype=self.dtype)


def oriented(source: Source, axes: str, flip: Sequence[str]) -> Source:
    """The stored array of a source seen as (z, y, x).

    Parameters
    ----------
    source : Source
        In stored order.
    axes : str
        Order of the stored axes, a permutation of `zyx`; `yzx` means that the second stored axis is z.
    flip : sequence of str
        Axes that are read from their end.

    Returns
    -------
    Source
        Its windows are contiguous copies where anything is moved, else the reader's own.
    """
    flip = tuple(axis for axis in "zyx" if axis in flip)
    if axes == "zyx" and not flip:
        return replace(source, axes=axes, flip=flip)
    place = [axes.index(axis) for axis in "zyx"]
    shape = (source.shape[place[0]], source.shape[place[1]], source.shape[place[2]])
    size = source.voxel_size_um
    stored_window = source.read_window

    def read_window(z0: int, z1: int, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        window = dict(zip("zyx", ((z0, z1), (y0, y1), (x0, x1)), strict=True))
        for axis, n in zip("zyx", shape, strict=True):
            if axis in flip:
                start, stop = window[axis]
                window[axis] = (n - stop, n - start)
        first, second, third = (window[axis] for axis in axes)
        block = stored_window(*first, *second, *third)
        block = block.transpose(*place, *range(3, block.ndim))
        return np.ascontiguousarray(block[tuple(slice(None, None, -1 if axis in flip else 1) for axis in "zyx")])

    return replace(
        source,
        shape=shape,
        read_window=read_window,
        voxel_size_um=None if size is None else [size[k] for k in place],
        chunks=(source.chunks[place[0]], source.chunks[place[1]], source.chunks[place[2]]),
        axes=axes,
        flip=flip,
    )


def sizes_um(values: Sequence[float], units: str | Sequence[str]) -> tuple[list[float] | None, list[str]]:
    """(voxel size in micrometres or None, warnings) of three lengths as a file writes them, in one unit or three."""
    named = [units] * 3 if isinstance(units, str) else list(units)
    size = [value for value in map(to_micrometres, values, named) if value is not None]
    if len(size) != 3:
        unknown = [name for name in named if to_micrometres(1, name) is None]
        if not unknown or not all(np.isfinite(value) and value > 0 for value in values):
            return None, []
        said = f"in {unknown[0]!r}" if unknown[0] else "without a unit"
        return None, [f"the file gives the voxel size {said}: {values[0]:g}; set `voxel_size_um`"]
    if all(value == 1 for value in values):
        return size, [f"the voxel size is exactly 1 {named[0]}, which programs write when they do not know it"]
    return [float(f"{value:.7g}") for value in size], []  # single precision, which many formats store


def said_size(
    read: Callable[[], tuple[list[float] | None, list[str]]],
) -> tuple[list[float] | None, list[str]]:
    """(voxel size or None, warnings) as `read` finds them; one that makes no sense is a warning, as none is."""
    try:
        return read()
    except (ValueError, TypeError, KeyError, SyntaxError) as error:  # SyntaxError: XML that is none
        return None, [f"the voxel size that the file gives cannot be understood ({error}); set `voxel_size_um`"]


def known_size(source: Source, configured: Any = None) -> tuple[list[float] | None, list[str]]:
    """([z, y, x] in micrometres or None, warnings): what the configuration gives, else what the file says.

    Parameters
    ----------
    source : Source
    configured : float or [z, y, x], optional
        Key `voxel_size_um`, micrometres.

    Raises
    ------
    InputError
        For a configured size that is not one or three positive numbers.
    """
    if configured is None:
        size = source.voxel_size_um
        missing = ["the file gives no voxel size; set `voxel_size_um`, else lengths are in voxels"]
        return size, source.size_warnings or ([] if size else missing)
    size = [float(value) for value in np.atleast_1d(np.asarray(configured, dtype=float))]
    size = size * 3 if len(size) == 1 else size
    if len(size) != 3 or not all(np.isfinite(value) and value > 0 for value in size):
        raise InputError("voxel_size_um", str(configured), "one positive number or three, z, y, x", "correct it")
    return size, []


def begins_with(path: Path, *magics: bytes) -> bool:
    """Whether a file's first bytes are one of `magics`; False for a folder."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(max(map(len, magics))).startswith(magics)


def to_micrometres(value: float, unit: str) -> float | None:
    """A length in micrometres, or None for a unit that is not a length we know (pixel, inch of a screen)."""
    name = unit.strip().lower()
    factor = MICROMETRES.get(name, MICROMETRES.get(name.removesuffix("s")))
    return None if factor is None or not np.isfinite(value) or value <= 0 else float(value) * factor


class Linked(InputError):
    """A scan whose voxels lie in other files, where the settings allow none.

    Parameters
    ----------
    files : sequence of Path
        Those that it names, which may be missing.
    """

    def __init__(self, where: str | Path, found: str, expected: str, remedy: str, files: Sequence[Path] = ()) -> None:
        super().__init__(where, found, expected, remedy)
        self.files = list(files)


def is_beside(path: Path) -> Callable[[Path], bool]:
    """Whether a file lies in the folder of a scan, or below; links of the file system are followed first."""
    homes = {path.absolute().parent.resolve(), path.resolve().parent}
    return lambda part: any(part.resolve().is_relative_to(home) for home in homes)


def refuse_outside(path: Path, what: str, files: Iterable[Path], options: ReadOptions) -> None:
    """Raise InputError for voxels from outside the scan's own folder: a scan from elsewhere could name any file.

    Files beside the scan and below its folder pass: whether HDF5 may name any is asked before, see
    `hdf5_layouts.Inside`, and formats with a header of its own always do.

    Parameters
    ----------
    path : Path
        The scan, as it was given.
    what : str
        What in it names the files.
    files : iterable of Path
    options : ReadOptions
        With `external_links` any, nothing is refused.
    """
    beside = is_beside(path)
    for part in () if options.external_links == "any" else files:
        if not beside(part):
            raise InputError(
                path,
                f"{what} takes voxels from {part}, outside the folder of {path.name}",
                "voxels in the file, or in files beside and below it",
                "put that file beside it; or set `ingest: {external_links: any}` in config.yaml, which counts for "
                "scans, if you trust where the scan comes from",
            )


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
