"""Rendered views of classes: a small ray-caster in numpy, orthographic, shaded by slope and depth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import affine_transform, gaussian_filter

from .volumes import Volume

MOST = 260  # pixels of a side of the picture; its cube is held in memory
LIGHT = np.array([-0.75, -0.5, -0.45]) / np.linalg.norm([0.75, 0.5, 0.45])


def reduced(volume: Volume, most: int) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Every n-th voxel of a volume, axis by axis, read slice by slice.

    Returns
    -------
    ndarray, (z, y, x), (int, int, int)
        No axis longer than `most`, and the steps.
    """
    steps = tuple(max(1, -(-n // most)) for n in volume.shape)
    slices = [volume.read(z, z + 1)[0][:: steps[1], :: steps[2]] for z in range(0, volume.shape[0], steps[0])]
    return np.stack(slices), (steps[0], steps[1], steps[2])


def rotation(azimuth: float, elevation: float) -> np.ndarray:
    """(3, 3) rows: the axes depth, down and right of a view in z, y, x; angles in degrees.

    At 0, 0 one looks along y, with x to the right and z upwards, so that nothing is mirrored.
    """
    a, e = np.deg2rad([azimuth, elevation])
    forward = np.array([-np.sin(e), np.cos(e) * np.cos(a), np.cos(e) * np.sin(a)])
    right = np.array([0.0, -np.sin(a), np.cos(a)])
    return np.stack([forward, np.cross(right, forward), right])


def surface(
    mask: np.ndarray, voxel: Sequence[float], azimuth: float = 35.0, elevation: float = 25.0
) -> tuple[np.ndarray, float]:
    """Brightness of the surface that a mask shows to a viewer far away.

    Parameters
    ----------
    mask : ndarray, bool, (z, y, x)
    voxel : (z, y, x)
        Size of its voxels, any unit.
    azimuth, elevation : float
        Degrees, from the y axis about z, and above the xy plane.

    Returns
    -------
    ndarray, float32, (rows, columns), float
        0 … 1, NaN where nothing is hit; and the size of a pixel in the unit of `voxel`.
    """
    field = gaussian_filter(np.pad(mask, 2).astype(np.float32), 0.7)
    size = np.array(field.shape) * np.asarray(voxel, float)
    pixel = max(float(min(voxel)), float(np.linalg.norm(size)) / MOST)
    side = int(np.ceil(np.linalg.norm(size) / pixel))
    view = rotation(azimuth, elevation)
    # Output index -> offset from the middle in units -> input index.
    matrix = (view.T * pixel) / np.asarray(voxel, float)[:, None]
    middle = (np.array(field.shape) - 1) / 2
    seen = affine_transform(field, matrix, middle - matrix @ np.full(3, (side - 1) / 2), (side,) * 3, order=1)
    solid = seen > 0.5
    hit = solid.any(axis=0)
    first = solid.argmax(axis=0)
    rows, columns = np.nonzero(hit)
    depth = first[rows, columns]
    slopes = []
    for axis in range(3):
        ahead, behind = [depth, rows, columns], [depth, rows, columns]
        ahead[axis] = np.minimum(ahead[axis] + 1, side - 1)
        behind[axis] = np.maximum(behind[axis] - 1, 0)
        slopes.append(seen[tuple(ahead)] - seen[tuple(behind)])
    normal = -np.stack(slopes, axis=1)
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)
    near = 1 - (depth - depth.min(initial=side)) / max(1, side) if depth.size else depth
    shade = np.full((side, side), np.nan, np.float32)
    shade[rows, columns] = (0.3 + 0.7 * np.clip(normal @ LIGHT, 0, 1)) * (0.55 + 0.45 * near)
    return shade, pixel
