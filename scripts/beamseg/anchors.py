"""Labelled slices as anchors of MPP: sweeps from them along z say which masks are supported, for any number of classes.

The EM poster names morphological post-processing between labelled slices and gives no rule; what is here is ours. From
each labelled slice a sweep goes both ways. It erodes what it holds of the slice before and accepts the patches that
this touches. A voxel stays if the front or the back sweep supports it, and changes if both agree on another class: AND
with (front OR back), OR with (front AND back). A sweep ends after `reach` slices, so slab by slab equals whole.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from scipy.ndimage import binary_erosion
from skimage.measure import label as connected_patches

from .label_values import UNLABELLED

_SQUARE = np.ones((3, 3), bool)


def supported(before: np.ndarray, raw: np.ndarray, n_classes: int, erode_px: int) -> np.ndarray:
    """What a settled slice says of the next one.

    Parameters
    ----------
    before : ndarray, uint8, (y, x)
        Classes of the settled slice; 255 says nothing and does not erode.
    raw : ndarray, uint8, (y, x)
        The network's classes of the next one.
    n_classes : int
    erode_px : int
        Pixels that `before` is eroded by, class by class; how far an edge may move from slice to slice.

    Returns
    -------
    ndarray, uint8, (y, x)
        `raw` in patches (8-connected) that touch their eroded class; elsewhere the eroded class; else 255.
    """
    said = np.full(raw.shape, UNLABELLED, np.uint8)
    eroded = np.full(raw.shape, UNLABELLED, np.uint8)
    for k in range(n_classes):
        core = before == k
        if erode_px and core.any():
            beyond = core | (before == UNLABELLED)
            core &= binary_erosion(beyond, _SQUARE, erode_px, border_value=1)
        eroded[core] = k
        patches = connected_patches(raw == k, connectivity=2)
        touched = np.zeros(int(patches.max()) + 1, bool)
        touched[patches[core]] = True
        touched[0] = False
        said[touched[patches]] = k
    np.copyto(said, eroded, where=said == UNLABELLED)
    said[raw == UNLABELLED] = UNLABELLED
    return said


def sweep(
    labels: np.ndarray, anchored: np.ndarray, n_classes: int, reach: int, erode_px: int, order: Iterable[int]
) -> np.ndarray:
    """What the last labelled slice in `order` says of each slice; uint8 (z, y, x), 255 where none is within `reach`.

    Parameters
    ----------
    labels : ndarray, uint8, (z, y, x)
    anchored : ndarray, bool, (z,)
        Slices that are labelled.
    n_classes, reach, erode_px : int
    order : iterable of int
        Slices in the order of the sweep: front is upwards, back is downwards.
    """
    said = np.full(labels.shape, UNLABELLED, np.uint8)
    age = reach
    before = labels[0]
    for z in order:
        if anchored[z]:
            before, age = labels[z], 0
        elif age < reach:
            before, age = supported(before, labels[z], n_classes, erode_px), age + 1
        else:
            continue
        said[z] = before
    return said


def anchored_slices(raw: np.ndarray, user: np.ndarray) -> np.ndarray:
    """Slices of which the user labelled half of the field of view or more, bool (z,)."""
    inside = raw != UNLABELLED
    given = (inside & (user != UNLABELLED)).sum((1, 2))
    return (given > 0) & (2 * given >= inside.sum((1, 2)))


def sweep_from_labels(raw: np.ndarray, user: np.ndarray, n_classes: int, reach: int, erode_px: int) -> np.ndarray:
    """Labels after both sweeps; labelled pixels bear the user's class.

    Parameters
    ----------
    raw : ndarray, uint8, (z, y, x)
        The network's labels, 255 outside the field of view, which stays so.
    user : ndarray, uint8, (z, y, x)
        255 unlabelled.
    n_classes : int
    reach : int
        Slices that a sweep goes from a labelled slice; a slice changes only where sweeps from both sides reach it.
    erode_px : int
        See `supported`.

    Returns
    -------
    ndarray, uint8, (z, y, x)
        A slice depends on those within `reach` alone. A patch between two labelled slices that neither supports goes
        where both agree on what lies there; what the network did not see is drawn only inside what both enclose.
    """
    known = (user != UNLABELLED) & (raw != UNLABELLED)
    labels = np.where(known, user, raw)
    anchored = anchored_slices(raw, user)
    if not anchored.any() or reach == 0:
        return labels
    upwards = range(len(labels))
    front = sweep(labels, anchored, n_classes, reach, erode_px, upwards)
    back = sweep(labels, anchored, n_classes, reach, erode_px, reversed(upwards))
    both = (front != UNLABELLED).any((1, 2)) & (back != UNLABELLED).any((1, 2)) & ~anchored
    inside = labels != UNLABELLED
    unsupported = both[:, None, None] & inside & ~known & (labels != front) & (labels != back)
    # Where one of them is silent the other decides; where they differ, the network.
    one = np.minimum(front, back)
    differ = (front != back) & (np.maximum(front, back) != UNLABELLED)
    np.copyto(labels, one, where=unsupported & ~differ & (one != UNLABELLED))
    return labels
