"""Files of the user as jobs saw them: one that was touched, or is gone, makes nothing anew that was made from it.

Snakemake deletes the old result of a job before it runs, so an input that vanished, as on a disk that is not mounted,
would cost a finished result. Such files are therefore no inputs of rules but parameters: each is known by a stamp. The
record of a job (`<log>.json`) keeps the stamps it was given, and the content that it found.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from .provenance import digest, file_digest, read_json


def seen(path: str, files: Iterable[Path], record: Path, *, read: bool = True) -> dict[str, Any]:
    """What a job is given of a user's file: `path`, the `files` to be read, and a `stamp`.

    The stamp is that of the job's record where the files are gone, the same, or of the content that the job found; else
    it is of names, sizes and times now; None where there is no file and none was seen. Bytes are read only where the
    times have changed.

    Parameters
    ----------
    path : str
    files : iterable of Path
        The files and folders that hold what `path` stands for; none, or empty folders, are taken as gone.
    record : path
        `<log>.json` of the job.
    read : bool
        Whether to look into folders and, of changed files, at their bytes; a scan is too large for that, and `ingest`
        looks at its voxels.
    """
    there = tuple(str(file) for file in files if not is_gone(file))
    stats = [_stat(file) for each in there for file in (_files(Path(each)) if read else [Path(each)])]
    now = digest(stats) if stats else None
    then = read_json(record).get("seen", {}).get(path) if record.exists() else None
    if then is not None and (now is None or now == then["stamp"] or (read and _content(there, now) == then["content"])):
        now = then["stamp"]
    return {"path": path, "files": list(there) if read else [], "stamp": now}


def found_by(params: Iterable[Any]) -> dict[str, Any]:
    """What a job's record keeps of the files that its parameters name: path -> stamp and content."""
    return {
        each["path"]: {"stamp": each["stamp"], "content": content(each["files"])}
        for value in params
        for each in _given(value)
    }


def content(files: Iterable[str | Path]) -> str | None:
    """Digest of the bytes of files and folders; None if there are none, or one cannot be read."""
    try:
        found = [file_digest(file) for file in files]
    except OSError:
        return None
    return digest(found) if found else None


@cache
def _content(files: tuple[str, ...], stamp: str) -> str | None:
    """The same, once per process and stamp."""
    return content(files)


def _given(value: Any) -> Iterator[dict[str, Any]]:
    """What of a parameter is a file as `seen` gives it."""
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, dict) and each.get("stamp") and {"path", "files"} <= each.keys():
            yield each


def is_gone(path: Path) -> bool:
    """Whether there is no such file, or a folder that holds nothing, as a disk's while it is not mounted."""
    return next(path.iterdir(), None) is None if path.is_dir() else not path.exists()


def _stat(path: Path) -> list[Any]:
    found = path.stat()
    return [path.name, found.st_size, found.st_mtime_ns]


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
