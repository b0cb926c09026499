"""A dense prism of square cross-section with one thin crack that runs in from a face, and a few pores."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from .shapes import Block, Sheets, block_distance, carve, centred, draw_waves, normals, sheet_fraction, slice_grid

CLASSES = ("background", "crack", "matrix")
BACKGROUND, CRACK, MATRIX = range(3)


def make(settings: dict[str, Any]) -> Block:
    """Draw the prism; it depends on `size`, `seed` and `ceramic.crack_voxels` alone, and lies inside the circle."""
    depth, width = settings["size"][0], settings["size"][1]
    radius = width / 2
    rng = np.random.default_rng([settings["seed"], 0])
    half = 0.62 * radius
    turn = rng.uniform(0, 2 * np.pi)
    azimuth = turn + np.arange(4) * np.pi / 2
    faces = np.concatenate([normals(azimuth, np.zeros(4)), np.full((4, 1), half)], axis=1)
    crack = Sheets(
        normals=normals(turn + rng.normal(0, 0.06, 1), rng.normal(0, 0.04, 1)),
        offsets=rng.uniform(-0.2, 0.2, 1) * half,
        thicknesses=np.full(1, float(settings["ceramic"]["crack_voxels"])),
        strengths=np.ones(1),
        bends=rng.uniform([[0.01, 0.5, 0]], [[0.04, 1.2, 2 * np.pi]]) * [radius, radius, 1],
        # From a face to beyond the middle; its front lies within the field of view along z, or not far from it.
        extents=np.array([[-half, rng.uniform(1.1, 1.5) * half, rng.uniform(-0.3, 0.3) * depth, 0.6 * depth]]),
    )
    n_voids = max(2, round(depth * width**2 / 1_000_000))
    centres = rng.uniform(-0.8, 0.8, (n_voids, 3)) * [depth / 2, 0.7 * half, 0.7 * half]
    voids = np.concatenate([centres, rng.uniform(0.015, 0.03, (n_voids, 3)) * radius + 1.2], axis=1)
    drift = draw_waves(rng, 8, 0.6 * width, 1.5 * width, 1.0)
    roughness = draw_waves(rng, 6, 0.1 * width, 0.3 * width, 0.003 * radius)
    block = Block(faces, 0.94 * radius, roughness, crack, voids, drift)
    return replace(block, drift=centred(drift, lambda *at: block_distance(block, *at) < 0, depth, radius))


def draw(block: Block, settings: dict[str, Any], index: int) -> tuple[np.ndarray, np.ndarray]:
    """Attenuation in 1/mm and index into `CLASSES` of a slice; see `simulate.draw_slice`."""
    z, y, x = slice_grid(settings["size"], index)
    solid = carve(np.clip(0.5 - block_distance(block, z, y, x), 0, 1), block.voids, z, y, x)
    crack, _ = sheet_fraction(block.sheets, z, y, x)
    phases = settings["ceramic"]["attenuation"]
    attenuation = solid * (phases["matrix"] + crack * (phases["crack"] - phases["matrix"]))
    attenuation *= 1 + settings["drift"] * block.drift(z, y, x)

    truth = np.where(crack > 0.5, CRACK, MATRIX).astype(np.uint8)
    truth[solid <= 0.5] = BACKGROUND
    return attenuation.astype(np.float32), truth
