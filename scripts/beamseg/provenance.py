"""What a result was made from: digests, versions, and files that appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import importlib.metadata
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .code import code_digest
from .errors import InputError

CHECKOUT = Path(__file__).resolve().parents[2]
DAY_S = 86400
GIT_S = 10
DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}
NO_RENAME = {errno.ENOTSUP, errno.ENOSYS, errno.EPERM, errno.EXDEV}


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and numpy scalars unwrapped: equal values give equal text."""
    return json.dumps(value, sort_keys=True, default=_plain, indent=1, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return value.as_posix()
    raise TypeError(f"{type(value).__name__} has no place in a result's JSON")


def digest(value: Any) -> str:
    """Digest of any JSON-like value, 16 hexadecimal digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:16]


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file's bytes, 16 hexadecimal digits; of a folder, that of all its files' names and bytes."""
    if Path(path).is_dir():
        files = sorted(file for file in Path(path).rglob("*") if file.is_file())
        return digest([[file.relative_to(path).as_posix(), file_digest(file)] for file in files])
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def identity(stage: str, settings: Any, inputs: dict[str, str | Path | list[str] | None]) -> str:
    """Identity of a stage's result: its code that runs now, its settings and the content of the small files it reads.

    Two runs with the same identity give the same arrays, so a slab that bears it need not be computed again. `stage` is
    the name of its script, below `scripts`.
    Inputs are manifests, plans and weights, never volumes: those are named by digests inside the manifests.
    """
    contents: dict[str, Any] = {}
    for name, paths in sorted(inputs.items()):
        if paths is None:
            continue
        many = paths if isinstance(paths, list) else [paths]
        contents[name] = [file_digest(path) for path in many]
    return digest({"stage": stage, "code": code_digest(stage), "settings": settings, "inputs": contents})


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; on success it is fsynced and renamed, else removed.

    A reader sees the old file or the new one, never half of one, whenever the writer is killed. What killed writers
    left in the folder is removed by the next one.

    Raises
    ------
    InputError
        If the disk is full, over its quota or read-only, or its file system does not rename.
    """
    path = Path(path)
    temporary = _temporary(path)
    with _disk_errors_in_words(path):
        try:
            _make_room_beside(path)
            yield temporary
            _sync(temporary)
            _rename(temporary, path)
        finally:
            with suppress(OSError):
                temporary.unlink()


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a new folder beside `path`; on success its files are fsynced and it takes the place of `path`.

    As `atomic_path`, but a writer killed between the two renames leaves no folder of this name; a folder cannot be
    replaced in one step.

    Raises
    ------
    InputError
        If the disk is full, over its quota or read-only.
    """
    path = Path(path)
    temporary = _temporary(path)
    old = temporary.with_name(temporary.name.replace(f".{path.name}.", f".{path.name}.old.", 1))
    with _disk_errors_in_words(path):
        try:
            _make_room_beside(path)
            temporary.mkdir()
            yield temporary
            for folder, _, names in os.walk(temporary, topdown=False):
                for name in names:
                    _sync(Path(folder, name))
                _sync(Path(folder))
            if path.exists():
                _rename(path, old)
            _rename(temporary, path)
        finally:
            for left in (temporary, old):
                shutil.rmtree(left, ignore_errors=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp")


def _make_room_beside(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path.parent.resolve())


def _rename(old: Path, new: Path) -> None:
    """Rename in one step and have the folder's names written; where folders cannot be synchronized, the file is."""
    try:
        os.replace(old, new)
    except OSError as error:
        if error.errno not in NO_RENAME:
            raise
        raise InputError(
            new.parent,
            f"a file system that does not rename files ({os.strerror(error.errno)})",
            "one where a finished file takes its name in one step, as local disks, NFS, Lustre and GPFS do",
            "run in a folder of another file system, and copy the results afterwards",
        ) from error
    try:
        _sync(new.parent)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EACCES):
            raise


def _sync(path: Path) -> None:
    """Have the system write a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _disk_errors_in_words(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        raise no_room(path, os.strerror(error.errno)) from error


def no_room(path: str | Path, found: str) -> InputError:
    """The error of a disk that is full, over its quota or cannot be written to."""
    remedy = "free space, or raise the quota; then start the same command again: what is finished is kept"
    return InputError(path, found, "a disk that takes the file", remedy)


@cache
def _remove_leftovers(folder: Path) -> None:
    """Remove temporary files of processes that have ended, once per process and folder.

    Those of another host may have a live writer, so they go after a day without a write.
    """
    for path in folder.glob(".*.tmp"):
        name = re.fullmatch(r"\..+?\.(\d+)\.tmp", path.name)
        if name is None:
            continue
        here = path.name.endswith(f".{socket.gethostname()}.{name[1]}.tmp")
        with suppress(OSError):
            if not _runs(int(name[1])) if here else time.time() - path.stat().st_mtime > DAY_S:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _runs(pid: int) -> bool:
    """Whether a process of this number is there, whoever's it is."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def write_json(path: str | Path, value: Any) -> None:
    """Write canonical JSON atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(canonical_json(value) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file."""
    return json.loads(Path(path).read_text())


PACKAGES = (
    *("beamseg", "torch", "numpy", "scipy", "scikit-learn", "scikit-image", "dask", "safetensors", "snakemake"),
    *("h5py", "hdf5plugin", "imagecodecs", "mrcfile", "ncempy", "tifffile", "zarr"),
)
"""What computes, and what reads scans and labels."""


def versions() -> dict[str, str]:
    """Versions of what computes and reads: written into bundle and provenance."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


_NOTED: dict[str, str] = {}


def note(**what: str) -> None:
    """Have the record of this process's job say something, such as the device that it computes on."""
    _NOTED.update(what)


def noted() -> dict[str, str]:
    """What was noted in this process."""
    return dict(_NOTED)


def made_now() -> dict[str, Any]:
    """The `commit` and the `versions` of packages and Python, of this process."""
    return {"commit": commit(), "versions": {**versions(), "python": platform.python_version()}}


def commit(checkout: Path = CHECKOUT) -> str | None:
    """Commit of the checkout that this library lies in, with `, changed` after it where tracked files differ from it.

    None where the library lies in no checkout of its own, as when it is installed, or there is no git.
    """
    git = ["git", "-C", str(checkout), "--no-optional-locks"]
    try:
        place = _output([*git, "rev-parse", "--show-prefix", "HEAD"])
        if not place.startswith("\n"):
            return None
        changed = _output([*git, "status", "--porcelain", "--untracked-files=no"])
    except (OSError, subprocess.SubprocessError):
        return None
    return place.strip() + (", changed" if changed else "")


def _output(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=GIT_S).stdout
