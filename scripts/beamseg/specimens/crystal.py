"""A cleaved crystal with intergrowth sheets, voids and a bright boundary, as the magnesium scan of the SR-CT paper."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from .shapes import (
    Block,
    Sheets,
    block_distance,
    carve,
    centred,
    draw_waves,
    normals,
    sheet_fraction,
    slice_grid,
)

CLASSES = ("background", "matrix", "intergrowth", "boundary")
BACKGROUND, MATRIX, INTERGROWTH, BOUNDARY = range(4)


def make(settings: dict[str, Any]) -> Block:
    """Draw the crystal; it depends on `size`, `n_sheets` and `seed` alone, and lies inside the circle."""
    depth, width = settings["size"][0], settings["size"][1]
    radius = width / 2
    rng = np.random.default_rng([settings["seed"], 0])
    n_faces = 7
    azimuth = (np.arange(n_faces) + rng.uniform(-0.25, 0.25, n_faces)) * 2 * np.pi / n_faces + rng.uniform(0, 2 * np.pi)
    distance = radius * rng.uniform(0.66, 0.80, n_faces)
    faces = np.concatenate([normals(azimuth, rng.uniform(-0.2, 0.2, n_faces)), distance[:, None]], axis=1)

    count = max(3, round(width / 18)) if settings["n_sheets"] is None else settings["n_sheets"]
    family = rng.uniform(0, np.pi)
    # Most sheets follow one lattice plane; one in five lies across it.
    across = (np.arange(count) % 5 == 4) * rng.uniform(0.9, 1.4)
    span = [radius, radius, depth, depth]
    place = (np.arange(count) + rng.uniform(0.2, 0.8, count)) / max(count, 1)
    sheets = Sheets(
        normals=normals(family + across + rng.normal(0, 0.06, count), rng.normal(0.15, 0.1, count)),
        offsets=1.44 * radius * (place - 0.5),
        thicknesses=rng.uniform(3.0, 6.0, count),
        strengths=rng.uniform(0.9, 1.1, count),
        bends=rng.uniform([0.02, 1.2, 0], [0.06, 3.0, 2 * np.pi], (count, 3)) * [radius, radius, 1],
        extents=rng.uniform([-0.25, 0.45, -0.3, 0.6], [0.25, 0.95, 0.3, 1.2], (count, 4)) * span,
    )
    n_voids = max(2, round(depth * width**2 / 200_000))
    angle, reach = rng.uniform(0, 2 * np.pi, n_voids), 0.6 * radius * np.sqrt(rng.uniform(0, 1, n_voids))
    centres = [rng.uniform(-0.5, 0.5, n_voids) * depth, reach * np.sin(angle), reach * np.cos(angle)]
    voids = np.stack([*centres, *(rng.uniform(0.02, 0.06, (3, n_voids)) * radius + 1.5)], axis=1)
    drift = draw_waves(rng, 8, 0.6 * width, 1.5 * width, 1.0)
    roughness = draw_waves(rng, 6, 0.15 * width, 0.5 * width, 0.012 * radius)
    block = Block(faces, 0.94 * radius, roughness, sheets, voids, drift)
    return replace(block, drift=centred(drift, lambda *at: block_distance(block, *at) < 0, depth, radius))


def draw(block: Block, settings: dict[str, Any], index: int) -> tuple[np.ndarray, np.ndarray]:
    """Attenuation in 1/mm and index into `CLASSES` of a slice; see `simulate.draw_slice`."""
    z, y, x = slice_grid(settings["size"], index)
    distance = block_distance(block, z, y, x)
    solid = np.clip(0.5 - distance, 0, 1)
    solid = carve(solid, block.voids, z, y, x)
    shell = np.clip(0.5 + distance + settings["boundary_voxels"], 0, 1)
    sheet, strength = sheet_fraction(block.sheets, z, y, x)

    phases = settings["attenuation"]
    inner = phases["matrix"] + sheet * strength * (phases["intergrowth"] - phases["matrix"])
    attenuation = solid * (inner + shell * (phases["boundary"] - inner))
    attenuation *= 1 + settings["drift"] * block.drift(z, y, x)

    truth = np.full(distance.shape, MATRIX, np.uint8)
    truth[sheet > 0.5] = INTERGROWTH
    truth[shell > 0.5] = BOUNDARY
    truth[solid <= 0.5] = BACKGROUND
    return attenuation.astype(np.float32), truth
