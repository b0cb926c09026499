"""The contact angle of a droplet on a wire, from a mask, to a fraction of a pixel and with an error bar.

The droplet's free edge is fitted by a circle, the interface by a straight line. Their crossings are the three-phase
points; with half their distance a and the height h of the cap over the line, φ = π − 2 arctan(a/h) (nanowire report,
section 4), from 0 to 180°. Coordinates are (y, x) with 0 in the middle of the first pixel.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from scipy import ndimage

from .angle_interval import interval
from .contour_fits import Contour, Line, contour, crossings, fit_circle, fit_line, solve, weights_of

BACKGROUND, WIRE, DROPLET = range(3)
CLASSES = ("background", "wire", "droplet")

SMALLEST_PX = 30
"""Pixels below which a component is a speck, and not a wire or a droplet."""
SECOND_SHARE = 0.1
"""Share of the largest droplet from which on another one is a second droplet."""
MARGIN_PX = 2.0
"""Contour points nearer to a three-phase point are left out: labels round off the corner."""
FEWEST_POINTS = 6
LEAST_ARC_DEG = 40.0
"""Of the circle; a circle through less of it may be any circle."""
LARGEST_RMS = 0.08
"""Of the circle's radius; a free edge farther from its circle is no cap."""
LARGEST_TILT_DEG = 30.0
"""Of the wire's axis from the interface's normal; beyond it the sides are not those of one wire."""
LARGEST_FLARE_DEG = 10.0
"""Between the wire's sides; beyond it they are not parallel, and the wire has no one diameter."""


@dataclass(frozen=True)
class Cap:
    """What was measured on one mask; lengths in pixels, None where it was not measured.

    `reason` says why; it is empty where everything was measured.
    """

    angle_deg: float | None = None
    angle_low_deg: float | None = None
    angle_high_deg: float | None = None
    """Ends of the 95 % interval."""
    half_length: float | None = None
    height: float | None = None
    radius: float | None = None
    centre_y: float | None = None
    centre_x: float | None = None
    left_y: float | None = None
    left_x: float | None = None
    right_y: float | None = None
    right_x: float | None = None
    """The three-phase points; seen from the wire, the droplet above, left and right."""
    area: float | None = None
    """Of the cap in the plane of the frame, pixels²; also of what the frame cuts off."""
    volume: float | None = None
    """Of the cap turned about its axis, pixels³."""
    rms: float | None = None
    """Distance of the free edge from the circle, root of the mean square."""
    interface_rms: float | None = None
    """Of the interface from its line: a bent or pointed one biases the angle, which its interval does not know."""
    arc_deg: float | None = None
    """Of the circle, how much the frame shows."""
    wire_diameter: float | None = None
    wire_axis_deg: float | None = None
    """Direction of the wire towards the droplet: 0 is right, 90 is up, −180 … 180."""
    tilt_deg: float | None = None
    """Of the wire's axis from the interface's normal."""
    reason: str = ""


LENGTHS = {
    **{"half_length": 1, "height": 1, "radius": 1, "area": 2, "volume": 3},
    **{"rms": 1, "interface_rms": 1, "wire_diameter": 1},
}
"""What `in_nm` scales, and by which power of the pixel size."""


def measure(labels: np.ndarray, seed: int = 0) -> Cap:
    """Measure the droplet of one mask.

    Parameters
    ----------
    labels : ndarray, uint8, (y, x)
        0 background, 1 wire, 2 droplet; any shape, the wire in any direction.
    seed : int
        Of the bootstrap.

    Returns
    -------
    Cap
        With the reason in words where there is no angle: no wire, no droplet, two droplets, droplet detached, …
    """
    droplet, wire, reason = parts(labels)
    if reason:
        return Cap(reason=reason)
    free = contour(droplet, ~(droplet | wire))
    interface = contour(droplet, wire)
    if len(interface) < FEWEST_POINTS:
        return Cap(reason="the droplet does not touch the wire")
    if len(free) < FEWEST_POINTS:
        return Cap(reason="the droplet's edge is not in the frame")
    inside = np.argwhere(droplet).mean(axis=0)
    circle, line = fit_circle(free), fit_line(interface, inside)
    for _ in range(3):  # which points lie at the corners depends on the fits, and they on the points
        if (ends := crossings(circle, line)) is None:
            return Cap(reason="the interface misses the droplet's circle")
        near_free = free.kept(away(free.points, ends) & (line.distance(free.points) > 0))
        near_interface = interface.kept(away(interface.points, ends))
        if min(len(near_free), len(near_interface)) < FEWEST_POINTS:
            return Cap(reason="the droplet or its interface is too small")
        circle, line = fit_circle(near_free), fit_line(near_interface, inside)
    if (ends := crossings(circle, line)) is None:
        return Cap(reason="the interface misses the droplet's circle")
    arc = arc_degrees(near_free.points - circle.centre)
    rms = float(np.sqrt(np.mean(circle.distance(near_free.points) ** 2)))
    if arc < LEAST_ARC_DEG:
        return Cap(reason=f"only {arc:.0f}° of the droplet's circle are in the frame", arc_deg=arc)
    if rms > LARGEST_RMS * circle.radius:
        share = 100 * rms / circle.radius
        return Cap(reason=f"the droplet's edge is no circle: {share:.0f} % of the radius off", rms=rms, arc_deg=arc)
    height = circle.radius + float(line.distance(circle.centre[None])[0])
    half = float(np.hypot(*(ends[1] - ends[0]))) / 2
    angle = contact_angle(half, height)
    low, high = interval(circle, near_free, line, near_interface, np.random.default_rng(seed))
    diameter, axis, tilt, reason = wire_of(contour(wire, ~(droplet | wire)), line, ends)
    area, volume = cap_area(circle.radius, angle), cap_volume(circle.radius, height)
    (left_y, left_x), (right_y, right_x) = ends.tolist()
    return Cap(
        angle_deg=math.degrees(angle),
        angle_low_deg=math.degrees(low),
        angle_high_deg=math.degrees(high),
        half_length=half,
        height=height,
        radius=circle.radius,
        centre_y=float(circle.centre[0]),
        centre_x=float(circle.centre[1]),
        left_y=left_y,
        left_x=left_x,
        right_y=right_y,
        right_x=right_x,
        area=area,
        volume=volume,
        rms=rms,
        interface_rms=float(np.sqrt(np.mean(line.distance(near_interface.points) ** 2))),
        arc_deg=arc,
        wire_diameter=diameter,
        wire_axis_deg=axis,
        tilt_deg=tilt,
        reason=reason,
    )


def in_nm(cap: Cap, pixel_nm: float | None) -> dict[str, Any]:
    """Fields of a cap as a row of the table: positions in pixels, lengths as `…_nm` (empty without a pixel size)."""
    row: dict[str, Any] = {}
    for field in fields(cap):
        name, value = field.name, getattr(cap, field.name)
        if name in LENGTHS:
            power = LENGTHS[name]
            exponent = str(power) if power > 1 else ""
            row[f"{name}_px{exponent}"] = value
            row[f"{name}_nm{exponent}"] = None if value is None or pixel_nm is None else value * pixel_nm**power
        else:
            row[name] = value
    return row


def parts(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, str]:
    """Droplet and wire as bool (y, x) without specks and holes, and why they cannot be measured ('' if they can)."""
    droplets, sizes = components(labels == DROPLET)
    wires, wire_sizes = components(labels == WIRE)
    nothing = np.zeros(labels.shape, bool)
    missing = [name for name, found in (("wire", wire_sizes), ("droplet", sizes)) if not found.size]
    if missing:
        return nothing, nothing, f"no {' and no '.join(missing)}"
    if (n := int((sizes >= SECOND_SHARE * sizes.max()).sum())) > 1:
        return nothing, nothing, "two droplets" if n == 2 else f"{n} droplets"
    droplet = filled(droplets, 1 + int(sizes.argmax()))
    # Of several wires the one that has the droplet, the largest if none touches it.
    contact = np.bincount(wires[ndimage.binary_dilation(droplet)], minlength=1 + len(wire_sizes))[1:]
    chosen = contact if contact.any() else wire_sizes
    wire = filled(wires, 1 + int(chosen.argmax())) & ~droplet
    return droplet, wire, ""


def filled(numbered: np.ndarray, index: int) -> np.ndarray:
    """One component of numbered ones as a mask, its holes filled."""
    box = ndimage.find_objects(numbered, index)[index - 1]
    mask = np.zeros(numbered.shape, bool)
    mask[box] = ndimage.binary_fill_holes(numbered[box] == index)
    return mask


def components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Components of a mask numbered from 1, and their sizes; specks are background."""
    numbered, n = ndimage.label(mask)
    sizes = np.bincount(numbered.ravel(), minlength=n + 1)
    large = np.flatnonzero(sizes[1:] >= SMALLEST_PX) + 1
    table = np.zeros(n + 1, int)
    table[large] = np.arange(1, len(large) + 1)
    return table[numbered], sizes[large]


def contact_angle(half_length: Any, height: Any) -> Any:
    """φ = π − 2 arctan(a/h), radians (nanowire report, section 4); 0 … π."""
    return np.pi - 2 * np.arctan2(half_length, height)


def cap_area(radius: float, angle: float) -> float:
    """Area of a circle's segment with the contact angle `angle` (radians)."""
    return radius**2 * (angle - math.sin(angle) * math.cos(angle))


def cap_volume(radius: float, height: float) -> float:
    """Volume of a sphere's cap, π h² (3R − h)/3."""
    return math.pi * height**2 * (3 * radius - height) / 3


def away(points: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Whether points lie outside the margins of both three-phase points, bool (n,)."""
    return np.all(np.hypot(*(points[:, None] - ends).transpose(2, 0, 1)) >= MARGIN_PX, axis=1)


def arc_degrees(moved: np.ndarray) -> float:
    """How much of the circle about 0 the points (n, 2) show, in bins of 5°."""
    angles = np.arctan2(moved[:, 0], moved[:, 1])
    return 5.0 * len(np.unique(np.floor(angles / np.radians(5)).astype(int)))


Wire = tuple[float | None, float | None, float | None, str]


def wire_of(edge: Contour, line: Line, ends: np.ndarray) -> Wire:
    """Diameter, direction (degrees) and tilt (degrees) of the wire below the interface, or None and the reason.

    Two parallel lines are fitted to the wire's sides, over a length of twice the interface; which point is of which
    side follows from the axis that they have.
    """
    middle = ends.mean(axis=0)
    width = float(np.hypot(*(ends[1] - ends[0])))
    across = (ends[1] - ends[0]) / width
    depth = -line.distance(edge.points)
    near = edge.kept((depth > 2 * MARGIN_PX) & (depth < 2 * width)).points
    weights = np.ones(len(near))
    right = (near - middle) @ across > 0
    for _ in range(10):
        if min(right.sum(), (~right).sum()) < FEWEST_POINTS:
            return None, None, None, "no diameter: a side of the wire is not in the frame"
        centres = [np.average(near[side], axis=0, weights=weights[side]) for side in (~right, right)]
        moved = near - np.where(right[:, None], centres[1], centres[0])
        normal = np.linalg.eigh((weights[:, None] * moved).T @ moved)[1][:, 0]
        normal = normal if normal @ across > 0 else -normal
        weights = weights_of(moved @ normal)
        right = (near - (centres[0] + centres[1]) / 2) @ normal > 0
    diameter = float((centres[1] - centres[0]) @ normal)
    axis = np.array([-normal[1], normal[0]])
    axis = axis if axis @ line.normal > 0 else -axis
    tilt = math.degrees(math.acos(min(1.0, float(axis @ line.normal))))
    flare = apart([near[side] for side in (~right, right)])
    if flare > LARGEST_FLARE_DEG:
        return None, None, None, f"no diameter: the wire's sides are {flare:.0f}° from parallel"
    if diameter <= 0 or tilt > LARGEST_TILT_DEG:
        return None, None, None, f"no diameter: the wire leans by {tilt:.0f}° from the interface's normal"
    return diameter, math.degrees(math.atan2(-axis[0], axis[1])), tilt, ""


def apart(sides: list[np.ndarray]) -> float:
    """Degrees between the straight lines through two sets of points, 0 … 90."""
    directions = []
    for points in sides:
        moved = points - points.mean(axis=0)
        directions.append(np.linalg.eigh(moved.T @ moved)[1][:, 1])
    return math.degrees(math.acos(min(1.0, abs(float(directions[0] @ directions[1])))))


def smoothed(values: np.ndarray, widths: np.ndarray, window: int) -> np.ndarray:
    """A curve smoothed by a straight line through each window; NaN where fewer than three frames were measured.

    Parameters
    ----------
    values, widths : ndarray, float, (frames,)
        Angles and the widths of their intervals, NaN where there are none. Frames weigh 1/(width² + median width²).
    window : int
        Frames, the middle one included.
    """
    found = np.full(len(values), np.nan)
    known = np.flatnonzero(np.isfinite(values))
    if not known.size:
        return found
    weights = 1 / (widths**2 + max(float(np.median(widths[known])), 1e-3) ** 2)
    for middle in range(len(values)):
        near = known[np.abs(known - middle) <= window // 2]
        if len(near) > 2:
            slopes = np.column_stack([np.ones(len(near)), near - middle])
            found[middle] = (solve(slopes, weights[near]) @ values[near])[0]
    return found
