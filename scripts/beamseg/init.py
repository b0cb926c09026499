"""init: write the sample table from the scans that a folder holds."""

from __future__ import annotations

import csv
import io
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

from .config import TABLE_COLUMNS, read_table
from .errors import InputError
from .provenance import atomic_path
from .readers import Source, known_size, ome_zarr, open_source

INFO_COLUMNS = ("#shape", "#voxel_size_um", "#size_gb")
SUFFIXES = {
    *(".h5", ".hdf5", ".hdf", ".nxs", ".nx"),
    *(".mrc", ".rec", ".map", ".st", ".dm3", ".dm4", ".npy", ".nhdr", ".nrrd", ".mhd", ".mha", ".info"),
}  # of a volume in one file; raw voxels are named by their header
TIFF, PNG = {".tif", ".tiff"}, {".png"}


def candidates(folder: Path) -> list[Path]:
    """Files, Zarr stores and folders of slices below `folder` that may be scans, in order; hidden ones are left out."""
    if ome_zarr.matches(folder):
        return [folder]
    here = [p for p in sorted(folder.iterdir()) if not p.name.startswith(".")]
    files = [p for p in here if p.is_file()]
    found = [p for p in files if p.suffix.lower() in SUFFIXES]
    images = [p for p in files if p.suffix.lower() in TIFF]
    if is_stack(images or [p for p in files if p.suffix.lower() in PNG]):
        found.append(folder)
    else:
        found += images
    return found + [path for p in here if p.is_dir() and not p.is_symlink() for path in candidates(p)]


def is_stack(images: list[Path]) -> bool:
    """Whether images are the slices of one volume: most are named alike, and the first of these is no volume itself.

    One that is named otherwise (a preview) leaves the folder a stack, which its reader then refuses, and says why.
    """
    named = [re.sub(r"\d+", "#", p.name) for p in images]
    most = Counter(named).most_common(1)
    if not most or most[0][1] < 2 or 2 * most[0][1] <= len(images):
        return False
    first = images[named.index(most[0][0])]
    try:
        return first.suffix.lower() in PNG or open_source(first, colours=True).shape[0] == 1
    except InputError:
        return True


def sample_name(path: Path, folder: Path, taken: set[str]) -> str:
    """A name from the path below `folder`, unique among `taken`."""
    relative = path.relative_to(folder) if path != folder else Path(folder.name)
    bare = re.sub(r"(\.vol)?\.[^./]+$", "", relative.as_posix())
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "_", bare).strip("._-") or "scan"
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}_{number}", number + 1
    return name


def quiet_s(source: Source) -> float:
    """Seconds since any file of a source was last written, renamed or replaced.

    The change time counts too: a copy that keeps the original's modification time has a new one.
    """
    times = [max(stat.st_mtime, stat.st_ctime) for stat in (path.stat() for path in source.files)]
    return time.time() - max(times)


def init(
    folder: Path,
    table: Path,
    shipped: Path | None = None,
    *,
    columns: dict[str, str] | None = None,
    settle_s: float = 0,
) -> tuple[list[str], list[str]]:
    """Add the scans of `folder` to the sample table; rows that are there stay as they are, byte for byte.

    Parameters
    ----------
    folder : Path
        Searched for volumes in every format that the readers know.
    table : Path
        Made if missing. One that equals `shipped` (the demo's) is begun anew.
    columns : dict, optional
        Cells of the new rows, such as group or bundle.
    settle_s : float
        A scan whose files were written more recently than this is left for the next call.

    Returns
    -------
    added, refused : list of str
        What was added, and what was looked at and could not be a scan, or is not settled, in words.

    Raises
    ------
    InputError
        If there is no such folder, or the table has no column that `columns` names.
    """
    if not folder.is_dir():
        raise InputError(folder, "no such folder", "a folder with scans", "check the path")
    text = table.read_text() if table.exists() else ""
    if shipped is not None and shipped.exists() and text == shipped.read_text():
        text = ""
    header = [*TABLE_COLUMNS, *INFO_COLUMNS]
    rows: list[dict[str, str]] = []
    if text:
        rows = read_table(table)
        first = next(line for line in text.splitlines() if line.strip() and not line.startswith("#"))
        header = first.split("\t")
    for column in columns or {}:
        if column not in header:
            raise InputError(table, f"no column {column!r}", "one", "add it to the first line of the table")
    known = {(table.parent / row["path"]).resolve() for row in rows}
    names = {row["sample"] for row in rows}
    added: list[str] = []
    refused: list[str] = []
    new: list[dict[str, Any]] = []
    sources: dict[Path, Source] = {}
    for path in candidates(folder):
        if path.resolve() in known:
            continue
        try:
            sources[path] = open_source(path)
        except InputError as error:
            refused.append(f"{path}: {error.found}")
    parts = {file.resolve() for path, source in sources.items() for file in source.files if file != path}
    for path, source in sources.items():
        if path.resolve() in parts:
            continue
        if settle_s and (quiet := quiet_s(source)) < settle_s:
            refused.append(f"{path}: written {max(quiet, 0):.0f} s ago, may not be finished")
            continue
        name = sample_name(path, folder, names)
        names.add(name)
        size = sum(p.stat().st_size for p in source.files) / 1e9
        voxel, _ = known_size(source)
        new.append(
            {
                "sample": name,
                "path": str(path.resolve()),
                **(columns or {}),
                "#shape": "×".join(map(str, source.shape)),
                "#voxel_size_um": "unknown" if voxel is None else "×".join(f"{v:g}" for v in voxel),
                "#size_gb": f"{size:.3g}",
            }
        )
        added.append(
            f"{name}: {'×'.join(map(str, source.shape))} {source.dtype}, {new[-1]['#voxel_size_um']} µm, {size:.3g} GB"
        )
    out = io.StringIO()
    writer = csv.DictWriter(out, header, delimiter="\t", lineterminator="\n", extrasaction="ignore", restval="")
    if not text:
        writer.writeheader()
    elif not text.endswith("\n"):
        out.write("\n")
    writer.writerows(new)
    if new:
        with atomic_path(table) as temporary:
            temporary.write_text(text + out.getvalue())
    return added, refused
