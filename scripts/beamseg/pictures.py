"""The figures of the report that show slices, each from small arrays; nothing here reads a volume."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from . import figures
from .figures import DISPUTED, FALSE, HIT, MISSED

Pixel = tuple[float, float]


def overlays(
    grey: np.ndarray,
    labels: dict[str, np.ndarray],
    colours: list[str],
    names: list[str],
    *,
    product: str,
    pixel: Pixel,
    unit: str,
    opacity: float,
) -> Figure:
    """One slice: grey levels, then every stage (and `truth`) over them, with scale bar and legend.

    `grey` (y, x) grey levels, 0 outside; `labels` title -> (y, x) uint8 ids of `colours` and `names`.
    """
    panels = len(labels) + 1
    rows = -(-panels // 4)
    columns = -(-panels // rows)
    height = 2.75 * grey.shape[0] * pixel[0] / (grey.shape[1] * pixel[1])
    figure = Figure(figsize=(2.75 * columns, rows * (min(height, 4.5) + 0.3) + 0.45))
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    picture = figures.grey_picture(grey, figures.grey_range(grey))
    figures.show(axes[0], picture, "grey levels", pixel, unit)
    for place, (title, label) in zip(axes[1:], labels.items(), strict=False):
        figures.show(place, figures.overlay(picture, label, colours, opacity), title, pixel, unit)
        if title == product:
            place.set_title(f"{title} (the product)", fontweight="bold")
    for place in axes[panels:]:
        place.axis("off")
    figures.legend(figure, names, colours)
    return figure


def disputes(
    crops: list[tuple[int, np.ndarray, dict[str, np.ndarray]]],
    colours: list[str],
    names: list[str],
    *,
    limits: tuple[float, float],
    pixel: Pixel,
    unit: str,
    opacity: float,
) -> Figure:
    """A row per crop (slice, grey, title -> labels), where the stages disagree most."""
    columns = 1 + max(len(labels) for _, _, labels in crops)
    _, first, _ = crops[0]
    height = 1.75 * first.shape[0] * pixel[0] / (first.shape[1] * pixel[1])
    figure = Figure(figsize=(1.75 * columns, len(crops) * min(height, 4) + 0.6))
    axes = figure.subplots(len(crops), columns, squeeze=False)
    for index, (row, (z, grey, labels)) in enumerate(zip(axes, crops, strict=True)):
        picture = figures.grey_picture(grey, limits)
        top = index == 0
        figures.show(row[0], picture, "grey levels" if top else "", pixel, unit)
        row[0].set_ylabel(f"slice {z}")
        for place, (title, label) in zip(row[1:], labels.items(), strict=True):
            figures.show(place, figures.overlay(picture, label, colours, opacity), title if top else "", pixel, unit)
    figures.legend(figure, names, colours)
    return figure


def pair(
    grey: np.ndarray,
    labels: np.ndarray,
    colours: list[str],
    names: list[str],
    *,
    pixel: Pixel,
    unit: str,
    opacity: float,
) -> Figure:
    """What went in and what came out: a slice (y, x) in grey levels and the product over it."""
    height = 2.6 * grey.shape[0] * pixel[0] / (grey.shape[1] * pixel[1])
    figure = Figure(figsize=(5.3, min(height, 5) + 0.55))
    left, right = figure.subplots(1, 2)
    picture = figures.grey_picture(grey, figures.grey_range(grey))
    figures.show(left, picture, "the scan", pixel, unit)
    figures.show(right, figures.overlay(picture, labels, colours, opacity), "the product", pixel, unit)
    figures.legend(figure, names, colours)
    return figure


def views(
    grey: dict[str, np.ndarray],
    labels: dict[str, dict[str, np.ndarray]],
    colours: list[str],
    names: list[str],
    *,
    product: str,
    shape: tuple[int, int, int],
    voxel: Sequence[float],
    unit: str,
    places: tuple[int, int, int],
    limits: tuple[float, float],
    opacity: float,
) -> Figure:
    """Three orthogonal planes through `places`: grey levels, then every stage over them.

    `grey` holds the planes xy, xz (z, x) and yz (z, y), `labels` title -> the same of uint8 ids. `shape` is the
    volume's, `voxel` the size of its voxels in `unit`, both (z, y, x). A thin volume is stretched along z to be seen.
    Thin lines mark the planes.
    """
    size = [n * v for n, v in zip(shape, voxel, strict=True)]
    stretch = max(1.0, 0.16 * max(size[1], size[2]) / size[0])
    depth = size[0] * stretch
    total_w, total_h = size[2] + depth, size[1] + depth
    z, y, x = places
    panels: list[tuple[str, dict[str, np.ndarray] | None]] = [("grey levels", None), *labels.items()]
    rows = -(-len(panels) // 3)
    columns = -(-len(panels) // rows)
    width = 3.6
    figure = Figure(figsize=(width * columns, rows * (width * total_h / total_w + 0.25) + 0.55))
    halves: Any = figure.subfigures(rows, columns, squeeze=False)
    at = ((z + 0.5) / shape[0] * depth, (y + 0.5) * voxel[1], (x + 0.5) * voxel[2])
    for half, (title, planes) in zip(halves.ravel(), panels, strict=False):
        grid = half.subplots(2, 2, width_ratios=(size[2], depth), height_ratios=(size[1], depth))
        grid[1, 1].axis("off")
        shown = {
            "xy": (grid[0, 0], size[1], size[2]),
            "xz": (grid[1, 0], depth, size[2]),
            "yz": (grid[0, 1], size[1], depth),
        }
        for name, (axes, tall, wide) in shown.items():
            levels, ids = grey[name], None if planes is None else planes[name]
            if name == "yz":
                levels, ids = levels.T, None if ids is None else ids.T
            picture = figures.grey_picture(levels, limits)
            if ids is not None:
                picture = figures.overlay(picture, ids, colours, opacity)
            figures.show(axes, picture, "", (tall / levels.shape[0], wide / levels.shape[1]), unit * (name != "yz"))
        for axes, down, right in (
            (grid[0, 0], at[1], at[2]),
            (grid[1, 0], at[0], at[2]),
            (grid[0, 1], at[1], at[0]),
        ):
            axes.axhline(down, color="white", linewidth=0.5, alpha=0.7)
            axes.axvline(right, color="white", linewidth=0.5, alpha=0.7)
        bold = {"fontweight": "bold"} if title == product else {}
        half.suptitle(f"{title} (the product)" if bold else title, fontsize=9.5, **bold)
    note = "" if stretch == 1 else f"; z stretched {stretch:.2g} times"
    figure.suptitle(f"xy at z = {z}, below it xz at y = {y}, beside it yz at x = {x}{note}", fontsize=9)
    figures.legend(figure, names, colours)
    return figure


def errors(
    grey: np.ndarray,
    truth: np.ndarray,
    predicted: np.ndarray,
    names: dict[int, str],
    *,
    z: int,
    limits: tuple[float, float],
    pixel: Pixel,
    unit: str,
) -> Figure:
    """Found, missed and wrongly called voxels per class on slice `z`; 255 in `truth`, `predicted` (y, x) is neither."""
    picture = (0.55 * figures.grey_picture(grey, limits)).astype(np.uint8)
    chosen = list(names)[:4]
    height = 3.5 * grey.shape[0] * pixel[0] / (grey.shape[1] * pixel[1])
    figure = Figure(figsize=(3.5 * len(chosen), min(height, 5) + (0.6 if len(chosen) > 1 else 1.1)))
    axes = figure.subplots(1, len(chosen), squeeze=False)[0]
    measured = truth != 255
    for place, value in zip(axes, chosen, strict=True):
        is_truth, is_predicted = truth == value, (predicted == value) & measured
        panel = picture.copy()
        for mask, colour in (
            (is_truth & is_predicted, HIT),
            (is_truth & ~is_predicted, MISSED),
            (~is_truth & is_predicted, FALSE),
        ):
            panel[mask] = 0.25 * panel[mask] + 0.75 * np.array(figures.rgb(colour))
        figures.show(place, panel, f"{names[value]}, slice {z}", pixel, unit)
    figures.legend(
        figure,
        ["found (true positive)", "missed (false negative)", "wrongly called (false positive)"],
        [HIT, MISSED, FALSE],
    )
    return figure


def doubt(
    grey: np.ndarray,
    different: np.ndarray,
    confidence: np.ndarray | None,
    *,
    z: int,
    limits: tuple[float, float],
    pixel: Pixel,
    unit: str,
) -> Figure:
    """Without truth: where stages disagree on slice `z` (mask), and the network's confidence (0 … 1, NaN outside)."""
    panels = 1 if confidence is None else 2
    height = 4.2 * grey.shape[0] * pixel[0] / (grey.shape[1] * pixel[1])
    figure = Figure(figsize=(4.4 * panels, min(height, 6) + 0.3))
    axes = figure.subplots(1, panels, squeeze=False)[0]
    picture = (0.7 * figures.grey_picture(grey, limits)).astype(np.uint8)
    picture[different] = 0.25 * picture[different] + 0.75 * np.array(figures.rgb(DISPUTED))
    figures.show(axes[0], picture, f"stages disagree, slice {z}", pixel, unit)
    if confidence is not None:
        extent = (0, grey.shape[1] * pixel[1], grey.shape[0] * pixel[0], 0)
        image = axes[1].imshow(confidence, cmap="cividis", vmin=0, vmax=1, extent=extent, interpolation="nearest")
        axes[1].set(xticks=[], yticks=[], title=f"confidence of the network, slice {z}")
        axes[1].spines[:].set_visible(False)
        figure.colorbar(image, ax=axes[1], shrink=0.8)
    return figure


def activation(
    grey: np.ndarray,
    maps: dict[str, np.ndarray],
    names: list[str],
    *,
    z: int,
    limits: tuple[float, float],
    pixel: Pixel,
    unit: str,
) -> Figure:
    """What each class's prediction rests on: a row per stage (title -> (classes, y, x) in 0 … 1), over grey (y, x)."""
    panels = 1 + len(names)
    height = 2.0 * grey.shape[0] * pixel[0] / (grey.shape[1] * pixel[1])
    figure = Figure(figsize=(2.0 * panels + 0.6, len(maps) * min(height, 4) + 0.4))
    axes = figure.subplots(len(maps), panels, squeeze=False)
    picture = figures.grey_picture(grey, limits)
    extent = (0, grey.shape[1] * pixel[1], grey.shape[0] * pixel[0], 0)
    for index, (row, (stage, heat)) in enumerate(zip(axes, maps.items(), strict=True)):
        top = index == 0
        figures.show(row[0], picture, f"slice {z}" if top else "", pixel, unit if top else None)
        row[0].set_ylabel(stage)
        for place, name, one in zip(row[1:], names, heat, strict=True):
            figures.show(place, picture, name if top else "", pixel)
            image = place.imshow(one, cmap="inferno", vmin=0, vmax=1, alpha=0.6, extent=extent, interpolation="nearest")
    figure.colorbar(image, ax=axes, shrink=0.6, label="share of the maximum")
    return figure


def rendered(
    shades: dict[str, tuple[np.ndarray, float]], colours: list[str], *, unit: str, fractions: list[float | None]
) -> Figure:
    """A panel per class: `shades` name -> (brightness (rows, columns), NaN where nothing is hit; size of a pixel)."""
    seen = np.any([np.isfinite(shade) for shade, _ in shades.values()], axis=0)
    window: Any = (slice(None), slice(None))
    if seen.any():
        window = tuple(slice(max(0, int(i.min()) - 4), int(i.max()) + 5) for i in np.nonzero(seen))
    columns = min(4, len(shades))
    rows = -(-len(shades) // columns)
    tall, wide = seen[window].shape
    figure = Figure(figsize=(2.75 * columns, (2.75 * min(tall / wide, 1.6) + 0.3) * rows))
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for place, (name, (shade, pixel)), tint, share in zip(axes, shades.items(), colours, fractions, strict=False):
        colour = np.maximum(np.array(figures.rgb(tint), float), 70)  # black would swallow its own shading
        picture = np.full((*shade.shape, 3), 255, np.uint8)
        hit = np.isfinite(shade)
        picture[hit] = (shade[hit, None] * colour).astype(np.uint8)
        figures.show(place, picture[window], f"{name}, {100 * (share or 0):.3g} %", (pixel, pixel), unit)
    for place in axes[len(shades) :]:
        place.axis("off")
    return figure
