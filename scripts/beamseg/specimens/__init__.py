"""What a phantom may be of: each specimen is a few formulas, drawn once from a seed and evaluated slice by slice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import ceramic, crystal, mitochondria, nanoparticles, sand


@dataclass(frozen=True)
class Specimen:
    """What `simulate` needs of a specimen; `section` of the settings holds its attenuations, dimmest first.

    `measure` makes the image of a drawn slice where it is no tomography, of grey levels in place of attenuations.
    """

    title: str
    section: str
    classes: tuple[str, ...]
    make: Callable[[dict[str, Any]], Any]
    draw: Callable[[Any, dict[str, Any], int], tuple[np.ndarray, np.ndarray]]
    measure: Callable[[np.ndarray, dict[str, Any], int], np.ndarray] | None = None

    def attenuations(self, settings: dict[str, Any]) -> dict[str, float]:
        """Phase -> 1/mm, in the order of the section, which is to be their order."""
        values = settings
        for key in self.section.split("."):
            values = values[key]
        return dict(values)


SPECIMENS = {
    "crystal": Specimen(
        "simulated crystal with intergrowth sheets", "attenuation", crystal.CLASSES, crystal.make, crystal.draw
    ),
    "sand": Specimen("simulated sand", "sand.attenuation", sand.CLASSES, sand.make, sand.draw),
    "ceramic": Specimen(
        "simulated ceramic prism with a crack", "ceramic.attenuation", ceramic.CLASSES, ceramic.make, ceramic.draw
    ),
    "mitochondria": Specimen(
        "simulated mitochondria in a block of cells",
        "mitochondria.grey",
        mitochondria.CLASSES,
        mitochondria.make,
        mitochondria.draw,
        mitochondria.measure,
    ),
    "nanoparticles": Specimen(
        "simulated catalyst, metal particles in a porous support",
        "nanoparticles.attenuation",
        nanoparticles.CLASSES,
        nanoparticles.make,
        nanoparticles.draw,
    ),
}
