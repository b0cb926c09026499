"""init: write the sample table from the scans that a folder holds."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import Any

from .config import TABLE_COLUMNS, read_table
from .errors import InputError
from .provenance import atomic_path
from .readers import open_source

INFO_COLUMNS = ("#shape", "#voxel_size_um", "#size_gb")
HDF5 = {".h5", ".hdf5", ".hdf", ".nxs", ".nx"}
TIFF = {".tif", ".tiff"}


def candidates(folder: Path) -> list[Path]:
    """Files and folders of slices below `folder` that may be scans, in order; hidden ones are passed over."""
    found: list[Path] = []
    folders = [folder, *sorted(p for p in folder.rglob("*") if p.is_dir() and not p.name.startswith("."))]
    for place in folders:
        files = sorted(p for p in place.iterdir() if p.is_file() and not p.name.startswith("."))
        found += [p for p in files if p.suffix.lower() in HDF5]
        slices = [p for p in files if p.suffix.lower() in TIFF]
        if len(slices) > 1 and len({re.sub(r"\d+", "#", p.name) for p in slices}) == 1:
            found.append(place)
        else:
            found += slices
    return found


def sample_name(path: Path, folder: Path, taken: set[str]) -> str:
    """A name from the path below `folder`, unique among `taken`."""
    relative = path.relative_to(folder) if path != folder else Path(folder.name)
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "_", "_".join(relative.with_suffix("").parts)).strip("._-") or "scan"
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}_{number}", number + 1
    return name


def init(folder: Path, table: Path, shipped: Path | None = None) -> tuple[list[str], list[str]]:
    """Add the scans of `folder` to the sample table; rows that are there stay as they are, byte for byte.

    Parameters
    ----------
    folder : Path
        Searched for HDF5 files, multi-page TIFF files and folders of TIFF slices.
    table : Path
        Made if missing. One that equals `shipped` (the demo's) is begun anew.

    Returns
    -------
    added, refused : list of str
        What was added, and what was looked at and could not be a scan, in words.
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
    known = {(table.parent / row["path"]).resolve() for row in rows}
    names = {row["sample"] for row in rows}
    added: list[str] = []
    refused: list[str] = []
    new: list[dict[str, Any]] = []
    for path in candidates(folder):
        if path.resolve() in known:
            continue
        try:
            source = open_source(path)
        except InputError as error:
            refused.append(f"{path}: {error.found}")
            continue
        name = sample_name(path, folder, names)
        names.add(name)
        size = sum(p.stat().st_size for p in source.files) / 1e9
        voxel = source.voxel_size_um
        new.append(
            {
                "sample": name,
                "path": str(path.resolve()),
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
