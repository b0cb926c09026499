"""Labels that a user gives: to train on (`labels`) or to be judged by (`truth`). Two openers, one reader."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .annotations import open_annotations, rounds
from .errors import InputError
from .label_values import MAX_TRUTH, UNLABELLED
from .readers import Labels, open_labels
from .readers.source import planes
from .slice_labels import SliceLabels
from .volumes import Volume

REST = "rest"
"""Key of `labels.map` and `evaluate.truth_map` for every value that has none."""
MOSTLY = 0.9
"""Of the labelled voxels, more than which a class of value 0 may be what nobody painted."""


def open_user_labels(
    settings: dict[str, Any],
    path: str | Path,
    shape: tuple[int, int, int],
    grey: Volume | None = None,
    n_classes: int | None = None,
    *,
    painted: bool = False,
    seed: int = 0,
) -> SliceLabels:
    """The user's labels of a scan as the section `labels` says; see `open_slices`, `keep_every` and `hide`."""
    labels = open_slices(
        path,
        settings["dataset"],
        shape,
        settings["slices"],
        settings["unlabelled"],
        grey,
        axes=settings.get("axes"),
        flip=settings.get("flip"),
        offset=settings.get("offset"),
        renumber=settings.get("map"),
        n_classes=n_classes,
        must_occur=True,
        painted=painted,
    )
    if settings.get("every", 1) > 1:
        labels.keep_every(settings["every"])
    if settings.get("pool") or settings.get("rate", 1) < 1:
        labels.hide(settings["pool"], settings["rate"], seed)
    return labels


def open_truth(
    path: str | Path,
    dataset: str | None,
    shape: tuple[int, int, int],
    slices: Sequence[int] | None = None,
    unlabelled: int | None = None,
    *,
    axes: str | None = None,
    flip: Sequence[str] | None = None,
    renumber: dict[Any, int | None] | None = None,
) -> SliceLabels:
    """The truth of a scan, a volume of uint8, 0 … 252, with 255 where there is none. For `count` and `evaluate` alone.

    See `open_slices` for the parameters and what is refused.
    """
    most = MAX_TRUTH + 1
    return open_slices(
        path, dataset, shape, slices, unlabelled, axes=axes, flip=flip, renumber=renumber, n_classes=most, truth=True
    )


def open_slices(
    path: str | Path,
    dataset: str | None,
    shape: tuple[int, int, int],
    slices: Sequence[int] | None = None,
    unlabelled: int | None = None,
    grey: Volume | None = None,
    *,
    axes: str | None = None,
    flip: Sequence[str] | None = None,
    offset: Sequence[int] | None = None,
    renumber: dict[Any, int | None] | None = None,
    n_classes: int | None = None,
    truth: bool = False,
    must_occur: bool = False,
    painted: bool = False,
) -> SliceLabels:
    """Open a label file of some or all slices of a scan, or of a block in it; its values are looked through once.

    Parameters
    ----------
    path, dataset, axes, flip
        Any format that readers know, in its own orientation, or a folder of annotations; colour masks become 0, 1, …
        in the order of (red, green, blue).
    shape : (z, y, x)
        Of the scan.
    slices : list of int, optional
        Which slices of the scan the file's slices stand for, where it holds fewer. Their files may then be numbered
        with gaps.
    unlabelled : int, optional
        Value that marks voxels without a label. By default 255, except in masks of 0 and 255 alone, where 255 is
        class 1.
    grey : Volume, optional
        Normalized scan; what lies outside its field of view has no label.
    offset : (z, y, x), optional
        Where a file smaller than the scan begins in it.
    renumber : dict, optional
        Value in the file -> class, None for no label; `rest` stands for all values that are not named, without it
        they stay as they are.
    n_classes : int, optional
        Labels from this number on are refused.
    truth : bool
        Whether this is the truth: what is wrong is then put right in the section `evaluate`.
    must_occur : bool
        Whether `unlabelled` must be found in a file that covers the whole scan, rather than only be worth a warning.
    painted : bool
        Whether it was painted by a program in which 0 is nothing (napari, say): then 0 is unlabelled and value v is
        class v − 1, unless `unlabelled` or `renumber` say otherwise. So are rounds of annotation, whatever it says.

    Raises
    ------
    InputError
        If the shape does not fit the scan, `slices` does not fit the file, or a value is no label (below 0, or above
        254 and not `unlabelled`, or not below `n_classes`), or `unlabelled` contradicts the file, or anything but
        `unlabelled: 0` is said of rounds of annotation.
    """
    path = Path(path)
    shape = (int(shape[0]), int(shape[1]), int(shape[2]))
    if rounds(path):
        keys: dict[str, Any] = {"dataset": dataset, "slices": slices, "offset": offset, "axes": axes, "flip": flip}
        keys |= {"map": renumber, "unlabelled": unlabelled or None}  # 0 is what it is
        _refuse_in_rounds(path, keys, "evaluate.truth_" if truth else "labels.")
        unlabelled = None
        labels, chosen = open_annotations(path, shape)
        corner, painted = (0, 0), True
    else:
        labels = open_labels(path, dataset, axes=axes, flip=flip, allow_gaps=slices is not None)
        chosen, corner = _placed(path, labels.shape, shape, slices, offset)
    counts, alone = _counted(labels)
    where, marks = ("evaluate.truth_map", "evaluate.truth_unlabelled") if truth else ("labels.map", "labels.unlabelled")
    warnings: list[str] = []
    table = {value: value for value in counts}
    named = _named(renumber or {}, counts)
    assumed = painted and unlabelled is None and 0 not in _named(renumber or {}, [])
    if assumed:
        named.pop(0, None)
        # 256 is refused as a value too many and not taken for unlabelled.
        table = {value: 256 if value == 256 else value - 1 for value in counts if value}
        table |= {0: UNLABELLED} if 0 in counts else {}
        said = ", 1 is class 0, 2 is class 1 and so on" + (", but for what `labels.map` names" if renumber else "")
        warnings.append(f"0 is not painted{said}" if 0 in counts else f"every voxel is painted{said}; is that so?")
    elif unlabelled is None and sorted(counts) == [0, UNLABELLED] and UNLABELLED not in named:
        table[UNLABELLED] = 1
        warnings.append("a mask of 0 and 255 alone: 255 is read as class 1")
    elif unlabelled is None and UNLABELLED in counts and UNLABELLED not in named:
        others = sorted(value for value in counts if value != UNLABELLED)
        if others and others[-1] - others[0] >= len(others):  # spread, as masks to be looked at are
            held = ", ".join(map(str, others[:8]))
            warnings.append(f"255 beside {held} is read as no label; a class is to be renumbered (`{where}`)")
    table |= {value: label for value, label in named.items() if value in counts}
    if unlabelled is not None:
        if unlabelled not in counts:
            whole = labels.shape == shape
            warnings.append(_not_found(path, unlabelled, counts, must_occur and whole))
        table[unlabelled] = UNLABELLED
        if unlabelled != UNLABELLED and UNLABELLED in counts and table[UNLABELLED] == UNLABELLED:
            raise InputError(
                path,
                f"the value 255 besides {unlabelled}, which marks what has no label",
                "classes 0 … 254",
                f"renumber class 255 (`{where}`)",
            )
    most = UNLABELLED if n_classes is None else n_classes
    wrong = [value for value, label in table.items() if label != UNLABELLED and not 0 <= label < most]
    if wrong:
        classes = sorted(value for value, label in table.items() if label != UNLABELLED)
        suggested = ", ".join(f"{value}: {k}" for k, value in enumerate(classes[:8]))
        how = f"`{where}: {{{suggested}}}`, say; `{{0: 0, rest: 1}}` where each object has a number of its own"
        more = ", or take more classes (`pseudo_label.n_clusters`)" if n_classes and not truth else ""
        raise InputError(
            path,
            f"values {', '.join(map(str, wrong[:5]))}{' …' if len(wrong) > 5 else ''}",
            f"1 … {most}, one for each class, and 0 where nothing is painted" if assumed else f"classes 0 … {most - 1}",
            f"renumber the classes ({how}), or name the value that marks what has no label (`{marks}`){more}",
        )
    if labels.mapping:
        colours = {n: f"class {label}" if (label := table[n]) != UNLABELLED else "no label" for n in labels.mapping}
        said = ", ".join(f"{colour} is {colours[n]}" for n, colour in labels.mapping.items())
        warnings.append(f"a mask of colours: {said}")
    renamed = {value: label for value, label in table.items() if value != label and label != UNLABELLED}
    if renumber and renamed and not truth:
        first = [f"{value} is class {label}" for value, label in renamed.items()]
        warnings.append("renumbered: " + ", ".join(first[:8]) + (f" and {len(first) - 8} more" if first[8:] else ""))
    if must_occur and unlabelled is None:
        empty = _perhaps_unpainted(labels.shape[0], alone, table)
        warnings += empty or ([] if 0 in named else _mostly_zero(counts, table))
    result = SliceLabels(labels, shape, chosen, table, grey, corner)
    for value, count in counts.items():
        if table[value] != UNLABELLED:
            result.counts[table[value]] = result.counts.get(table[value], 0) + count
    result.warnings = [*labels.source.warnings, *warnings]
    return result


def _refuse_in_rounds(path: Path, given: dict[str, Any], prefix: str) -> None:
    """Raise InputError for a key with a value: how the pages of rounds are read, and where they lie, is settled."""
    if said := [f"{prefix}{key}: {value}" for key, value in given.items() if value not in (None, {}, [])]:
        raise InputError(
            path,
            f"rounds of annotation, and {', '.join(said)}",
            "none of these: regions.json says where pages lie; 0 is not painted, 1 is class 0, 2 is class 1 and so on",
            "take them out for this scan, or give its labels as a file in place of the rounds",
        )


def _named(renumber: dict[Any, int | None], counts: Iterable[int]) -> dict[int, int]:
    """Value -> class (255 for None) of the values that `renumber` names; where it names the rest, of `counts` too."""
    labels = {key: UNLABELLED if label is None else int(label) for key, label in renumber.items()}
    named = {int(value): label for value, label in labels.items() if value != REST}
    return dict.fromkeys(counts, labels[REST]) | named if REST in labels else named


def _not_found(path: Path, unlabelled: int, counts: dict[int, int], refuse: bool) -> str:
    """A warning that the declared value does not occur; raises InputError if it must."""
    held = f"{', '.join(map(str, list(counts)[:8]))}{' …' if len(counts) > 8 else ''}"
    if refuse:
        raise InputError(
            path,
            f"no voxel of the value {unlabelled}, which marks what has no label; the file holds {held}",
            f"the value {unlabelled} where nothing is painted, or no `unlabelled`",
            "correct `labels.unlabelled`, or leave it out if every voxel is painted",
        )
    return f"no voxel has the value {unlabelled}, which marks what has no label; the file holds {held}"


def _perhaps_unpainted(depth: int, alone: dict[int, int], table: dict[int, int]) -> list[str]:
    """A warning where more than half of many slices hold one class alone: was it what is left when nobody paints?"""
    return [
        f"{count} of {depth} slices hold the value {value} alone, which is class {table[value]} there; "
        f"if {value} marks what is not painted, set `labels.unlabelled: {value}`"
        for value, count in alone.items()
        if 2 * count > depth > 2 and table[value] != UNLABELLED
    ]


def _mostly_zero(counts: dict[int, int], table: dict[int, int]) -> list[str]:
    """A warning where 0 is a class and nearly all that there is, as where strokes were painted and the rest left."""
    labelled = sum(count for value, count in counts.items() if table[value] != UNLABELLED)
    if table.get(0, UNLABELLED) == UNLABELLED or not MOSTLY * labelled < counts[0] < labelled:
        return []
    return [
        f"0 is class {table[0]} on {counts[0] / labelled:.1%} of the labelled voxels; if 0 marks what is not painted, "
        "set `labels.unlabelled: 0`; if it is a class, `labels.map: {0: 0}` says so"
    ]


def _placed(
    path: Path,
    found: tuple[int, int, int],
    shape: tuple[int, int, int],
    slices: Sequence[int] | None,
    offset: Sequence[int] | None,
) -> tuple[list[int], tuple[int, int]]:
    """(the scan's slice for each slice of the file, the corner (y, x) of the file in the scan)."""
    z, y, x = (0, 0, 0) if offset is None else (int(v) for v in offset)
    depth = shape[0] if slices is not None else found[0]  # `_chosen` looks at the numbers
    fits = all(o >= 0 and o + n <= size for o, n, size in zip((z, y, x), (depth, *found[1:]), shape, strict=True))
    if offset is None and (found[1:] != shape[1:] or (slices is None and found[0] != shape[0])):
        raise InputError(
            path,
            f"labels of shape {found}",
            f"the scan's shape, {shape}",
            "give labels of this scan in its orientation (`axes`, `flip`); if they are of some of its slices, say of "
            "which (`slices`); if they are of a block, say where it begins (`offset`)",
        )
    if not fits:
        raise InputError(
            path,
            f"labels of shape {found} at {[z, y, x]}",
            f"a block inside the scan's shape, {shape}",
            "correct `offset`: [z, y, x] of the block's first voxel, counted from 0 (z is 0 where `slices` is given)",
        )
    return (list(range(z, z + found[0])) if slices is None else _chosen(path, found, shape, slices)), (y, x)


def _chosen(path: Path, found: tuple[int, int, int], shape: tuple[int, int, int], slices: Sequence[int]) -> list[int]:
    """The scan's slice for each slice of the file, as `slices` says."""
    chosen = [int(z) for z in slices]
    if len(chosen) != found[0] or len(set(chosen)) != len(chosen) or not all(0 <= z < shape[0] for z in chosen):
        raise InputError(
            path,
            f"{found[0]} slices in the file, `slices` is {chosen}",
            f"{found[0]} different numbers from 0 to {shape[0] - 1}",
            "correct `slices`",
        )
    return chosen


def _counted(labels: Labels) -> tuple[dict[int, int], dict[int, int]]:
    """Voxels of each value of a label file, values in increasing order, and the slices that hold one value alone."""
    found: dict[int, int] = {}
    alone: dict[int, int] = {}
    for z0, z1 in planes(labels.source, 0, labels.shape[0], 8.0):
        block = labels.read(z0, z1)
        for plane in block:
            if (value := int(plane.flat[0])) == plane.min() == plane.max():
                alone[value] = alone.get(value, 0) + 1
        if block.dtype == np.uint8:
            counts = np.bincount(block.ravel(), minlength=256)
            values = np.flatnonzero(counts)
            counts = counts[values]
        else:
            values, counts = np.unique(block, return_counts=True)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True):
            found[value] = found.get(value, 0) + count
        if len(found) > 4096:
            break
    return dict(sorted(found.items())), alone
