"""Edges between kinds of pixels, and the straight lines and circles that fit them, to a fraction of a pixel.

Coordinates are (y, x) with 0 in the middle of the first pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

CUT_OFF = 3.0
"""Standard deviations (from the median) beyond which the weight of a contour point falls off (Huber)."""


@dataclass(frozen=True)
class Contour:
    """Edges between two kinds of pixels: `points` (n, 2), half-way between their centres, `axis` (n,) 0 along y."""

    points: np.ndarray
    axis: np.ndarray

    def __len__(self) -> int:
        return len(self.points)

    def kept(self, which: np.ndarray) -> Contour:
        """The points where `which` is True."""
        return Contour(self.points[which], self.axis[which])


@dataclass(frozen=True)
class Line:
    """Points p with normal · p = offset; the droplet lies where the normal points."""

    normal: np.ndarray
    offset: float

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Signed distance of points (n, 2), positive on the droplet's side."""
        return points @ self.normal - self.offset


@dataclass(frozen=True)
class Circle:
    """Centre (y, x) and radius."""

    centre: np.ndarray
    radius: float

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Signed distance of points (n, 2), positive outside."""
        return np.hypot(*(points - self.centre).T) - self.radius


def contour(inside: np.ndarray, outside: np.ndarray) -> Contour:
    """Midpoints between neighbouring pixels of which one is `inside`, the other `outside`, both bool (y, x).

    Pixel centres are what decides which side a pixel is on, so these midpoints lie on either side of the true edge
    alike; edges of the frame are no contour.
    """
    points, axes = [], []
    spans = [np.flatnonzero(inside.any(axis=1 - axis)) for axis in (0, 1)]
    first = np.array([max(0, span[0] - 1) if span.size else 0 for span in spans])
    box = tuple(slice(a, span[-1] + 2 if span.size else 0) for a, span in zip(first, spans, strict=True))
    for axis in (0, 1):
        a, b = (np.moveaxis(mask[box], axis, 0) for mask in (inside, outside))
        pairs = (a[:-1] & b[1:]) | (b[:-1] & a[1:])
        found = np.argwhere(pairs) + [0.5, 0.0] + (first if axis == 0 else first[::-1])
        points.append(found if axis == 0 else found[:, ::-1])
        axes.append(np.full(len(found), axis))
    return Contour(np.concatenate(points), np.concatenate(axes))


def fit_line(edge: Contour, inside: np.ndarray) -> Line:
    """Straight line of least weighted distances; `inside` is a point (y, x) on the side its normal shows to."""
    weights = np.ones(len(edge))
    for _ in range(10):
        middle = np.average(edge.points, axis=0, weights=weights)
        moved = edge.points - middle
        normal = np.linalg.eigh((weights[:, None] * moved).T @ moved)[1][:, 0]
        weights = weights_of(moved @ normal)
    normal = normal if normal @ (inside - middle) > 0 else -normal
    return Line(normal, float(normal @ middle))


def fit_circle(edge: Contour) -> Circle:
    """Circle of least weighted distances (Gauss-Newton), from the algebraic one (Kåsa 1976)."""
    points = edge.points
    middle = points.mean(axis=0)
    moved = points - middle
    solution = np.linalg.lstsq(np.column_stack([2 * moved, np.ones(len(points))]), (moved**2).sum(1), rcond=None)[0]
    centre, radius = middle + solution[:2], math.sqrt(max(solution[2] + float(solution[:2] @ solution[:2]), 1e-12))
    for _ in range(20):
        circle = Circle(centre, radius)
        distance = circle.distance(points)
        step = solve(circle_slopes(circle, points), weights_of(distance)) @ -distance
        centre, radius = centre + step[:2], max(radius + float(step[2]), 1e-6)
        if np.abs(step).max() < 1e-9 * radius:
            break
    return Circle(centre, float(radius))


def circle_slopes(circle: Circle, points: np.ndarray) -> np.ndarray:
    """Derivatives (n, 3) of the distances by centre y, x and radius."""
    moved = points - circle.centre
    outward = moved / np.maximum(np.hypot(*moved.T), 1e-9)[:, None]
    return np.column_stack([-outward, -np.ones(len(points))])


def solve(slopes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted least squares: the matrix (parameters, n) that turns residuals into parameters."""
    weighted = slopes.T * weights
    return np.linalg.lstsq(weighted @ slopes, weighted, rcond=None)[0]


def weights_of(residuals: np.ndarray) -> np.ndarray:
    """Huber's weights: 1 for residuals within `CUT_OFF` standard deviations (by their median), falling beyond.

    Half a pixel is the least deviation, that of the pixels themselves.
    """
    spread = max(0.5, 1.4826 * float(np.median(np.abs(residuals))))
    return np.minimum(1.0, CUT_OFF * spread / np.maximum(np.abs(residuals), 1e-12))


def crossings(circle: Circle, line: Line) -> np.ndarray | None:
    """Where a line cuts a circle, (2, 2): left and right as seen along the normal; None if it does not."""
    distance = float(line.distance(circle.centre[None])[0])
    if abs(distance) >= circle.radius:
        return None
    half = math.sqrt(circle.radius**2 - distance**2)
    foot = circle.centre - distance * line.normal
    right = np.array([line.normal[1], -line.normal[0]])  # y runs down
    return np.array([foot - half * right, foot + half * right])
