"""Areas, Euler numbers and thicknesses of classes; counts of pieces along z sum to the counts of the whole.

A piece is a block of slices and, where the volume goes on, the slice after it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from scipy.ndimage import distance_transform_edt
from scipy.spatial import SphericalVoronoi

from .metrics import contingency

DIRECTIONS = [
    *((0, 0, 1), (0, 1, 0), (1, 0, 0), (0, 1, 1), (0, 1, -1), (1, 0, 1), (1, 0, -1), (1, 1, 0), (1, -1, 0)),
    *((1, 1, 1), (1, 1, -1), (1, -1, 1), (1, -1, -1)),
]
"""To a voxel's 26 neighbours, one of each opposite two; z, y, x."""
RADII = 25


def pair_counts(piece: np.ndarray, depth: int, n_classes: int) -> np.ndarray:
    """Classes of neighbouring voxels.

    Parameters
    ----------
    piece : ndarray, uint8, (depth + 0 or 1, y, x)
        Class ids, 255 outside the field of view.
    depth : int
        Slices that the pairs start in.
    n_classes : int

    Returns
    -------
    ndarray, int64, (13, n_classes, n_classes)
        `counts[k, a, b]` pairs in which a voxel of class b lies in `DIRECTIONS[k]` of one of class a; pairs with a
        voxel outside the field of view are left out.
    """
    found = np.zeros((len(DIRECTIONS), n_classes, n_classes), np.int64)
    for k, (dz, dy, dx) in enumerate(DIRECTIONS):
        last = min(depth, len(piece) - dz)
        first, second = piece[:last], piece[dz : dz + last]
        for axis, step in ((1, dy), (2, dx)):
            low, high = ([slice(None)] * 3 for _ in range(2))
            low[axis], high[axis] = slice(None, -1), slice(1, None)
            if step:
                near, far = (low, high) if step > 0 else (high, low)
                first, second = first[tuple(near)], second[tuple(far)]
        found[k] = contingency(first, second)[:n_classes, :n_classes]
    return found


def interface_areas(pairs: np.ndarray, voxel_size: Sequence[float]) -> np.ndarray:
    """Area between every two classes from `pair_counts` of the whole volume.

    Parameters
    ----------
    pairs : ndarray, int, (13, n, n)
    voxel_size : (z, y, x)

    Returns
    -------
    ndarray, float64, (n, n)
        Symmetric, in the square of the voxel size's unit; 0 on the diagonal.

    Notes
    -----
    The Crofton formula with 13 directions: area is twice the mean over directions of the number of crossings times the
    area per test line (Ohser and Mücklich 2000, chapter 4; weights of the directions are the parts of the sphere that
    are nearest to them, Lehmann and Legland 2012). Within 2 % for surfaces without a preferred direction; a
    plane along the voxel grid comes out 7 % too small. The rim of the field of view is no surface.
    """
    size = np.asarray(voxel_size, dtype=float)
    lengths = np.linalg.norm(np.array(DIRECTIONS) * size, axis=1)
    weights = direction_weights(voxel_size)
    crossings = pairs + pairs.transpose(0, 2, 1)
    areas = 2 * size.prod() * np.einsum("k,kab->ab", weights / lengths, crossings)
    np.fill_diagonal(areas, 0)
    return areas


def direction_weights(voxel_size: Sequence[float]) -> np.ndarray:
    """Share of all directions that each of the 13 stands for, float64 (13,), sum 1."""
    steps = np.array(DIRECTIONS) * np.asarray(voxel_size, dtype=float)
    points = np.concatenate([steps, -steps])
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return SphericalVoronoi(points).calculate_areas()[: len(DIRECTIONS)] / (2 * np.pi)


def euler_counts(piece: np.ndarray, depth: int, n_classes: int) -> np.ndarray:
    """Contribution of a piece to the Euler number of each class, int64 (n_classes,).

    Voxels less pairs, plus squares of four, less cubes of eight, all of one class: pieces less tunnels plus cavities
    of the class with 6-connected voxels, as `components` has them.
    """
    total = np.zeros(256, np.int64)
    for axes in itertools.chain.from_iterable(itertools.combinations(range(3), n) for n in range(4)):
        deep = 0 in axes
        last = min(depth, len(piece) - deep)
        equal: np.ndarray | None = None
        corner = _corner(piece, axes, (), last)
        for n in range(1, len(axes) + 1):
            for moved in itertools.combinations(axes, n):
                same = _corner(piece, axes, moved, last) == corner
                equal = same if equal is None else equal & same
        values = corner if equal is None else corner[equal]
        total += (-1) ** len(axes) * np.bincount(values.ravel(), minlength=256)
    return total[:n_classes]


def _corner(piece: np.ndarray, axes: tuple[int, ...], moved: tuple[int, ...], last: int) -> np.ndarray:
    """One corner of all boxes that extend by one voxel along `axes`: the corner that lies far along `moved`."""
    z = int(0 in moved)
    window = [slice(z, z + last)]
    window += [(slice(1, None) if a in moved else slice(None, -1)) if a in axes else slice(None) for a in (1, 2)]
    return piece[tuple(window)]


def local_thickness(mask: np.ndarray, voxel_size: Sequence[float], beyond: np.ndarray | None = None) -> np.ndarray:
    """Diameter of the largest ball that holds a voxel and lies in the mask.

    Parameters
    ----------
    mask : ndarray, bool, (z, y, x)
    voxel_size : (z, y, x)
    beyond : ndarray, bool, (z, y, x), optional
        Voxels outside the field of view: they end no object, and neither do the borders of the array.

    Returns
    -------
    ndarray, float32, (z, y, x)
        In the unit of the voxel size; 0 outside the mask; infinite where nothing ends the mask.

    Notes
    -----
    Hildebrand and Rüegsegger (1997), with at most 25 radii. A ball ends half a voxel before the centre of the first
    voxel of another class; with an even number of voxels across, the result is one voxel less, since balls are
    centred on voxels.
    """
    size = np.asarray(voxel_size, dtype=float)
    half = size.prod() ** (1 / 3) / 2
    thickness = np.zeros(mask.shape, np.float32)
    inside = mask if beyond is None else mask | beyond
    if not mask.any() or inside.all():
        thickness[mask] = np.inf
        return thickness
    distance = distance_transform_edt(inside, size).astype(np.float32)
    distance[~mask] = 0
    radii = np.unique(distance[mask])
    if len(radii) > RADII:
        radii = radii[np.rint(np.linspace(0, len(radii) - 1, RADII)).astype(int)]
    for radius in radii[::-1]:
        reached = distance_transform_edt(distance < radius, size).astype(np.float32) < radius
        thickness[reached & mask & (thickness == 0)] = 2 * (radius - half)
    return thickness
