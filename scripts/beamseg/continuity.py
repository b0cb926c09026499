"""Continuity along z: the rule of morphological post-processing (MPP), for any number of classes.

The poster (spatial continuity-based EM segmentation, "MPP and SCM") names an operator across z at each (y, x); the
binary form, AND with (front OR back) then OR with (front AND back), is the median of three slices. What is here is
our generalisation: a run of one class along z that is no longer than the support is noise unless it is a sheet.
"""

from __future__ import annotations

import numpy as np
from skimage.measure import label as connected_patches

from .label_values import UNLABELLED

_VOTERS = 1 << 19  # voxels that vote at a time: bounds the memory of `majority_around`


def short_runs(
    labels: np.ndarray, support: int, known: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Voxels whose class does not go on along z, and the classes at both ends of their run.

    Parameters
    ----------
    labels : ndarray, uint8, (z + 2·support, y, x)
        Class ids with a halo of `support` slices on either side; 255 is outside and ends a run without a vote, and
        so do slices beyond the ends of the volume, which the caller fills with 255.
    support : int
        Slices. A run of at most this many is short.
    known : ndarray, bool, of the shape of `labels`, optional
        Voxels that the user labelled: no run that holds one is short.

    Returns
    -------
    short : ndarray, bool, (z, y, x)
        In the field of view, in a run of at most `support` slices that another class bounds on one side at least.
    below, above : ndarray, uint8, (z, y, x)
        First class after the run towards lower and higher z; 255 where there is none. Meaningful where `short`.
    """
    depth = len(labels) - 2 * support
    centre = labels[support : support + depth]
    length = np.ones(centre.shape, np.uint8)
    sure = np.zeros(centre.shape, bool) if known is None else known[support : support + depth].copy()
    ends = []
    for direction in (-1, 1):
        goes_on = np.ones(centre.shape, bool)
        end = centre.copy()
        for step in range(1, support + 1):
            at = support + direction * step
            other = labels[at : at + depth]
            np.copyto(end, other, where=goes_on)
            goes_on &= other == centre
            length += goes_on
            if known is not None:
                sure |= goes_on & known[at : at + depth]
        ends.append(end)
        del goes_on
    below, above = ends
    short = (length <= support) & (centre != UNLABELLED) & (below != centre) & (above != centre)
    short &= (below != UNLABELLED) | (above != UNLABELLED)
    short &= ~sure
    return short, below, above


def spare_sheets(short: np.ndarray, labels: np.ndarray, sheet_px: int) -> np.ndarray:
    """Take out of `short` what is extended in its slice: a thin sheet near the xy plane, and not noise.

    Parameters
    ----------
    short : ndarray, bool, (z, y, x)
    labels : ndarray, uint8, (z, y, x)
    sheet_px : int
        Pixels of a patch (8-connected, one class, all short, one slice) from which on it is a sheet; 0 spares none.

    Returns
    -------
    ndarray, bool, (z, y, x)
        What is noise. A slice is looked at as a whole, so neither slabs nor tiles cut a patch.
    """
    if sheet_px <= 0:
        return short
    noise = short.copy()
    for plane, classes in zip(noise, labels, strict=True):
        rows, columns = np.flatnonzero(plane.any(1)), np.flatnonzero(plane.any(0))
        if rows.size == 0:
            continue
        window = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
        inside = plane[window]
        patches = connected_patches(np.where(inside, classes[window] + np.uint8(1), np.uint8(0)), connectivity=2)
        sizes = np.bincount(patches.ravel())
        sizes[0] = 0
        inside &= (sizes < sheet_px)[patches]
    return noise


def majority_around(labels: np.ndarray, where: np.ndarray, n_classes: int) -> np.ndarray:
    """Class of most of the 26 neighbours of each voxel of `where`.

    Parameters
    ----------
    labels : ndarray, uint8, (z + 2, y, x)
        With a halo of one slice; 255 does not vote.
    where : ndarray, bool, (z, y, x)
    n_classes : int

    Returns
    -------
    ndarray, uint8, (voxels of `where`,)
        In C order. The lowest class id wins a tie; a voxel without a voter keeps its class.
    """
    padded = np.pad(labels, ((0, 0), (1, 1), (1, 1)), constant_values=UNLABELLED)
    plane, row = padded.shape[1] * padded.shape[2], padded.shape[2]
    offsets = [dz * plane + dy * row + dx for dz in (-1, 0, 1) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    offsets.remove(0)
    flat = padded.ravel()
    z, y, x = np.nonzero(where)
    centres = (z + 1) * plane + (y + 1) * row + (x + 1)
    winners = flat[centres]
    for start in range(0, len(centres), _VOTERS):
        chunk = centres[start : start + _VOTERS]
        most = np.zeros(len(chunk), np.uint8)
        neighbours = [flat[chunk + offset] for offset in offsets]
        for k in range(n_classes):
            votes = np.zeros(len(chunk), np.uint8)
            for neighbour in neighbours:
                votes += neighbour == k
            winners[start : start + _VOTERS][votes > most] = k
            np.maximum(most, votes, out=most)
    return winners


def continue_along_z(
    labels: np.ndarray, n_classes: int, support: int, sheet_px: int, known: np.ndarray | None = None
) -> np.ndarray:
    """Replace voxels whose class does not go on along z and that are no part of a sheet.

    Noise takes the class at both ends of its run where they agree (the poster's rule, class by class), else the
    majority of its 26 neighbours (ours). 255 stays 255.

    Parameters
    ----------
    labels : ndarray, uint8, (z + 2·support, y, x)
        With a halo of `support` slices, 255 beyond the volume.
    n_classes, support, sheet_px, known
        See `short_runs` and `spare_sheets`.

    Returns
    -------
    ndarray, uint8, (z, y, x)
        A function of `labels` within `support` slices alone, so slab by slab equals whole.
    """
    depth = len(labels) - 2 * support
    if support == 0:
        return labels.copy()
    result = labels[support : support + depth].copy()
    short, below, above = short_runs(labels, support, known)
    noise = spare_sheets(short, result, sheet_px)
    agree = noise & (below == above)
    np.copyto(result, below, where=agree)
    unsettled = noise & ~agree
    result[unsettled] = majority_around(labels[support - 1 : support + depth + 1], unsettled, n_classes)
    return result
