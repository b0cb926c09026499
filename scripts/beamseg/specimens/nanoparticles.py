"""A porous support with metal particles, as electron tomography sees a catalyst; lengths in voxels from the centre."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from beamseg.errors import InputError

from .shapes import Waves, draw_waves, slice_grid

CLASSES = ("background", "support", "particle")
BACKGROUND, SUPPORT, PARTICLE = range(3)


@dataclass(frozen=True)
class Catalyst:
    """A grain with pores where the field `pores` is above `open_from`, and particles as spheres."""

    radii: np.ndarray  # (3,) half-axes of the grain, z, y, x
    roughness: Waves
    pores: Waves
    open_from: float
    particles: np.ndarray  # (n, 4): centre z, y, x and radius


def make(settings: dict[str, Any]) -> Catalyst:
    """Draw the catalyst; it depends on `size`, `seed` and `nanoparticles` but its attenuations alone."""
    depth, width = settings["size"][0], settings["size"][1]
    own = settings["nanoparticles"]
    radius = width / 2
    rng = np.random.default_rng([settings["seed"], 0])
    # Longer than the field along z, so that every slice shows the grain.
    radii = np.array([max(depth, radius), 0.8 * radius, 0.7 * radius])
    roughness = draw_waves(rng, 8, 0.4 * radius, 1.2 * radius, 0.05)
    pores = draw_waves(rng, 24, own["pore_voxels"], 3 * own["pore_voxels"], 1.0)
    wanted = own["particle_share"] * depth * width**2
    mean_radius = own["particle_voxels"] / 2
    volume = 0.0
    spheres: list[np.ndarray] = []
    for _ in range(20_000):
        if volume >= wanted:
            break
        size = mean_radius * rng.uniform(0.7, 1.3)
        z = rng.uniform(-depth / 2, depth / 2)
        angle, far = rng.uniform(0, 2 * np.pi), np.sqrt(rng.uniform())
        y, x = 0.9 * radii[1:] * far * [np.sin(angle), np.cos(angle)]
        centre = np.array([z, y, x])
        # Particles sit on the walls of pores and do not touch.
        if abs(float(pores(*centre)) - own["open_from"]) > 0.3:
            continue
        if any(np.linalg.norm(centre - s[:3]) < size + s[3] + 2 for s in spheres):
            continue
        spheres.append(np.array([*centre, size]))
        volume += 4 / 3 * np.pi * size**3
    if volume < wanted:
        raise InputError(
            "phantom.nanoparticles.particle_share",
            f"{own['particle_share']}, of which {volume / (depth * width**2):.2g} found room",
            "particles that do not touch",
            "lower it",
        )
    return Catalyst(radii, roughness, pores, own["open_from"], np.array(spheres).reshape(-1, 4))


def draw(catalyst: Catalyst, settings: dict[str, Any], index: int) -> tuple[np.ndarray, np.ndarray]:
    """Attenuation in 1/mm and index into `CLASSES` of a slice; see `simulate.draw_slice`."""
    z, y, x = slice_grid(settings["size"], index)
    rz, ry, rx = catalyst.radii
    radial = np.sqrt((z / rz) ** 2 + (y / ry) ** 2 + (x / rx) ** 2) + catalyst.roughness(z, y, x)
    solid = np.clip(0.5 + (1 - radial) * min(ry, rx), 0, 1)
    # The field changes by about its own size over a sixth of its shortest wave.
    edge = settings["nanoparticles"]["pore_voxels"] / 6
    solid *= np.clip(0.5 + (catalyst.open_from - catalyst.pores(z, y, x)) * edge, 0, 1)
    metal = np.zeros_like(solid)
    for cz, cy, cx, size in catalyst.particles:
        if abs(float(z) - cz) > size + 1:
            continue
        rows = np.flatnonzero(np.abs(y[:, 0] - cy) < size + 1)
        columns = np.flatnonzero(np.abs(x[0] - cx) < size + 1)
        if not len(rows) or not len(columns):
            continue
        window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        distance = np.sqrt((z - cz) ** 2 + (y[rows] - cy) ** 2 + (x[:, columns] - cx) ** 2)
        metal[window] = np.maximum(metal[window], np.clip(0.5 + size - distance, 0, 1))
    phases = settings["nanoparticles"]["attenuation"]
    attenuation = (1 - metal) * solid * phases["support"] + metal * phases["particle"]
    truth = np.where(solid > 0.5, SUPPORT, BACKGROUND).astype(np.uint8)
    truth[metal > 0.5] = PARTICLE
    return attenuation.astype(np.float32), truth
