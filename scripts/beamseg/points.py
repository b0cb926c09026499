"""Points for a person to look at: a random sample of voxels, stratified by class and confidence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from .errors import InputError
from .label_values import UNLABELLED
from .slabs import ALIGN
from .volumes import Volume

SHARES = (0.1, 0.4)
"""Where confidence parts a class: its least certain tenth, the next three tenths, the rest."""
LEAST = 2


def cut_strata(counts: np.ndarray) -> np.ndarray:
    """The stratum of each class and confidence, int64 (classes, 256); −1 where there are no voxels.

    Parameters
    ----------
    counts : ndarray, int64, (classes, 256)
        Voxels by class and confidence.
    """
    strata = np.full(counts.shape, -1)
    number = 0
    for row, of_class in zip(strata, counts, strict=True):
        before = np.cumsum(of_class) - of_class
        part_of = np.searchsorted(np.array(SHARES) * of_class.sum(), before, side="right")
        for part in range(len(SHARES) + 1):
            mine = (part_of == part) & (of_class > 0)
            if mine.any():
                row[mine] = number
                number += 1
    return strata


def allocate(sizes: np.ndarray, points: int) -> np.ndarray:
    """Points per stratum, int (strata,): half of them shared equally, half by voxels, none above the stratum's voxels.

    Equal shares make the user's accuracy of rare classes known, proportional ones the overall accuracy.

    Raises
    ------
    InputError
        If there are fewer than two points per stratum, which is what a variance takes.
    """
    if points < LEAST * len(sizes):
        raise InputError(
            "--points",
            str(points),
            f"{LEAST * len(sizes)} or more: two for each of {len(sizes)} strata of class and confidence",
            "draw more points, or merge classes",
        )
    n = np.minimum(LEAST, sizes)
    while (left := points - int(n.sum())) > 0 and (room := n < sizes).any():
        share = np.where(room, left * (0.5 / room.sum() + 0.5 * sizes / sizes[room].sum()), 0)
        more = np.floor(share).astype(int)
        if not more.any():
            more[np.argsort(-share, kind="stable")[:left]] = 1
        n = np.minimum(n + more, sizes)
    return n


def windows(product: Volume, confidence: Volume, known: Volume | None) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """First slice, class ids and confidence of eight slices at a time; what was trained on has no class."""
    for z in range(0, product.shape[0], ALIGN):
        labels, sure = product.read(z, z + ALIGN), confidence.read(z, z + ALIGN)
        if known is not None:
            labels = np.where(known.read(z, z + ALIGN) == UNLABELLED, labels, np.uint8(UNLABELLED))
        yield z, labels, sure


def draw(
    product: Volume, confidence: Volume, n_classes: int, points: int, seed: int, known: Volume | None = None
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """A stratified random sample of voxels, without replacement, in two passes of eight slices at a time.

    Parameters
    ----------
    product, confidence : Volume
        uint8 class ids (255 is left out) and uint8 confidence, 0 … 255 for 0 … 1.
    n_classes, points, seed : int
    known : Volume, optional
        Where it is not 255 a human label was trained on: left out.

    Returns
    -------
    sizes, points
        Voxels per stratum, int64; the points in random order: stratum, z, y, x.

    Raises
    ------
    InputError
        If nothing is labelled, or the points are too few.
    """
    counts = np.zeros((n_classes, 256), np.int64)
    for _, labels, sure in windows(product, confidence, known):
        inside = labels < n_classes
        pairs = labels[inside].astype(np.int64) * 256 + sure[inside]
        counts += np.bincount(pairs, minlength=counts.size).reshape(counts.shape)
    if not counts.any():
        raise InputError("labels", "no labelled voxel", "labels to validate", "look at the report of the run first")
    strata = cut_strata(counts)
    sizes = np.bincount(strata[strata >= 0], counts[strata >= 0]).astype(np.int64)
    rng = np.random.default_rng([seed, points])
    ranks = [
        np.sort(rng.choice(size, n, replace=False)) for size, n in zip(sizes, allocate(sizes, points), strict=True)
    ]
    table = np.full((256, 256), -1)
    table[:n_classes] = strata
    seen = np.zeros(len(sizes), np.int64)
    found = []
    for z, labels, sure in windows(product, confidence, known):
        of = table[labels, sure].ravel()
        here = np.bincount(of[of >= 0], minlength=len(sizes))
        for number, chosen in enumerate(ranks):
            first, last = np.searchsorted(chosen, [seen[number], seen[number] + here[number]])
            if first < last:
                places = np.flatnonzero(of == number)[chosen[first:last] - seen[number]]
                for dz, y, x in zip(*np.unravel_index(places, labels.shape), strict=True):
                    found.append({"stratum": number, "z": z + int(dz), "y": int(y), "x": int(x)})
        seen += here
    return sizes, [found[index] for index in rng.permutation(len(found))]
