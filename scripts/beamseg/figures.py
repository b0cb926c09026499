"""Building blocks of pictures: overlays, scale bars, legends, and PNG files of bounded size."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import patheffects
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from PIL import Image

from .label_values import UNLABELLED
from .palette import COLOURS, colour, rgb
from .provenance import atomic_path
from .units import length_text

matplotlib.use("Agg")

INK, FAINT, HIT, MISSED, FALSE = "#1f2933", "#8a94a0", "#009E73", "#D55E00", "#0072B2"
DISPUTED = "#E69F00"
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": "#e3e7eb",
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "svg.hashsalt": "beamseg",
}
OUTSIDE = (236, 239, 242)


@contextmanager
def style() -> Iterator[None]:
    """The look of all figures."""
    with matplotlib.rc_context(STYLE):
        yield


def save(
    figure: Figure, path: str | Path, colours: Sequence[str] = COLOURS, max_kb: float = 300, dpi: int = 120
) -> None:
    """Write a PNG of at most `max_kb` kB: with 256 colours, then coarser; bytes depend on the figure alone.

    `colours` ('#rrggbb') are among the 256, so that legends keep theirs.
    """
    fixed = [value for text in (*colours[:64], "#FFFFFF", INK, HIT, MISSED, FALSE) for value in rgb(text)]
    while True:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=dpi, facecolor="white", metadata={"Software": None})
        small = io.BytesIO()
        image = Image.open(buffer).convert("RGB")
        if buffer.tell() > max_kb * 1000:
            few = image.quantize(256 - len(fixed) // 3, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
            palette = Image.new("P", (1, 1))
            palette.putpalette([*fixed, *(few.getpalette() or [])][: 3 * 256])
            image = image.quantize(palette=palette, dither=Image.Dither.NONE)
        image.save(small, format="PNG", optimize=True)
        if small.tell() <= max_kb * 1000 or dpi <= 50:
            break
        dpi = int(dpi * 0.85)
    with atomic_path(path) as temporary:
        temporary.write_bytes(small.getvalue())


def save_for_print(figure: Figure, stem: str | Path, formats: Sequence[str]) -> None:
    """Write `<stem>.pdf` and `<stem>.png` of 300 dpi, or what `formats` names; bytes depend on the figure alone."""
    without_date = {"pdf": {"CreationDate": None, "Producer": None, "Creator": None}, "png": {"Software": None}}
    for name in formats:
        with atomic_path(Path(f"{stem}.{name}")) as temporary:
            figure.savefig(temporary, format=name, dpi=300, facecolor="white", metadata=without_date[name])


def save_svg(figure: Figure, path: str | Path) -> None:
    """Write an SVG; bytes depend on the figure alone."""
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="svg", facecolor="white", metadata={"Date": None, "Creator": None})


def thin(image: np.ndarray, most: int) -> np.ndarray:
    """Every n-th row and column of (y, x), so that neither is longer than `most`."""
    step = max(1, -(-max(image.shape) // most))
    return image[::step, ::step]


def grey_range(grey: np.ndarray) -> tuple[float, float]:
    """Range in which a grey picture is shown: 0.5 to 99.5 % of the voxels inside the field of view (grey level > 0)."""
    inside = grey[grey > 0]
    if inside.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(inside, (0.5, 99.5))
    return float(low), float(max(high, low + 1))


def grey_picture(grey: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """Grey levels (y, x) as RGB uint8 (y, x, 3); outside the field of view a light tint."""
    scaled = np.clip((grey.astype(np.float32) - limits[0]) / (limits[1] - limits[0]), 0, 1)
    picture = np.repeat((scaled * 255).astype(np.uint8)[..., None], 3, axis=2)
    picture[grey == 0] = OUTSIDE
    return picture


def colour_table(colours: Sequence[str]) -> np.ndarray:
    """Class id -> RGB, (256, 3) uint8; ids without a class get the tint of the outside."""
    table = np.empty((256, 3), np.uint8)
    table[:] = OUTSIDE
    for index, text in enumerate(colours):
        table[index] = rgb(text)
    return table


def overlay(picture: np.ndarray, labels: np.ndarray, colours: Sequence[str], opacity: float) -> np.ndarray:
    """Class colours over an RGB picture; unlabelled voxels show the picture alone."""
    painted = colour_table(colours)[labels].astype(np.float32)
    mixed = opacity * painted + (1 - opacity) * picture
    mixed[labels == UNLABELLED] = picture[labels == UNLABELLED]
    return mixed.astype(np.uint8)


def nice_length(extent: float) -> float:
    """1, 2 or 5 times a power of ten, near a quarter of `extent`."""
    target = extent / 4
    power = 10.0 ** np.floor(np.log10(target))
    return float(next(f * power for f in (5, 2, 1) if f * power <= target * (1 + 1e-9)))


def show(
    axes: Any,
    picture: np.ndarray,
    title: str = "",
    pixel: tuple[float, float] = (1.0, 1.0),
    unit: str | None = None,
) -> None:
    """An RGB picture without ticks, in physical proportions, with a scale bar if `unit` is given.

    `pixel` is the height and width of a pixel of the picture in that unit.
    """
    height, width = picture.shape[0] * pixel[0], picture.shape[1] * pixel[1]
    axes.imshow(picture, extent=(0, width, height, 0), interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)
    if title:
        axes.set_title(title)
    if unit:
        length = nice_length(width)
        x, y = 0.05 * width, height - 0.05 * width
        axes.add_patch(Rectangle((x, y - 0.018 * width), length, 0.018 * width, fc="white", ec="black", lw=0.8))
        text = axes.text(x, y - 0.03 * width, length_text(length, unit), color="white", va="bottom", fontsize=8)
        text.set_path_effects([patheffects.withStroke(linewidth=2, foreground="black")])


def legend(figure: Figure, names: Sequence[str], colours: Sequence[str]) -> None:
    """Patches with names below a figure, in as many columns as its width has room for."""
    handles = [Patch(facecolor=c, edgecolor=FAINT, linewidth=0.5, label=n) for n, c in zip(names, colours, strict=True)]
    columns = int(figure.get_figwidth() / (0.55 + 0.085 * max(map(len, names))))
    rows = -(-len(names) // max(1, min(columns, 8)))
    figure.legend(handles=handles, loc="outside lower center", ncols=-(-len(names) // rows))


def bars(axes: Any, names: Sequence[str], values: Sequence[float | None], title: str, product: int) -> None:
    """Horizontal bars of fractions, in per cent, first on top; the product is dark."""
    places = np.arange(len(names))
    lengths = [100 * (value or 0) for value in values]
    colours = ["#0072B2" if i == product else "#b9cfdf" for i in places]
    axes.barh(places, lengths, color=colours, height=0.62)
    for place, value, length in zip(places, values, lengths, strict=True):
        axes.text(length + 1.5, place, "–" if value is None else f"{length:.1f} %", va="center", fontsize=8.5)
    axes.set(yticks=places, yticklabels=names, xlim=(0, 118), xticks=[0, 25, 50, 75, 100], title=title)
    axes.invert_yaxis()
    axes.tick_params(length=0)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.spines[["left", "bottom"]].set_visible(False)


def heat(
    axes: Any,
    shares: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    width: float,
    xlabel: str = "",
) -> None:
    """A heat map of shares 0 … 1 (NaN stays blank), with numbers in per cent; columns are `width` inches wide."""
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for border in range(1, len(columns)):
        axes.axvline(border - 0.5, color="white", linewidth=1.5)
    for border in range(1, len(rows)):
        axes.axhline(border - 0.5, color="white", linewidth=1.5)
    for (i, j), value in np.ndenumerate(shares):
        if np.isfinite(value):
            text = "0" if value == 0 else "<0.1" if value < 0.001 else f"{100 * value:.1f}"
            axes.text(j, i, text, ha="center", va="center", fontsize=8, color="white" if value > 0.55 else INK)
    axes.set(xticks=range(len(columns)), yticks=range(len(rows)), title=title, xlabel=xlabel)
    turn = 0.085 * max(map(len, columns), default=0) > width
    axes.set_xticklabels(columns, rotation=30 if turn else 0, ha="right" if turn else "center")
    axes.set_yticklabels(rows)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def lines(axes: Any, x: np.ndarray, series: dict[str, np.ndarray], colours: Sequence[str], **labels: Any) -> None:
    """Lines over `x`, named beside the axes; what is NaN is left out."""
    for (name, values), tint in zip(series.items(), colours, strict=True):
        kept = np.isfinite(values)
        marker = "o" if kept.sum() < 3 else None
        axes.plot(x[kept], values[kept], color="black", linewidth=2.2, alpha=0.25, solid_capstyle="round")
        axes.plot(x[kept], values[kept], color=tint, linewidth=1.5, label=name, marker=marker, markersize=4)
    axes.grid(True)
    axes.set_axisbelow(True)
    axes.set(**labels)


def contact_sheet(
    grey: np.ndarray, labels: dict[int, np.ndarray], path: str | Path, voxel_size_um: Sequence[float] | None = None
) -> None:
    """One slice under several numbers of clusters, to choose K by eye: grey levels first, then K -> labels.

    Parameters
    ----------
    grey : ndarray, uint16, (y, x)
    labels : dict
        K -> uint8 (y, x), 255 is unlabelled.
    path : path
        The PNG.
    voxel_size_um : (z, y, x), optional
        For the scale bar; in pixels without it.
    """
    picture = grey_picture(grey, grey_range(grey))
    pixel, unit = ((1.0, 1.0), "px") if voxel_size_um is None else ((voxel_size_um[1], voxel_size_um[2]), "µm")
    columns = min(4, len(labels) + 1)
    rows = -(-(len(labels) + 1) // columns)
    height = 3 * grey.shape[0] * pixel[0] / (grey.shape[1] * pixel[1])
    with style():
        figure = Figure(figsize=(3 * columns, rows * (height + 0.3)))
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        show(axes[0], picture, "grey levels", pixel, unit)
        for place, (k, image) in zip(axes[1:], labels.items(), strict=False):
            inside = image != UNLABELLED
            shares = np.bincount(image[inside], minlength=k) / max(1, inside.sum())
            show(place, overlay(picture, image, [colour(i) for i in range(k)], 0.7), f"K = {k}", pixel)
            place.set_xlabel("  ".join(f"{100 * share:.0f}" for share in shares) + " %", fontsize=7.5)
        for place in axes[len(labels) + 1 :]:
            place.axis("off")
        save(figure, path, max_kb=800)
