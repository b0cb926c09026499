"""The figures of the report that show slices, each from small arrays; nothing here reads a volume."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from . import figures
from .figures import FALSE, HIT, MISSED

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
        figures.show(place, figures.overlay(picture, label, colours, opacity), title, pixel)
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
            figures.show(place, figures.overlay(picture, label, colours, opacity), title if top else "", pixel)
    figures.legend(figure, names, colours)
    return figure


def views(
    planes: dict[str, tuple[np.ndarray, np.ndarray]],
    colours: list[str],
    names: list[str],
    *,
    size: tuple[float, float, float],
    unit: str,
    places: tuple[int, int, int],
    limits: tuple[float, float],
    opacity: float,
) -> Figure:
    """Three orthogonal planes through `places`, grey on the left, the product on the right.

    `planes` holds xy, xz and yz as (grey, labels), rows by columns as named from the back: xz is (z, x), yz is (z, y).
    `size` is the extent of the volume (z, y, x) in `unit`. A thin volume is stretched along z to be seen.
    """
    stretch = max(1.0, 0.16 * max(size[1], size[2]) / size[0])
    depth = size[0] * stretch
    total_w, total_h = size[2] + depth, size[1] + depth
    width = 5.0
    figure = Figure(figsize=(2 * width + 0.3, width * total_h / total_w + 0.9))
    z, y, x = places
    note = "" if stretch == 1 else f", z stretched {stretch:.2g} times"
    halves: Any = figure.subfigures(1, 2)
    for half, title in zip(halves, ("grey levels", "product"), strict=True):
        grid = half.subplots(2, 2, width_ratios=(size[2], depth), height_ratios=(size[1], depth))
        grid[1, 1].axis("off")
        shown = {
            "xy": (grid[0, 0], size[1], size[2]),
            "xz": (grid[1, 0], depth, size[2]),
            "yz": (grid[0, 1], size[1], depth),
        }
        for name, (axes, tall, wide) in shown.items():
            grey, labels = planes[name]
            if name == "yz":
                grey, labels = grey.T, labels.T
            picture = figures.grey_picture(grey, limits)
            if title == "product":
                picture = figures.overlay(picture, labels, colours, opacity)
            pixel = (tall / picture.shape[0], wide / picture.shape[1])
            figures.show(axes, picture, "", pixel, unit if name == "xy" else None)
        half.suptitle(f"{title}: xy at z = {z}, xz at y = {y}, yz at x = {x}{note}", fontsize=9)
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
        figures.show(place, panel, f"{names[value]}, slice {z}", pixel, unit if place is axes[0] else None)
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
    picture[different] = 0.25 * picture[different] + 0.75 * np.array(figures.rgb(MISSED))
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
