"""MRC and REC (electron tomography): a header of 1024 bytes, an extended one, and the voxels in one block."""

from __future__ import annotations

import warnings as python_warnings
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np

from ..errors import InputError
from .raw import mapped
from .source import AGAIN, ReadOptions, Source, native, sizes_um

HEADER = 1024
STAMP, STAMP_AT = b"MAP ", 208
SUFFIXES = (".mrc", ".rec", ".map", ".mrcs", ".st", ".ali")
MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
OTHERS = {3: "complex integers", 4: "complex numbers", 16: "colours", 101: "4-bit integers"}
IMOD, SIGNED_BYTES = 1146047817, 1  # IMOD's mark in the header, and the bit of its flags


def matches(path: Path) -> bool:
    """Whether the header bears MRC's stamp; files older than that are told by name and by a header that fits."""
    if not path.is_file() or path.stat().st_size < HEADER:
        return False
    with open(path, "rb") as file:
        head = file.read(HEADER)
    if head[STAMP_AT : STAMP_AT + 4] == STAMP:
        return True
    if path.suffix.lower() not in SUFFIXES:
        return False
    for order in "<>":
        *shape, mode = np.frombuffer(head, f"{order}i4", 4).tolist()
        if min(shape) > 0 and max(shape) < 2**20 and mode in MODES | OTHERS:
            return True
    return False


def open_source(path: Path, options: ReadOptions) -> Source:
    """Open an MRC file; see `beamseg.readers.open_source`.

    The order of the axes is the header's (mapc, mapr, maps). The first row of a section is its lowest, as the format
    defines and IMOD shows it, so that y is flipped: row 0 of what is read is the top of the image, as in TIFF.
    """
    header = _header(path)
    mode = int(header.mode)
    if mode not in MODES:
        raise InputError(
            path,
            f"mode {mode}, {OTHERS.get(mode, 'unknown')}",
            f"one of the modes {', '.join(map(str, MODES))}",
            "convert it with IMOD's newstack -mode 2, say",
        )
    shape = (int(header.nz), int(header.ny), int(header.nx))
    dtype = np.dtype(MODES[mode]).newbyteorder(header.mode.dtype.byteorder)
    warnings: list[str] = []
    if mode == 0 and _unsigned(header):
        dtype = np.dtype(np.uint8)
    axes = _axes(path, header)
    if axes == "zyx" and 2 * shape[1] < min(shape[0], shape[2]):
        warnings.append(
            f"{shape[1]} rows, far fewer than slices and columns: if the thin direction is z (IMOD before trimvol), "
            "set `ingest.axes: yzx`"
        )
    size, doubts = _size(header, axes)
    return Source(
        format="mrc",
        shape=shape,
        dtype=native(dtype),
        files=[path],
        read_window=mapped(path, shape, dtype, HEADER + max(0, int(header.nsymbt))),
        voxel_size_um=size,
        size_warnings=doubts,
        warnings=warnings,
        axes=axes,
        flip=("y",),
    )


def _header(path: Path) -> Any:
    with python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore")  # what is wrong with a header is said below, or does not matter
        try:
            with mrcfile.open(path, mode="r", permissive=True, header_only=True) as file:
                return file.header
        except ValueError as error:
            raise InputError(path, f"a damaged MRC header ({error})", "an MRC file", AGAIN) from error


def _unsigned(header: Any) -> bool:
    """Whether bytes are unsigned: IMOD says so in its flags; else a header whose values exceed a signed byte."""
    stamp, flags = np.frombuffer(header.tobytes()[152:160], header.mode.dtype, 2).tolist()
    if stamp == IMOD:
        return not flags & SIGNED_BYTES
    return float(header.dmax) > 127


def _axes(path: Path, header: Any) -> str:
    """Order of the stored axes, slowest first; unset fields mean columns x, rows y, sections z."""
    numbers = [int(header.maps), int(header.mapr), int(header.mapc)]
    if numbers == [0, 0, 0]:
        return "zyx"
    if sorted(numbers) != [1, 2, 3]:
        raise InputError(
            path, f"mapc, mapr, maps are {numbers[::-1]}", "1, 2, 3 in some order", "mend the header (alterheader)"
        )
    return "".join("xyz"[number - 1] for number in numbers)


def _size(header: Any, axes: str) -> tuple[list[float] | None, list[str]]:
    """Voxel size in the order of the stored axes, from the cell (ångström) and its sampling."""
    samples = [int(header[f"m{axis}"]) for axis in axes]
    if min(samples) < 1:
        return None, []
    return sizes_um([float(header.cella[a]) / n for a, n in zip(axes, samples, strict=True)], "Å")
