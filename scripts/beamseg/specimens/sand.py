"""Packed rounded grains of one or two attenuations, some hollow, with thin films of a fluid where they touch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from beamseg.errors import InputError

from .shapes import Waves, carve, centred, draw_waves, slice_grid

CLASSES = ("background", "film", "grain", "dense grain")
BACKGROUND, FILM, GRAIN, DENSE = range(4)
FAR = 1e6


@dataclass(frozen=True)
class Sand:
    """Grains as ellipsoids cut off where they would overlap; lengths in voxels from the volume's centre."""

    centres: np.ndarray  # (n, 3) z, y, x
    radii: np.ndarray  # (n, 3) half-axes
    dense: np.ndarray  # (n,) whether the grain is of the second attenuation
    roughness: Waves
    voids: np.ndarray  # (n, 6): centre and half-axes, z, y, x
    drift: Waves


def make(settings: dict[str, Any]) -> Sand:
    """Draw the sand; it depends on `size`, `seed`, `sand.grain_voxels` and `sand.dense_share` alone."""
    depth, width = settings["size"][0], settings["size"][1]
    radius = width / 2
    rng = np.random.default_rng([settings["seed"], 0])
    pitch = settings["sand"]["grain_voxels"] or width / 7
    # A body-centred lattice, shaken: grains have about eight neighbours, and no two have the same.
    reach = int(np.ceil((depth / 2 + pitch) / pitch)), int(np.ceil(radius / pitch))
    corners = np.mgrid[-reach[0] : reach[0] + 1, -reach[1] : reach[1] + 1, -reach[1] : reach[1] + 1].reshape(3, -1).T
    lattice = np.concatenate([corners, corners + 0.5]) * pitch * [0.9, 1, 1]
    lattice += rng.uniform(-0.16, 0.16, lattice.shape) * pitch
    radii = rng.uniform(0.36, 0.52, (len(lattice), 1)) * rng.uniform(0.9, 1.1, lattice.shape) * pitch
    kept = np.hypot(lattice[:, 1], lattice[:, 2]) + 1.1 * radii.max(axis=1) < 0.94 * radius
    if not kept.any():
        raise InputError(
            "phantom.sand.grain_voxels",
            f"{pitch:.4g} voxels for a slice of {width}",
            "grains that lie inside the reconstruction circle",
            f"set grain_voxels to {width / 7:.0f} or less",
        )
    centres, radii = lattice[kept], radii[kept]
    dense = rng.uniform(size=len(centres)) < settings["sand"]["dense_share"]
    hollow = rng.uniform(size=len(centres)) < 0.25
    spread = rng.uniform(-0.3, 0.3, (len(centres), 3)) * radii
    sizes = rng.uniform(0.12, 0.25, (len(centres), 3)) * radii
    voids = np.concatenate([centres + spread, sizes], axis=1)[hollow]
    roughness = draw_waves(rng, 8, 0.3 * pitch, 0.9 * pitch, 0.025 * pitch)
    drift = draw_waves(rng, 8, 0.6 * width, 1.5 * width, 1.0)

    def inside(z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.hypot(y, x) < 0.94 * radius, np.broadcast(z, y, x).shape)

    return Sand(centres, radii, dense, roughness, voids, centred(drift, inside, depth, radius))


def _two_nearest(sand: Sand, size: list[int], index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Signed distances (y, x) to the nearest and second nearest grain, negative inside, and which is nearest."""
    z, y, x = slice_grid(size, index)
    first = np.full((size[1], size[1]), FAR)
    second, nearest = first.copy(), np.zeros(first.shape, np.int64)
    margin = 0.3 * float(sand.radii.max(initial=0)) + 3
    for grain, ((cz, cy, cx), (rz, ry, rx)) in enumerate(zip(sand.centres, sand.radii, strict=True)):
        if abs(float(z) - cz) > rz + margin:
            continue
        rows = np.flatnonzero(np.abs(y[:, 0] - cy) < ry + margin)
        columns = np.flatnonzero(np.abs(x[0] - cx) < rx + margin)
        window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        radial = np.sqrt(((z - cz) / rz) ** 2 + ((y[rows] - cy) / ry) ** 2 + ((x[:, columns] - cx) / rx) ** 2)
        distance = (radial - 1) * (rz * ry * rx) ** (1 / 3)
        closer = distance < first[window]
        second[window] = np.where(closer, first[window], np.minimum(second[window], distance))
        first[window] = np.where(closer, distance, first[window])
        nearest[window] = np.where(closer, grain, nearest[window])
    rough = sand.roughness(z, y, x)
    return first + rough, second + rough, nearest


def draw(sand: Sand, settings: dict[str, Any], index: int) -> tuple[np.ndarray, np.ndarray]:
    """Attenuation in 1/mm and index into `CLASSES` of a slice; see `simulate.draw_slice`."""
    z, y, x = slice_grid(settings["size"], index)
    first, second, nearest = _two_nearest(sand, settings["size"], index)
    gap = settings["sand"]["film_voxels"]
    full = np.clip(0.5 - np.maximum(first, 0.5 * (gap - (second - first))), 0, 1)
    solid = carve(full, sand.voids, z, y, x)
    # Where two grains come nearer than the film is thick, capillary forces hold it.
    wet = (1 - full) * np.clip(0.5 - 0.5 * (first + second - gap), 0, 1)
    phases = settings["sand"]["attenuation"]
    grain = np.where(sand.dense[nearest], phases["dense"], phases["grain"])
    attenuation = (solid * grain + wet * phases["film"]) * (1 + settings["drift"] * sand.drift(z, y, x))

    truth = np.where(wet > 0.5, FILM, BACKGROUND).astype(np.uint8)
    inside = solid > 0.5
    truth[inside] = np.where(sand.dense[nearest], DENSE, GRAIN)[inside]
    return attenuation.astype(np.float32), truth
