"""Shapes of the specimens as formulas, in voxels from the volume's centre: any slice is known without its volume."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Waves:
    """A smooth random field, a sum of plane cosines: known anywhere from a few numbers, so no volume is ever held."""

    vectors: np.ndarray  # (n, 3), radians per voxel along z, y, x
    phases: np.ndarray  # (n,)
    mean: float = 0.0
    std: float = 1.0

    def __call__(self, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Value at the points z, y, x (voxels from the centre)."""
        total = np.zeros(np.broadcast(z, y, x).shape)
        for (kz, ky, kx), phase in zip(self.vectors, self.phases, strict=True):
            total += np.cos(kz * z + ky * y + kx * x + phase)
        return (total - self.mean) / self.std


@dataclass(frozen=True)
class Sheets:
    """Thin bent sheets; every array has one entry per sheet, lengths are in voxels."""

    normals: np.ndarray  # (n, 3), unit vectors z, y, x
    offsets: np.ndarray  # distance from the centre along the normal
    thicknesses: np.ndarray
    strengths: np.ndarray  # contrast over the matrix, 1 is nominal
    bends: np.ndarray  # (n, 3): amplitude, wavelength, phase of the curve along the sheet
    extents: np.ndarray  # (n, 4): centre and half-axis of the sheet along its own horizontal, and along z


@dataclass(frozen=True)
class Block:
    """A solid between plane faces, with sheets and voids in it."""

    faces: np.ndarray  # (n, 4): unit normal z, y, x and distance of each face
    reach: float  # nothing lies farther from the axis of rotation
    roughness: Waves
    sheets: Sheets
    voids: np.ndarray  # (n, 6): centre and half-axes, z, y, x
    drift: Waves


def draw_waves(rng: np.random.Generator, count: int, shortest: float, longest: float, deviation: float) -> Waves:
    """A field of `count` waves with lengths between two bounds and a given standard deviation."""
    directions = rng.normal(size=(count, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    lengths = rng.uniform(shortest, longest, size=(count, 1))
    return Waves(
        2 * np.pi * directions / lengths, rng.uniform(0, 2 * np.pi, count), 0.0, np.sqrt(count / 2) / deviation
    )


def normals(azimuth: np.ndarray, tilt: np.ndarray) -> np.ndarray:
    """Unit vectors (n, 3) z, y, x from angles in radians."""
    return np.stack([np.sin(tilt), np.cos(tilt) * np.sin(azimuth), np.cos(tilt) * np.cos(azimuth)], axis=-1)


def centred(drift: Waves, inside: Callable[..., np.ndarray], depth: int, radius: float) -> Waves:
    """The field with mean 0 and standard deviation 1 where `inside(z, y, x)`: `drift` then means the same for all."""
    plane = np.linspace(-radius, radius, 32)
    grid = np.meshgrid(np.linspace(-0.5, 0.5, 8) * depth, plane, plane, indexing="ij", sparse=True)
    values = drift(*grid)[inside(*grid)]
    return Waves(drift.vectors, drift.phases, values.mean() * drift.std, values.std() * drift.std)


def slice_grid(size: list[int], index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """z (), y (n, 1) and x (1, n) of a slice, in voxels from the volume's centre."""
    depth, width = size[0], size[1]
    y, x = np.meshgrid(*(np.arange(width) - width // 2,) * 2, indexing="ij", sparse=True)
    return np.asarray(index - depth / 2), y, x


def block_distance(block: Block, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Signed distance to the block's surface in voxels, negative inside."""
    distance = np.full(np.broadcast(z, y, x).shape, -np.inf)
    for nz, ny, nx, offset in block.faces:
        np.maximum(distance, nz * z + ny * y + nx * x - offset, out=distance)
    distance += block.roughness(z, y, x)
    # Sharp corners are cut: whatever left the circle would be reconstructed as streaks.
    return np.maximum(distance, np.hypot(y, x) - block.reach)


def carve(solid: np.ndarray, voids: np.ndarray, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Share of each voxel that is solid, less the ellipsoids `voids` (n, 6)."""
    for cz, cy, cx, rz, ry, rx in voids:
        radial = np.sqrt(((z - cz) / rz) ** 2 + ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2)
        solid = np.minimum(solid, np.clip(0.5 + (radial - 1) * min(ry, rx), 0, 1))
    return solid


def sheet_fraction(sheets: Sheets, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of each voxel that lies in a sheet, 0 … 1, and the sheet's strength there."""
    fraction = np.zeros(np.broadcast(z, y, x).shape)
    strength = np.ones_like(fraction)
    for i in range(len(sheets.offsets)):
        nz, ny, nx = sheets.normals[i]
        level = np.hypot(ny, nx)
        along = (-nx * y + ny * x) / level
        amplitude, wavelength, phase = sheets.bends[i]
        bend = amplitude * np.sin(2 * np.pi * (along + 0.25 * z) / wavelength + phase)
        distance = np.abs(nz * z + ny * y + nx * x - sheets.offsets[i] - bend)
        along_0, along_r, z_0, z_r = sheets.extents[i]
        rim = 1 - ((along - along_0) / along_r) ** 2 - ((z - z_0) / z_r) ** 2
        # A sheet thins out towards its rim, as a lens does.
        half = 0.5 * sheets.thicknesses[i] * np.sqrt(np.clip(4 * rim, 0, 1))
        here = np.clip(0.5 + half - distance, 0, 1) * (half > 0)
        strength = np.where(here > fraction, sheets.strengths[i], strength)
        fraction = np.maximum(fraction, here)
    return fraction, strength
