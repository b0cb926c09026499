"""PNG stack: a folder of one PNG per slice, for painted labels above all."""

from __future__ import annotations

import struct
from pathlib import Path

import imagecodecs
import numpy as np

from ..errors import InputError
from .numbering import in_order, same_kind
from .source import AGAIN, ReadOptions, Source

SUFFIX = ".png"
MAGIC = b"\x89PNG\r\n\x1a\n"
COLOUR_TYPES = {0: 0, 2: 3, 3: 3, 4: 0, 6: 3}  # grey, RGB, palette, grey and alpha, RGBA -> channels kept


def matches(path: Path) -> bool:
    """Whether the path is a folder of PNG files without TIFF files."""
    if not path.is_dir():
        return False
    suffixes = {p.suffix.lower() for p in path.iterdir() if not p.name.startswith(".")}
    return SUFFIX in suffixes and not suffixes & {".tif", ".tiff"}


def open_source(path: Path, options: ReadOptions) -> Source:
    """Open a folder of PNG slices; every header is read. See `beamseg.readers.open_source`."""
    files, warnings = in_order(path, (SUFFIX,), options.allow_gaps)
    kinds = [_kind(file) for file in files]
    same_kind(files, [(kind[:2], kind[2]) for kind in kinds])
    (rows, columns, dtype, channels) = kinds[0]
    if any(kind[3] != channels for kind in kinds):
        other = next(file for file, kind in zip(files, kinds, strict=True) if kind[3] != channels)
        raise InputError(other, "grey and colour images mixed", f"all as {files[0].name}", "save all of one kind")

    def read_window(z0: int, z1: int, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        return np.stack([_decoded(file, channels)[y0:y1, x0:x1] for file in files[z0:z1]])

    return Source(
        format="png_stack",
        shape=(len(files), rows, columns),
        dtype=dtype,
        files=files,
        read_window=read_window,
        warnings=warnings,
        compressed=True,
        chunks=(1, rows, columns),
        channels=channels,
    )


def _kind(file: Path) -> tuple[int, int, np.dtype, int]:
    """(rows, columns, dtype, channels) from the header."""
    with open(file, "rb") as stream:
        head = stream.read(26)
    if len(head) < 26 or not head.startswith(MAGIC):
        raise InputError(file, "no PNG header", "a PNG file", AGAIN)
    columns, rows, bits, colour = struct.unpack(">IIBB", head[16:26])
    return rows, columns, np.dtype(np.uint16 if bits == 16 else np.uint8), COLOUR_TYPES.get(colour, 0)


def _decoded(file: Path, channels: int) -> np.ndarray:
    try:
        image = imagecodecs.png_decode(file.read_bytes())
    except Exception as error:  # the codec raises errors of many kinds; all mean that the file cannot be read
        raise InputError(file, f"cannot be decoded ({error})", "a readable PNG", AGAIN) from error
    if channels:
        return image[..., :3]
    return image[..., 0] if image.ndim == 3 else image
