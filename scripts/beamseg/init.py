"""init: write the sample table from the scans that a folder holds."""

from __future__ import annotations

import csv
import io
import re
import time
import unicodedata
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from .config import NAME_LENGTH, RESERVED, TABLE_COLUMNS, read_table
from .errors import InputError
from .footprint import PART_GVOXELS, parts_for
from .provenance import atomic_path
from .readers import Linked, Source, known_size, ome_zarr, open_source

INFO_COLUMNS = ("#shape", "#voxel_size_um", "#size_gb")
SUFFIXES = {
    *(".h5", ".hdf5", ".hdf", ".nxs", ".nx"),
    *(".mrc", ".rec", ".map", ".st", ".dm3", ".dm4", ".npy", ".nhdr", ".nrrd", ".mhd", ".mha", ".info"),
}  # of a volume in one file; raw voxels are named by their header
TIFF, PNG = {".tif", ".tiff"}, {".png"}
NOT_IN_A_TABLE = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode's control characters, surrogates (of a name that is not UTF-8), and separators of lines and paragraphs."""
UNFIT = "a path with control characters, ends of lines, bytes not of UTF-8 or a blank at its end fits no row; rename it"


def candidates(folder: Path) -> list[Path]:
    """Files, Zarr stores and folders of slices below `folder` that may be scans, in order; hidden ones are left out.

    A folder that cannot be looked into is one of them: whoever opens it gets to know why.
    """
    try:
        if ome_zarr.matches(folder):
            return [folder]
        here = [p for p in sorted(folder.iterdir()) if not p.name.startswith(".")]
        files = [p for p in here if p.is_file()]
        folders = [p for p in here if p.is_dir() and not p.is_symlink()]
    except OSError:
        return [folder]
    found = [p for p in files if p.suffix.lower() in SUFFIXES]
    images = [p for p in files if p.suffix.lower() in TIFF]
    if is_stack(images or [p for p in files if p.suffix.lower() in PNG]):
        found.append(folder)
    else:
        found += images
    return found + [path for p in folders for path in candidates(p)]


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
    """A name from the path below `folder`, unique among `taken` and none of the reserved; of a long one, the end."""
    relative = path.relative_to(folder) if path != folder else Path(folder.name)
    bare = re.sub(r"(\.vol)?\.[^./]+$", "", relative.as_posix())
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "_", bare).strip("._-") or "scan"
    stem = stem[-(NAME_LENGTH - 6) :].lstrip("._-")  # room for a number
    name, number = stem, 2
    folders = {other.lower() for other in taken} | RESERVED
    while name.lower() in folders:
        name, number = f"{stem}_{number}", number + 1
    return name


def fits_a_table(path: str) -> bool:
    """Whether a path can be a cell: on one line, in UTF-8, and the same when blanks around it are taken off."""
    return path == path.strip() and not any(unicodedata.category(c) in NOT_IN_A_TABLE for c in path)


def in_print(text: str) -> str:
    """A line of text in which control characters and surrogates are escaped, so that any terminal and log takes it."""
    return "".join(ascii(c)[1:-1] if unicodedata.category(c) in NOT_IN_A_TABLE else c for c in text)


def quiet_s(files: list[Path]) -> float:
    """Seconds since any file of a scan was last written, renamed or replaced.

    The change time counts too: a copy that keeps the original's modification time has a new one.
    """
    times = [max(stat.st_mtime, stat.st_ctime) for stat in (path.stat() for path in files)]
    return time.time() - max(times)


def init(
    folder: Path,
    table: Path,
    shipped: Path | None = None,
    *,
    columns: dict[str, str] | None = None,
    own: dict[str, Any] | None = None,
    settle_s: float = 0,
    part_gvoxels: float = PART_GVOXELS,
    external_links: str = "none",
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
    own : dict, optional
        Settings of each new scan alone: its `samples/<name>.yaml` beside the table, unless it has one. Written before
        the table, so that no row is ever without them; a file without a row does nothing, and serves the next call.
    settle_s : float
        A scan whose files were written more recently than this is left for the next call.
    part_gvoxels : float
        A scan of more Gvoxels is worked on in parts of this size, `parts` in its settings.
    external_links : str
        `ingest.external_links`. A scan that leads to files beyond it gets a row all the same, without what its header
        would have told, and its line says what to set: whether to trust it is not for `init` to say.

    Returns
    -------
    added, refused : list of str
        What was added, and what was looked at and could not be a scan, or a row, or is not settled, in words.

    Raises
    ------
    InputError
        If there is no such folder, the table has no column that `columns` names, or would not hold the new rows as
        they are; it is then left as it was.
    """
    if not folder.is_dir():
        raise InputError(folder, "no such folder", "a folder with scans", "check the path")
    text = table.read_bytes().decode() if table.exists() else ""
    if shipped is not None and shipped.exists() and text == shipped.read_bytes().decode():
        text = ""
    header = [*TABLE_COLUMNS, *INFO_COLUMNS]
    rows: list[dict[str, str]] = []
    if text:
        rows = read_table(table)
        lines = text.replace("\r", "\n").split("\n")
        first = next(line for line in lines if line.strip() and not line.startswith("#"))
        header = next(csv.reader([first], delimiter="\t"))
    for column in columns or {}:
        if column not in header:
            raise InputError(table, f"no column {column!r}", "one", "add it to the first line of the table")
    known = {(table.parent / row["path"]).resolve() for row in rows}
    names = {row["sample"] for row in rows}
    added: list[str] = []
    refused: list[str] = []
    new: list[dict[str, Any]] = []
    sources: dict[Path, Source | Linked] = {}
    for path in candidates(folder):
        if path.resolve() in known:
            continue
        try:
            sources[path] = open_source(path, external_links=external_links)
        except Linked as error:
            sources[path] = error
        except InputError as error:
            refused.append(in_print(f"{path}: {error.found}"))
    behind = {file.resolve() for path, source in sources.items() for file in source.files if file != path}
    parts: dict[str, int] = {}
    for path, source in sources.items():
        if path.resolve() in behind:
            continue
        if not fits_a_table(str(path.resolve())):
            refused.append(in_print(f"{path}: {UNFIT}"))
            continue
        files = source.files if isinstance(source, Source) else [path, *source.files]
        try:
            if isinstance(source, Linked) and (missing := [file for file in files if not file.exists()]):
                refused.append(in_print(f"{path}: needs {missing[0]}, which is missing"))
                continue
            quiet = quiet_s(files) if settle_s else 0
            size = sum(p.stat().st_size for p in files) / 1e9
        except OSError as error:
            refused.append(in_print(f"{path}: cannot be looked at any more ({error.strerror or error})"))
            continue
        if quiet < settle_s:
            refused.append(in_print(f"{path}: written {max(quiet, 0):.0f} s ago, may not be finished"))
            continue
        name = sample_name(path, folder, names)
        names.add(name)
        row = {"sample": name, "path": str(path.resolve()), **(columns or {})}
        parts[name] = 1
        if isinstance(source, Linked):
            new.append(row | {"#shape": "unknown", "#voxel_size_um": "unknown", "#size_gb": f"{size:.3g}"})
            added.append(in_print(f"{name}: {source.found}; {source.remedy}"))
            continue
        voxel, _ = known_size(source)
        new.append(
            {
                **row,
                "#shape": "×".join(map(str, source.shape)),
                "#voxel_size_um": "unknown" if voxel is None else "×".join(f"{v:g}" for v in voxel),
                "#size_gb": f"{size:.3g}",
            }
        )
        parts[name] = parts_for(source.shape, part_gvoxels)
        in_parts = f", in {parts[name]} parts" if parts[name] > 1 else ""
        voxels = f"{'×'.join(map(str, source.shape))} {source.dtype}, {new[-1]['#voxel_size_um']} µm"
        added.append(f"{name}: {voxels}, {size:.3g} GB{in_parts}")
    out = io.StringIO()
    writer = csv.DictWriter(out, header, delimiter="\t", lineterminator="\n", extrasaction="ignore", restval="")
    if not text:
        writer.writeheader()
    elif not text.endswith("\n"):
        out.write("\n")
    writer.writerows(new)
    if new:
        for row in new:
            settings = {"parts": parts[row["sample"]]} if parts[row["sample"]] > 1 else {}
            _write_own(table.parent / "samples" / f"{row['sample']}.yaml", settings | (own or {}))
        with atomic_path(table) as temporary:
            temporary.write_bytes((text + out.getvalue()).encode())
            _same(temporary, table, rows + [_cells(row, header) for row in new])
    return added, refused


def _write_own(path: Path, settings: dict[str, Any]) -> None:
    if not settings or path.exists():
        return
    with atomic_path(path) as temporary:
        temporary.write_text(yaml.safe_dump(settings))


def _cells(row: dict[str, Any], header: list[str]) -> dict[str, str]:
    """What `read_table` is to make of a row."""
    return {key: row[key] for key in header if row.get(key) and not key.startswith("#")}


def _same(written: Path, table: Path, rows: list[dict[str, str]]) -> None:
    """Refuse to replace a table by one that says something else, or nothing."""
    try:
        read = read_table(written)
    except InputError as error:
        raise InputError(
            table, f"with the new rows: {error.found}", error.expected, f"{error.remedy}; the table is as it was"
        ) from error
    if read != rows:
        wrong = next((row for row, back in zip(rows, read, strict=False) if row != back), rows[-1])
        raise InputError(
            table,
            f"a row that would not be read as it is written: {in_print(str(wrong))}",
            "cells without tabs, ends of lines and blanks around them",
            "rename the path in it; the table is as it was",
        )
