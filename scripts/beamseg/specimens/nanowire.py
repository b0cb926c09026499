"""A nanowire with a droplet at its end: circle, line and strip, with edges as rough as wanted; truth is in formulas."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from ..contact_angle import DROPLET, WIRE


@dataclass(frozen=True)
class Nanowire:
    """Where it lies; lengths in pixels, (y, x) with 0 in the middle of the first pixel."""

    angle_deg: float
    """Contact angle of the droplet on the wire's end."""
    radius: float
    """Of the droplet's circle."""
    middle: tuple[float, float]
    """Of the interface."""
    axis_deg: float
    """Direction from the wire to the droplet: 0 is right, 90 is up."""

    @property
    def half_length(self) -> float:
        """Half of the interface, which is half of the wire's diameter."""
        return self.radius * math.sin(math.radians(self.angle_deg))

    @property
    def lift(self) -> float:
        """Of the circle's centre over the interface, negative below 90°."""
        return -self.radius * math.cos(math.radians(self.angle_deg))


def draw_labels(
    wire: Nanowire,
    shape: tuple[int, int],
    roughness: float = 0.0,
    grain: float = 3.0,
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """Mask of a nanowire, by the pixels' centres.

    Parameters
    ----------
    wire : Nanowire
    shape : (y, x)
    roughness : float
        Standard deviation of the edges in pixels; each edge has its own.
    grain : float
        Width of the Gaussian that the roughness is smoothed with, pixels.
    rng : Generator, optional
        Needed with roughness.

    Returns
    -------
    ndarray, uint8, (y, x)
        0 background, 1 wire, 2 droplet.
    """
    above, aside, from_circle = distances(wire, shape)
    if roughness and rng is not None:
        above, aside, from_circle = (
            d + roughness * rough_field(shape, grain, rng) for d in (above, aside, from_circle)
        )
    labels = np.zeros(shape, np.uint8)
    labels[(above <= 0) & (aside <= 0)] = WIRE
    labels[(above > 0) & (from_circle <= 0)] = DROPLET
    return labels


def distances(wire: Nanowire, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Per pixel the distance above the interface, outside the wire's sides, and outside the droplet's circle."""
    turn = math.radians(wire.axis_deg)
    y, x = np.ogrid[: shape[0], : shape[1]]
    dy, dx = y - wire.middle[0], x - wire.middle[1]
    above = dx * math.cos(turn) - dy * math.sin(turn)
    aside = dx * math.sin(turn) + dy * math.cos(turn)
    return above, np.abs(aside) - wire.half_length, np.hypot(above - wire.lift, aside) - wire.radius


def rough_field(shape: tuple[int, int], grain: float, rng: np.random.Generator) -> np.ndarray:
    """Smooth noise of unit standard deviation."""
    field = gaussian_filter(rng.normal(size=shape), grain, mode="wrap")
    # The sum of the squares of a Gaussian's weights.
    return field * (2.0 * math.sqrt(math.pi) * grain)


def draw_frame(labels: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """A bright-field picture of a mask: uneven light, fringes along the wire, a bright rim, noise, a scale bar.

    Parameters
    ----------
    labels : ndarray, uint8, (y, x)
    noise : float
        Standard deviation in ranges of grey from droplet to background.
    rng : Generator

    Returns
    -------
    ndarray, uint8, (y, x)
        The scale bar, an eighth of the width, has the value 255.
    """
    height, width = labels.shape
    grey = np.array([1.0, 0.55, 0.0])[labels]
    y, x = np.mgrid[:height, :width] / height
    grey[labels == WIRE] += 0.08 * np.sin(2 * np.pi * 28 * x[labels == WIRE])
    soft = gaussian_filter(grey, 0.7)
    soft += 0.5 * (soft - gaussian_filter(soft, 3.0))  # the rim
    light = rng.uniform(-0.15, 0.15, 2)
    soft += light[0] * (y - 0.5) + light[1] * (x - 0.5)
    grains = 0.6 * rng.normal(size=labels.shape) + 0.8 * rough_field(labels.shape, 0.8, rng)
    picture = np.clip(80 + 90 * (soft + noise * grains), 1, 250).astype(np.uint8)
    top = height - height // 16
    picture[top : top + max(3, height // 80), width // 20 : width // 20 + max(16, width // 8)] = 255
    return picture
