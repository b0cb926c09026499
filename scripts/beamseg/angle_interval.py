"""How far a contact angle may be off: a bootstrap over the points of its contours, with the error that pixels make."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .contour_fits import Circle, Contour, Line, circle_slopes, solve, weights_of

REPLICATES = 400
CONFIDENCE = 0.95


def interval(
    circle: Circle, free: Contour, line: Line, interface: Contour, rng: np.random.Generator
) -> tuple[float, float]:
    """Ends (radians) of the angle's 95 % interval: a bootstrap over the contour points.

    Each replicate is the fit to points on the fitted curves, moved by two errors. One is that of the pixels: the curves
    are shifted on the grid by a random fraction of a pixel, and what rounding to pixels does to every point follows;
    along rows, columns and diagonals it is the same for all, so it is no independent noise. The other is the noise:
    residuals drawn anew, larger by what neighbours err together. The fits are linearized.
    """
    tangent = np.array([-line.normal[1], line.normal[0]])
    along = interface.points @ tangent - float(circle.centre @ tangent)
    of_circle = circle_slopes(circle, free.points)
    of_line = np.column_stack([-np.ones(len(interface)), along])  # by offset below the centre, and turn
    correlated = correlation_length(
        [(in_order(curve, edge), slopes.shape[1]) for curve, edge, slopes in
         ((circle, free, of_circle), (line, interface, of_line))]
    )  # fmt: skip
    shifts = rng.uniform(0.0, 1.0, (REPLICATES, 2))
    on_circle = errors_of_fit(circle, of_circle, free, circle_rounding(circle, free, shifts), correlated, rng)
    on_line = errors_of_fit(line, of_line, interface, line_rounding(line, interface, shifts), correlated, rng)
    distance = circle.centre @ line.normal - line.offset
    moved = distance + on_circle[:, :2] @ line.normal - on_line[:, 0]
    radii = np.maximum(circle.radius + on_circle[:, 2], 1e-6)
    # A replicate whose line misses its circle stands for an angle of 0 or π.
    angles = np.arccos(np.clip(-moved / radii, -1.0, 1.0))
    best = math.acos(-distance / circle.radius)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(angles - best, [tail, 1 - tail])
    return max(0.0, best - float(high)), min(math.pi, best - float(low))


def errors_of_fit(
    curve: Any,
    slopes: np.ndarray,
    edge: Contour,
    rounded: np.ndarray,
    correlated: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Errors (replicates, parameters) of a fitted curve from `rounded` (replicates, n) and from redrawn residuals.

    Over parameters that change slowly along the contour, residuals correlated over `correlated` points act as
    independent ones √`correlated` times as large. Their variance is known from few independent ones, hence Student's
    factor. They count in full where they are half as large again as rounding alone makes them, and not at all where
    they are no larger.
    """
    residuals = curve.distance(edge.points)
    weights = weights_of(residuals)
    residuals = residuals * weights
    pixels = float((rounded**2).mean())
    share = np.clip((float((residuals**2).mean()) - pixels) / (0.5 * pixels + 1e-12), 0.0, 1.0)
    n, parameters = slopes.shape
    freedom = max(n / correlated - parameters, 2.0)
    scale = math.sqrt(share * correlated * (freedom + parameters) / freedom)
    student = np.sqrt(freedom / rng.chisquare(freedom, (len(rounded), 1)))
    drawn = rng.choice(residuals - residuals.mean(), rounded.shape) * scale * student
    return -(rounded + drawn) @ solve(slopes, weights).T


def in_order(curve: Any, edge: Contour) -> np.ndarray:
    """Residuals in the order of the contour."""
    residuals = curve.distance(edge.points)
    return (residuals * weights_of(residuals))[np.argsort(position(curve, edge.points))]


def position(curve: Any, points: np.ndarray) -> np.ndarray:
    """Place of points along a curve, to order them."""
    if isinstance(curve, Circle):
        moved = points - curve.centre
        middle = moved.mean(axis=0)
        angles = np.arctan2(moved[:, 0], moved[:, 1]) - math.atan2(middle[0], middle[1])
        return (angles + np.pi) % (2 * np.pi)  # cut where the contour is open
    return points @ np.array([-curve.normal[1], curve.normal[0]])


def correlation_length(contours: list[tuple[np.ndarray, int]]) -> float:
    """Points over which residuals are correlated, 1 + 2 Σ ρ up to the first zero, from several contours together.

    Parameters
    ----------
    contours : list of (residuals (n,) in order, parameters)
        A fit takes out slow waves, one per parameter, so that ρ of its residuals is too small by about
        parameters · length / n; that is put back.
    """
    lags = max(2, max(len(residuals) for residuals, _ in contours) // 3)
    sums, counts, taken = np.zeros(lags), np.zeros(lags), 0.0
    for residuals, parameters in contours:
        n = len(residuals)
        centred = (residuals - residuals.mean()) / max(float(residuals.std()), 1e-12)
        product = np.correlate(centred, centred, "full")[n - 1 :][:lags]
        sums[: len(product)] += product
        counts[: len(product)] += n - np.arange(len(product))
        taken += parameters
    correlation = sums / np.maximum(counts, 1)
    total = float(counts[0])
    length = 1.0
    for _ in range(5):
        bias = min(0.5, taken * length / total)
        restored = correlation * (1 - bias) + bias
        first_zero = int(np.argmax(restored <= max(0.0, bias))) or lags
        length = 1.0 + 2.0 * float(np.maximum(restored[1:first_zero], 0).sum())
    return max(1.0, min(length, total / 8))


def line_rounding(line: Line, edge: Contour, shifts: np.ndarray) -> np.ndarray:
    """Distances (replicates, n) from a line, shifted by `shifts` (replicates, 2), to its points rounded to pixels.

    A point half-way between two pixels along an axis stands for any crossing between them.
    """
    across = np.take(line.normal, edge.axis)
    other = np.take_along_axis(edge.points, (1 - edge.axis)[:, None], 1)[:, 0]
    beside = np.take(line.normal, 1 - edge.axis)
    safe = np.where(np.abs(across) < 1e-6, 1e-6, across)
    exact = (line.offset + (shifts @ line.normal)[:, None] - beside * other) / safe
    return rounded_off(exact) * across


def circle_rounding(circle: Circle, edge: Contour, shifts: np.ndarray) -> np.ndarray:
    """The same for a circle."""
    moved = edge.points - circle.centre
    own = np.take_along_axis(moved, edge.axis[:, None], 1)[:, 0]
    other = np.take_along_axis(moved, (1 - edge.axis)[:, None], 1)[:, 0]
    beside = other - shifts[:, 1 - edge.axis]
    root = np.sqrt(np.maximum(circle.radius**2 - beside**2, 0.0))
    exact = np.take(circle.centre, edge.axis) + np.sign(own) * root + shifts[:, edge.axis]
    outward = own / np.maximum(np.hypot(*moved.T), 1e-9)
    return np.where(root > 0, rounded_off(exact), 0.0) * outward


def rounded_off(exact: np.ndarray) -> np.ndarray:
    """What a coordinate gains when its pixel edge's middle is taken for it."""
    return np.floor(exact) + 0.5 - exact
