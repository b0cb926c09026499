"""Mitochondria in textured cytoplasm as an electron microscope images them, block face after block face."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from beamseg.errors import InputError

from .shapes import Waves, draw_waves, slice_grid

CLASSES = ("background", "mitochondrion")
BACKGROUND, MITOCHONDRION = range(2)


@dataclass(frozen=True)
class Cells:
    """Ellipsoids and fields; lengths in voxels from the volume's centre."""

    centres: np.ndarray  # (n, 3) z, y, x
    axes: np.ndarray  # (n, 3, 3): rows are unit vectors of the ellipsoid's own axes
    radii: np.ndarray  # (n, 3) half-axes along them
    bodies: np.ndarray  # (m, 4): centre and radius of round bodies that are no mitochondria
    dense: np.ndarray  # (m,) whether a body is as dark as a mitochondrion; the others are bright
    roughness: Waves
    cristae: Waves
    borders: Waves  # cells meet where it is 0
    texture: Waves


def make(settings: dict[str, Any]) -> Cells:
    """Draw the cells; they depend on `size`, `seed` and `mitochondria.share` alone."""
    depth, width = settings["size"][0], settings["size"][1]
    rng = np.random.default_rng([settings["seed"], 0])
    thin = width / 20
    extent = np.array([depth, width, width])
    wanted = settings["mitochondria"]["share"] * extent.prod()
    placed: list[np.ndarray] = []  # centre, reach
    radii, volume = [], 0.0
    for _ in range(20_000):
        if volume >= wanted:
            break
        half = thin * rng.uniform([1.2, 0.8, 0.8], [2.6, 1.2, 1.2])
        centre = rng.uniform(-0.5, 0.5, 3) * extent
        if any(np.linalg.norm(centre - other[:3]) < 0.75 * (half[0] + other[3]) for other in placed):
            continue
        placed.append(np.append(centre, half[0]))
        radii.append(half)
        # What the volume's faces cut off is not counted: about the share of a shell of half the reach.
        inside = np.clip(0.5 + (0.5 * extent - np.abs(centre)) / (2 * half[0]), 0, 1).prod()
        volume += 4 / 3 * np.pi * half.prod() * inside
    if volume < wanted:
        raise InputError(
            "phantom.mitochondria.share",
            f"{settings['mitochondria']['share']}, of which {volume / extent.prod():.2g} found room",
            "mitochondria that do not touch",
            "lower it",
        )
    turned = np.linalg.qr(rng.normal(size=(len(placed), 3, 3)))[0].transpose(0, 2, 1)
    n_bodies = 2 * len(placed)
    sizes = thin * rng.uniform(0.25, 0.7, n_bodies)
    where = rng.uniform(-0.5, 0.5, (n_bodies, 3)) * extent
    return Cells(
        np.array([p[:3] for p in placed]),
        turned,
        np.array(radii),
        np.column_stack([where, sizes]),
        rng.uniform(size=n_bodies) < 0.5,
        draw_waves(rng, 12, 1.5 * thin, 5 * thin, 0.08),
        draw_waves(rng, 16, 0.5 * thin, 0.9 * thin, 1.0),
        draw_waves(rng, 16, 5 * thin, 14 * thin, 1.0),
        draw_waves(rng, 24, 0.3 * thin, 1.5 * thin, 1.0),
    )


def _distance(cells: Cells, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Signed distance (y, x) to the nearest mitochondrion in voxels, negative inside."""
    shape = np.broadcast(z, y, x).shape
    distance = np.full(shape, 1e6)
    rough = cells.roughness(z, y, x)
    for centre, axes, radii in zip(cells.centres, cells.axes, cells.radii, strict=True):
        reach = 1.3 * radii[0] + 6
        if abs(float(z) - centre[0]) > reach:
            continue
        rows = np.flatnonzero(np.abs(y[:, 0] - centre[1]) < reach)
        columns = np.flatnonzero(np.abs(x[0] - centre[2]) < reach)
        if not rows.size or not columns.size:
            continue
        window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        at = (z - centre[0], y[rows] - centre[1], x[:, columns] - centre[2])
        along = [sum(a * d for a, d in zip(axis, at, strict=True)) / r for axis, r in zip(axes, radii, strict=True)]
        radial = np.sqrt(along[0] ** 2 + along[1] ** 2 + along[2] ** 2) + rough[window]
        distance[window] = np.minimum(distance[window], (radial - 1) * radii[1:].min())
    return distance


def draw(cells: Cells, settings: dict[str, Any], index: int) -> tuple[np.ndarray, np.ndarray]:
    """Grey of an ideal image, 0 … 1, and index into `CLASSES` of a slice; see `simulate.draw_slice`."""
    z, y, x = slice_grid(settings["size"], index)
    own = settings["mitochondria"]
    grey, thick = own["grey"], own["membrane_voxels"]
    distance = _distance(cells, z, y, x)
    thin = settings["size"][1] / 20

    def mixed(image: np.ndarray, share: np.ndarray, level: float) -> np.ndarray:
        return image + np.clip(share, 0, 1) * (level - image)

    def rim(away: np.ndarray) -> np.ndarray:
        return 0.5 + 0.5 * thick - np.abs(away)

    image = grey["cytoplasm"] * (1 + own["texture"] * cells.texture(z, y, x))
    # The field crosses 0 with about one standard deviation per sixth of its mean wave.
    image = mixed(image, rim(cells.borders(z, y, x) * 1.5 * thin), grey["membrane"])
    for (cz, cy, cx, radius), dense in zip(cells.bodies, cells.dense, strict=True):
        if abs(float(z) - cz) > radius + thick:
            continue
        away = np.sqrt((z - cz) ** 2 + (y - cy) ** 2 + (x - cx) ** 2) - radius
        image = mixed(image, 0.5 - away, grey["mitochondrion"] if dense else grey["cytoplasm"])
        image = mixed(image, rim(away), grey["membrane"])
    lumen = np.clip(0.5 - distance, 0, 1)
    image = mixed(image, lumen, grey["mitochondrion"])
    cristae = np.clip(cells.cristae(z, y, x) - 0.6, 0, 1) * (distance < -thick)
    image = mixed(image, cristae, grey["membrane"])
    image = mixed(image, rim(distance + 0.5 * thick), grey["membrane"])
    return image.astype(np.float32), (distance < 0).astype(np.uint8)


def measure(image: np.ndarray, settings: dict[str, Any], index: int) -> np.ndarray:
    """A block face as the detector gives it, float32 (y, x) > 0: blurred, of a brightness of its own, with noise.

    Parameters
    ----------
    image : ndarray, float32, (y, x)
        Of `draw`.
    settings : dict
        The section `phantom`.
    index : int
        The slice; with the seed it fixes noise and brightness.
    """
    own = settings["mitochondria"]
    rng = np.random.default_rng([settings["seed"], 1, index])
    bright = 1 + own["flicker"] * rng.normal()
    noisy = bright * gaussian_filter(image, settings["blur"]) + own["noise"] * rng.normal(size=image.shape)
    return np.maximum(noisy, 1e-3).astype(np.float32)
