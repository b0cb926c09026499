"""The contact angle of drawn caps: error, coverage of the 95 % interval, and the published algorithm beside it.

usage: python benchmarks/contact_angle.py [--repeats 40] [--radii 50 100] [--out FOLDER]

Caps of 60 to 150° and radii of 15 to 200 px lie in any direction at any fraction of a pixel; edges are drawn without
and with correlated noise; every third droplet is cut by the frame. `published` is written from the description in
section 4 of the nanowire report: edges by a 3×3 erosion and dilation, the interface where they meet, a Hough line along
it, its end points, the droplet's farthest pixel on the perpendicular, or a Hough circle where the frame cuts the
droplet. The report's own programme is said to drop angles outside 80 to 135°; here nothing is dropped.
"""

from __future__ import annotations

import argparse
import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy import ndimage
from skimage.transform import hough_circle, hough_line, hough_line_peaks
from tqdm import tqdm

from beamseg import figures
from beamseg.contact_angle import DROPLET, WIRE, measure
from beamseg.specimens.nanowire import Nanowire, draw_labels

ANGLES = (60, 75, 90, 105, 120, 135, 150)
RADII = (15, 25, 50, 100, 200)
ROUGHNESS = (0.0, 0.5, 1.0)


def draw(angle: float, radius: float, roughness: float, is_cut: bool, rng: np.random.Generator) -> np.ndarray:
    """A mask with one cap; where it is cut, a border of the frame takes up to a third of its height."""
    axis = rng.uniform(-180, 180)
    cap = Nanowire(angle, radius, (0.0, 0.0), axis)
    height = radius + cap.lift
    turn = math.radians(axis)
    up = np.array([-math.sin(turn), math.cos(turn)])
    edge = math.ceil(2.6 * radius + height)
    middle = np.array([edge / 2, edge / 2]) - up * (height / 2 - 0.3 * radius) + rng.uniform(-0.5, 0.5, 2)
    if is_cut:  # moved along the nearer axis of the frame until the border is inside the droplet
        axis_of_frame = int(np.argmax(np.abs(up)))
        apex = middle[axis_of_frame] + up[axis_of_frame] * cap.lift + np.sign(up[axis_of_frame]) * radius
        border = edge - 1 if up[axis_of_frame] > 0 else 0
        middle[axis_of_frame] += border - apex + np.sign(up[axis_of_frame]) * rng.uniform(0.1, 0.33) * height
    placed = Nanowire(angle, radius, (middle[0], middle[1]), axis)
    return draw_labels(placed, (edge, edge + 7), roughness, 2.5, rng)


def published(labels: np.ndarray) -> float:
    """The angle in degrees by the published description; NaN where a step finds nothing."""
    square = np.ones((3, 3), bool)
    edges = {}
    for kind in (WIRE, DROPLET):
        mask = labels == kind
        edges[kind] = ndimage.binary_dilation(mask, square) & ~ndimage.binary_erosion(mask, square)
    interface = np.argwhere(edges[WIRE] & edges[DROPLET])
    if len(interface) < 2:
        return math.nan
    picture = np.zeros(labels.shape, bool)
    picture[tuple(interface.T)] = True
    space, theta, rho = hough_line(picture, np.linspace(-np.pi / 2, np.pi / 2, 360, endpoint=False))
    _, (turn, *_), (offset, *_) = hough_line_peaks(space, theta, rho, num_peaks=1)
    normal = np.array([math.sin(turn), math.cos(turn)])
    tangent = np.array([normal[1], -normal[0]])
    on_line = interface[np.abs(interface @ normal - offset) < 2]
    if len(on_line) < 2:
        return math.nan
    along = on_line @ tangent
    half = (along.max() - along.min()) / 2
    middle = normal * offset + tangent * (along.max() + along.min()) / 2
    droplet = np.argwhere(labels == DROPLET)
    side = 1.0 if (droplet.mean(0) - middle) @ normal > 0 else -1.0
    touches = np.any(droplet == 0) or np.any(droplet == np.array(labels.shape) - 1)
    if touches:
        rim = edges[DROPLET] & ~edges[WIRE]
        rim[[0, -1]] = rim[:, [0, -1]] = False
        guess = np.ptp(droplet, axis=0).max() / 2
        radii = np.arange(max(3, int(0.6 * guess)), int(1.6 * guess) + 2)
        space = hough_circle(rim, radii, full_output=True)
        index, row, column = np.unravel_index(np.argmax(space), space.shape)
        centre = np.array([row, column]) - radii.max()
        height = radii[index] + side * float((centre - middle) @ normal)
    else:
        rim = np.argwhere(edges[DROPLET])
        perpendicular = rim[np.abs((rim - middle) @ tangent) < 1]
        if not len(perpendicular):
            return math.nan
        height = float((side * (perpendicular - middle) @ normal).max())
    return math.degrees(math.pi - 2 * math.atan2(half, height))


def run(repeats: int, radii: Sequence[int]) -> list[dict[str, float]]:
    """A row per drawn cap."""
    rows = []
    tasks = [(a, r, s, k) for r in radii for a in ANGLES for s in ROUGHNESS for k in range(repeats)]
    for angle, radius, roughness, k in tqdm(tasks):
        rng = np.random.default_rng([angle, radius, round(10 * roughness), k])
        labels = draw(angle, radius, roughness, k % 3 == 0, rng)
        found = measure(labels)
        row = {"angle": angle, "radius": radius, "roughness": roughness, "cut": k % 3 == 0}
        row |= {"measured": math.nan, "low": math.nan, "high": math.nan, "published": published(labels)}
        if not found.reason:
            row |= {"measured": found.angle_deg, "low": found.angle_low_deg, "high": found.angle_high_deg}
        rows.append(row)
    return rows


def summary(rows: list[dict[str, float]]) -> dict[str, float]:
    """Mean absolute errors, bias, and the share of intervals that cover the truth."""
    table = {key: np.array([row[key] for row in rows], float) for key in rows[0]}
    done = np.isfinite(table["measured"])
    error = (table["measured"] - table["angle"])[done]
    inside = (table["low"] <= table["angle"])[done] & (table["angle"] <= table["high"])[done]
    other = (table["published"] - table["angle"])[np.isfinite(table["published"])]
    return {
        "n": len(rows),
        "no angle": int((~done).sum()),
        "error": float(np.abs(error).mean()),
        "bias": float(error.mean()),
        "coverage": float(100 * inside.mean()),
        "width": float((table["high"] - table["low"])[done].mean()),
        "published error": float(np.abs(other).mean()),
        "published bias": float(other.mean()),
    }


def show(title: str, groups: dict[str, list[dict[str, float]]]) -> str:
    """A table in Markdown, a line per group."""
    lines = [
        f"| {title} | caps | no angle | error, ° | bias, ° | covered, % | interval, ° | published, ° | its bias, ° |"
    ]
    lines.append("|---" * 9 + "|")
    for name, rows in groups.items():
        if rows:
            s = summary(rows)
            lines.append(
                f"| {name} | {s['n']} | {s['no angle']} | {s['error']:.2f} | {s['bias']:+.2f} "
                f"| {s['coverage']:.1f} | {s['width']:.2f} | {s['published error']:.2f} | {s['published bias']:+.2f} |"
            )
    return "\n".join(lines)


def draw_figure(rows: list[dict[str, float]], radii: Sequence[int], path: Path) -> None:
    """Mean absolute error over the angle, a panel per radius."""
    with figures.style():
        figure = Figure(figsize=(2.6 * len(radii), 2.8))
        axes = figure.subplots(1, len(radii), sharey=True, squeeze=False)[0]
        for place, radius in zip(axes, radii, strict=True):
            of_angle = [summary([r for r in rows if r["radius"] == radius and r["angle"] == a]) for a in ANGLES]
            series = {
                "here": np.array([s["error"] for s in of_angle]),
                "published": np.array([s["published error"] for s in of_angle]),
            }
            figures.lines(place, np.array(ANGLES), series, ["#0072B2", "#D55E00"], title=f"R = {radius} px")
            place.set(yscale="log", xlabel="contact angle, °", xticks=[60, 90, 120, 150])
        axes[0].set_ylabel("mean absolute error, °")
        axes[0].legend(fontsize=7.5)
        figures.save(figure, path)


def main() -> None:
    """Print the tables; with --out write every cap and the figure too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="caps per angle, radius and roughness")
    parser.add_argument("--radii", type=int, nargs="+", default=RADII, help="pixels")
    parser.add_argument("--out", type=Path, help="folder for contact_angle.csv and contact_angle.png")
    options = parser.parse_args()
    rows = run(options.repeats, options.radii)
    print(show("radius", {f"{r} px": [x for x in rows if x["radius"] == r] for r in options.radii}), "\n")
    large = [row for row in rows if row["radius"] >= 50] or rows
    print(show("R ≥ 50 px, or all if none is", {"all": large}), "\n")
    print(show("angle", {f"{a}°": [x for x in large if x["angle"] == a] for a in ANGLES}), "\n")
    print(show("roughness", {f"{s:g} px": [x for x in large if x["roughness"] == s] for s in ROUGHNESS}), "\n")
    print(show("frame", {"whole": [x for x in large if not x["cut"]], "cut": [x for x in large if x["cut"]]}))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        with open(options.out / "contact_angle.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        draw_figure(rows, options.radii, options.out / "contact_angle.png")


if __name__ == "__main__":
    main()
