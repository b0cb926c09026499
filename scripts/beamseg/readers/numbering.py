"""Slices as files of a folder: which belong together, in which order, and whether one is missing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError

SHOWN = 12


def natural_key(name: str) -> list[Any]:
    """Key that sorts slice_9 before slice_10, whatever the number of digits."""
    return [(1, int(part), part) if part.isdecimal() else (0, 0, part) for part in re.split(r"(\d+)", name) if part]


def in_order(folder: Path, suffixes: Sequence[str], allow_gaps: bool) -> tuple[list[Path], list[str]]:
    """The slices of a folder in natural order, and warnings.

    Raises
    ------
    InputError
        If there are none, or two series, or a number is used twice, or numbers are missing and `allow_gaps` is not
        set.
    """
    every = [p for p in folder.iterdir() if not p.is_dir() and not p.name.startswith(".")]
    files = sorted((p for p in every if p.suffix.lower() in suffixes), key=lambda p: natural_key(p.name))
    if not files:
        kinds = sorted({p.suffix.lower() or "(no suffix)" for p in every})
        found = f"no TIFF files among {len(every)} ({', '.join(kinds[:5])})" if every else "an empty folder"
        raise InputError(folder, found, "one TIFF file per slice", "correct the path, or save the slices as TIFF")
    texts = _grouped(files, [re.sub(r"\d+", "#", file.stem) for file in files])
    if len(texts) > 1 and any(len(names) > 1 for names in texts.values()):
        raise _two_series(folder, texts)
    runs = [re.findall(r"\d+", file.stem) for file in files]
    if len(files) < 2 or not runs[0] or len(texts) > 1:
        return files, []
    columns = [[int(number) for number in column] for column in zip(*runs, strict=True)]
    varying = [column for column in columns if len(set(column)) > 1]
    if len(varying) > 1:
        # With a number of the scan and one of the slice, each scan has many slices; a slice's number and its height
        # (slice_0001_z0.50) vary together.
        scans = _grouped(files, list(zip(*varying[:-1], strict=True)))
        if any(len(names) > 1 for names in scans.values()):
            raise _two_series(folder, scans)
    return files, _gaps(folder, files, varying[0] if varying else columns[-1], allow_gaps)


def _grouped(files: Sequence[Path], keys: Sequence[Any]) -> dict[Any, list[Path]]:
    groups: dict[Any, list[Path]] = {}
    for file, key in zip(files, keys, strict=True):
        groups.setdefault(key, []).append(file)
    return groups


def _two_series(folder: Path, series: dict[Any, list[Path]]) -> InputError:
    listed = ", ".join(f"{names[0].name} … ({len(names)})" for names in list(series.values())[:4])
    return InputError(
        folder, f"files of {len(series)} series: {listed}", "the slices of one volume", "put each series in a folder"
    )


def _gaps(folder: Path, files: Sequence[Path], numbers: list[int], allow_gaps: bool) -> list[str]:
    """Warnings about the numbers of the slices, in increasing order; see `in_order` for the errors."""
    twice = [n for n in dict.fromkeys(numbers) if numbers.count(n) > 1] if len(set(numbers)) < len(numbers) else []
    if twice:
        which = [file.name for file, number in zip(files, numbers, strict=True) if number == twice[0]]
        raise InputError(
            folder,
            f"numbers used twice: {ranges(twice)} ({', '.join(which)})",
            "one file per slice",
            "remove the copies",
        )
    steps = np.diff(sorted(numbers))
    step = int(steps.min())
    if (steps == step).all():
        far = f"the slices are numbered in steps of {step}: set `z_continuous: false` if they are that far apart"
        return [far] if step > 1 else []
    first, last = min(numbers), max(numbers)
    missing = sorted(set(range(first, last + 1, step)) - set(numbers))
    found = f"{len(missing)} numbers missing between the slices: {ranges(missing)}"
    if allow_gaps:
        return [found]
    raise InputError(
        folder,
        found,
        f"every number from {first} to {last}" + (f" in steps of {step}" if step > 1 else ""),
        "copy the missing files, or set `ingest.allow_gaps: true` to take the slices as neighbours",
    )


def ranges(numbers: Sequence[int]) -> str:
    """`[2, 3, 4, 7]` -> `'2-4, 7'`; after 12 entries an ellipsis."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    listed = [str(a) if a == b else f"{a}-{b}" for a, b in parts]
    return ", ".join(listed[:SHOWN]) + (" …" if len(listed) > SHOWN else "")


def same_kind(files: Sequence[Path], kinds: Sequence[tuple[tuple[int, ...], np.dtype]]) -> None:
    """Raise InputError unless all slices have the shape and dtype of the first."""
    first = kinds[0]
    for file, kind in zip(files, kinds, strict=True):
        if kind != first:
            raise InputError(
                file,
                f"a slice of shape {kind[0]}, {kind[1].name}",
                f"{first[0]}, {first[1].name}, as {files[0].name} has",
                "remove the file or mend it",
            )
