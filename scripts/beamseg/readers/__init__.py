"""Readers of scans and labels: one module per format, found by content, never by the file's name alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import InputError
from . import dm, hdf5, metaimage, mrc, npy, nrrd, ome_zarr, png_stack, tiff_pages, tiff_stack, vol_info
from .colours import Labels, open_labels
from .source import Linked, ReadOptions, Source, known_size, oriented

FORMATS = {
    "hdf5": hdf5,
    "tiff": tiff_pages,
    "npy": npy,
    "nrrd": nrrd,
    "mrc": mrc,
    "dm": dm,
    "metaimage": metaimage,
    "vol_info": vol_info,
    "ome_zarr": ome_zarr,
    "png_stack": png_stack,
    "tiff_stack": tiff_stack,
}
KNOWN = "HDF5, TIFF, MRC, DM3, DM4, OME-Zarr, npy, NRRD, MetaImage, PyHST's .vol with .vol.info, or a folder of slices"

__all__ = ["FORMATS", "Labels", "Linked", "Source", "how_to_read", "known_size", "open_labels", "open_source"]


def how_to_read(dataset: str | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of `open_source` from a data set's name and a section of the configuration."""
    keys = ("axes", "flip", "level", "allow_gaps", "external_links")
    return {"dataset": dataset or None} | {key: settings[key] for key in keys if key in settings}


def open_source(
    path: str | Path,
    dataset: str | None = None,
    *,
    axes: str | None = None,
    flip: Sequence[str] | None = None,
    level: int = 0,
    allow_gaps: bool = False,
    external_links: str = "none",
    colours: bool = False,
) -> Source:
    """Open a scan, or a label file.

    Parameters
    ----------
    path : path
        A file or folder of one of the formats, see `docs/inputs.md`.
    dataset : str, optional
        The data set inside an HDF5 file or a Zarr store; needed only where it is not clear which one is meant.
    axes : str, optional
        Order of the stored axes, a permutation of `zyx`; by default what the file or its format says.
    flip : sequence of str, optional
        Axes to read from their end; by default as the format defines (y for MRC, none else).
    level : int
        Of a multiscale OME-Zarr, 0 is the finest.
    allow_gaps : bool
        Whether numbers may be missing between the slices of a folder.
    external_links : str
        none, beside or any: files that an HDF5 file may lead to; with `any`, other formats too may name files outside
        the scan's folder.
    colours : bool
        Whether colour images are let through, as masks of labels may be.

    Raises
    ------
    InputError
        For whatever is missing, unreadable, truncated, ambiguous or not a grey-valued 3-D volume.
    """
    path = Path(path)
    options = ReadOptions(dataset, axes, None if flip is None else tuple(flip), level, allow_gaps, external_links)
    try:
        source = _stored(path, options)
    except InputError:
        raise
    except OSError as error:
        raise InputError(
            path,
            f"cannot be read ({error.strerror or error})",
            "a scan that you may read",
            "ask its owner for permission to read it (ls -l shows the permissions), or check the disk",
        ) from error
    except Exception as error:  # what a header says is read in many places, any of which it may not fit
        raise InputError(
            path,
            f"a header or metadata that cannot be understood ({type(error).__name__}: {error})",
            "a scan as its format defines it",
            "export the scan again, mend its header, or convert it to another format",
        ) from error
    if source.channels and not colours:
        raise InputError(
            path,
            f"colour images of {source.channels} channels",
            "one grey value per voxel",
            "convert the images to grey, or give this path as labels or truth if the colours are classes",
        )
    return oriented(source, options.axes or source.axes, source.flip if options.flip is None else options.flip)


def _stored(path: Path, options: ReadOptions) -> Source:
    if not path.exists():
        raise InputError(path, "no such file or folder", "a scan", "correct the path; it counts from the sample table")
    if path.is_file():
        with open(path, "rb") as file:
            if not file.read(1):
                raise InputError(path, "an empty file (0 bytes)", "a scan", "copy the file again")
    for module in FORMATS.values():
        if module.matches(path):
            return module.open_source(path, options)
    raise InputError(
        path,
        "a file of unknown content",
        KNOWN,
        "convert the scan to one of these; of raw voxels, give the header file (.mhd, .nhdr, .vol.info)",
    )
