"""Readers of scans and labels: one module per format, found by content, never by the file's name alone."""

from __future__ import annotations

from pathlib import Path

from ..errors import InputError
from . import hdf5, tiff_pages, tiff_stack
from .colours import Labels, open_labels
from .source import Source

FORMATS = {"hdf5": hdf5, "tiff_stack": tiff_stack, "tiff": tiff_pages}

__all__ = ["FORMATS", "Labels", "Source", "open_labels", "open_source"]


def open_source(path: str | Path, dataset: str | None = None) -> Source:
    """Open a scan.

    Parameters
    ----------
    path : path
        An HDF5 file, a folder of TIFF slices, or a multi-page TIFF.
    dataset : str, optional
        The data set inside an HDF5 file; needed only where it is not clear which one is meant.

    Raises
    ------
    InputError
        For whatever is missing, unreadable, truncated, ambiguous or not a grey-valued 3-D volume.
    """
    source = open_any(path, dataset)
    if source.channels:
        raise InputError(
            Path(path),
            f"colour images of {source.channels} channels",
            "one grey value per voxel",
            "convert the images to grey, or give this path as labels or truth if the colours are classes",
        )
    return source


def open_any(path: str | Path, dataset: str | None = None) -> Source:
    """Open a scan or a label file; colour images are allowed. See `open_source`."""
    path = Path(path)
    if not path.exists():
        raise InputError(path, "no such file or folder", "a scan", "correct the path; it counts from the sample table")
    if path.is_file() and path.stat().st_size == 0:
        raise InputError(path, "an empty file (0 bytes)", "a scan", "copy the file again")
    for module in FORMATS.values():
        if module.matches(path):
            return module.open_source(path, dataset)
    raise InputError(
        path,
        "a file whose content is neither HDF5 nor TIFF",
        "an HDF5 file, a folder of TIFF slices or a multi-page TIFF",
        "convert the scan to one of these",
    )
