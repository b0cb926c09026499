"""Voxels that two phases share: their grey lies between, so clusters give them to a phase that is not there."""

from __future__ import annotations

import numpy as np

from .label_values import UNLABELLED
from .volumes import Volume

SHARE = 0.1
"""Of the surroundings, that a darker and a brighter class must each take; of 0.1 to 0.3 it left the fewest rims."""


def is_shared(labels: np.ndarray, half: int) -> np.ndarray:
    """Whether a pixel's class lies between two others, in the order of their grey, that both are around it.

    The border of two phases passes through such pixels, as the dark rim of a crack in one phase does not: it has that
    phase on both sides. A layer between two phases, thinner than the surroundings, cannot be told from a border.

    Parameters
    ----------
    labels : ndarray, uint8, (y, x)
        Clusters numbered by their mean grey; 255 is no class.
    half : int
        Half width of the square surroundings in pixels: 2 looks at 5 × 5.

    Returns
    -------
    ndarray, bool, (y, x)
    """
    shared = np.zeros(labels.shape, bool)
    is_class = labels != UNLABELLED

    from scipy.ndimage import uniform_filter  # a third of a second, of every process that reads labels

    def around(mask: np.ndarray) -> np.ndarray:
        return np.asarray(uniform_filter(mask.astype(np.float32), 2 * half + 1, mode="nearest"))

    for label in np.unique(labels[is_class])[1:-1]:
        least = np.minimum(around(labels < label), around((labels > label) & is_class))
        shared |= (labels == label) & (least > SHARE - 1e-4)
    return shared


class UnsharedVolume:
    """Labels less those of shared voxels, which are 255; any window gives what the whole gives.

    Parameters
    ----------
    volume : Volume
        uint8 clusters, numbered by their mean grey, 255 unlabelled.
    half : int
        As for `is_shared`.
    """

    def __init__(self, volume: Volume, half: int) -> None:
        self.volume, self.half = volume, half
        self.shape = volume.shape

    def read(self, z0: int, z1: int, y: slice = slice(None), x: slice = slice(None)) -> np.ndarray:
        """Labels of the window, uint8."""
        (a, b, _), (c, d, _) = y.indices(self.shape[1]), x.indices(self.shape[2])
        top, left = max(0, a - self.half), max(0, c - self.half)
        wide = self.volume.read(z0, z1, slice(top, b + self.half), slice(left, d + self.half))
        kept = wide[:, a - top : b - top, c - left : d - left].copy()
        for own, around in zip(kept, wide, strict=True):
            own[is_shared(around, self.half)[a - top : b - top, c - left : d - left]] = UNLABELLED
        return kept
