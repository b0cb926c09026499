"""Rounds of annotation: regions of a scan exported to be painted, and the painted ones as labels of the scan.

`annotations/<sample>/round-<n>/` holds `regions.json` (shape of the scan [z, y, x], size of a region [y, x], each
region's first voxel [z, y, x], and how the scan was read: dataset, axes, flip, level), `images.tif` and `labels.tif` (a
page per region), and `painted/`, where the user drops the result: one TIFF of the same pages, as napari or Fiji write
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from .errors import InputError
from .provenance import read_json
from .readers.colours import Labels
from .readers.source import Source

FOLDER = "annotations"
REGIONS = "regions.json"
PAINTED = "painted"


@dataclass(frozen=True)
class Round:
    """A round's folder, the size (y, x) of its regions and their first voxels (z, y, x), of a scan of `shape`.

    `ingest` is how the scan was read (see `reading`); None in folders that do not say so.
    """

    folder: Path
    shape: tuple[int, int, int]
    size: tuple[int, int]
    corners: list[tuple[int, int, int]]
    ingest: dict[str, Any] | None = None

    @property
    def painted(self) -> Path | None:
        """The file that was dropped, if there is one.

        Raises
        ------
        InputError
            If there are several.
        """
        files = (path for path in (self.folder / PAINTED).glob("*") if not path.name.startswith("."))
        found = sorted(path for path in files if path.suffix.lower() in (".tif", ".tiff"))
        if len(found) > 1:
            raise InputError(
                self.folder / PAINTED,
                f"{len(found)} files ({', '.join(path.name for path in found[:4])})",
                f"one file of {len(self.corners)} pages",
                "leave the one that counts",
            )
        return found[0] if found else None


def rounds(folder: str | Path) -> list[Round]:
    """Rounds of a sample's folder, the first one first; none where the folder is none of annotations."""
    found = [path for path in Path(folder).glob(f"round-*/{REGIONS}") if path.parent.name[6:].isdigit()]
    result = []
    for path in sorted(found, key=lambda p: int(p.parent.name[6:])):
        try:
            entry = read_json(path)
            shape, size = tuple(entry["shape"]), tuple(entry["size"])
            corners = [tuple(corner) for corner in entry["corners"]]
            result.append(Round(path.parent, shape, size, corners, entry.get("ingest")))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                path, f"damaged ({error!r})", "shape, size and corners, as annotate wrote them", "restore it"
            ) from error
    return result


def reading(dataset: str | None, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What of a scan's `dataset` and section `ingest` says where a voxel of the array lies in the file."""
    return {"dataset": dataset or None} | {key: settings[key] for key in ("axes", "flip", "level")}


def check_reading(path: str | Path, now: dict[str, Any]) -> None:
    """Raise InputError where regions at `path` were exported of a scan that was read otherwise than `now`.

    A turned scan may well have the same shape, and the strokes would lie elsewhere in it.
    """
    for own in rounds(path):
        if own.ingest is not None and own.ingest != now:
            changed = [key for key in now if own.ingest.get(key) != now[key]]
            raise InputError(
                own.folder,
                ", ".join(f"{key} {now[key]}" for key in changed),
                f"{', '.join(f'{key} {own.ingest.get(key)}' for key in changed)}, as when the regions were exported",
                "read the scan as then (`dataset`, `ingest.axes`, `flip`, `level`), or move the folder away and "
                "annotate anew",
            )


def files_of(path: str | Path) -> list[Path]:
    """Files that hold the labels at `path`: of a folder of annotations those dropped, else the path if it is there."""
    path = Path(path)
    if own := rounds(path):
        return [each.painted for each in own if each.painted is not None]
    return [path] if path.exists() else []


def read_painted(own: Round) -> np.ndarray:
    """Pages of a round's dropped file, integers (regions, y, x).

    Raises
    ------
    InputError
        If the file is no TIFF, its shape is not that of the regions, or its values are no whole numbers of 0 or more.
    """
    path = own.painted
    assert path is not None
    try:
        # Read whole: napari's three or four pages of uint8 are marked as colours, which here they never are.
        pages = tifffile.imread(path)
    except (OSError, ValueError, tifffile.TiffFileError) as error:
        raise InputError(path, f"not readable as TIFF ({error})", "the painted labels", "save them again") from error
    wanted = (len(own.corners), *own.size)
    if pages.squeeze().shape != np.empty(wanted, bool).squeeze().shape:
        raise InputError(
            path,
            f"an image of shape {pages.shape}",
            f"{wanted[0]} pages of {wanted[1]} x {wanted[2]} pixels, those of images.tif",
            "save the labels of all regions as one file, without cropping or colours",
        )
    whole = pages.astype(np.int64)
    if (whole != pages).any() or whole.min() < 0:
        raise InputError(path, "values that are no whole numbers from 0 on", "0 and class numbers", "save labels")
    return whole.reshape(wanted)


def open_annotations(folder: str | Path, shape: tuple[int, int, int]) -> tuple[Labels, list[int]]:
    """Labels of the slices of a scan that hold painted regions, and which slices these are.

    Where regions of several rounds overlap, what was painted last counts; 0 is not painted.

    Raises
    ------
    InputError
        If nothing was dropped, or the regions are of another scan.
    """
    own = rounds(folder)
    dropped = [each for each in own if each.painted is not None]
    if not dropped:
        raise InputError(
            folder,
            f"{len(own)} rounds, and nothing dropped in their folders {PAINTED}/",
            "painted labels",
            f"paint labels.tif and save it into {PAINTED}/",
        )
    regions: list[tuple[tuple[int, int, int], np.ndarray]] = []
    for each in dropped:
        if each.shape != shape:
            raise InputError(
                each.folder,
                f"regions of a scan of shape {each.shape}",
                f"{shape}",
                "move the folder away, annotate anew",
            )
        regions += zip(each.corners, read_painted(each), strict=True)
    slices = sorted({z for (z, _, _), _ in regions})

    def read(z0: int, z1: int, y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
        block = np.zeros((z1 - z0, shape[1], shape[2]), np.int64)
        for (z, y, x), page in regions:
            place = slices.index(z)
            if z0 <= place < z1:
                window = block[place - z0, y : y + page.shape[0], x : x + page.shape[1]]
                np.copyto(window, page, where=page != 0)
        return block[:, y0:y1, x0:x1]

    files = [each.painted for each in dropped if each.painted is not None]
    doubts = [doubt for each in own if each.painted is None for doubt in unread(each)]
    doubts += [
        f"{each.folder.name}: {REGIONS} does not say how the scan was read; do the strokes lie where they were painted?"
        for each in dropped
        if each.ingest is None
    ]
    return Labels(Source(FOLDER, (len(slices), *shape[1:]), np.dtype(np.int64), files, read, warnings=doubts)), slices


def unread(own: Round) -> list[str]:
    """Warnings of work in a round that is read by nobody, because no TIFF was dropped."""
    others = sorted(path.name for path in (own.folder / PAINTED).glob("*") if not path.name.startswith("."))
    found = [f"{own.folder.name}: {others[0]} in {PAINTED}/ is no .tif and not read"] if others else []
    labels = own.folder / "labels.tif"
    if labels.exists() and labels.stat().st_mtime > (own.folder / REGIONS).stat().st_mtime + 2:
        found.append(f"{own.folder.name}: labels.tif was changed, but counts only once it lies in {PAINTED}/")
    return found
