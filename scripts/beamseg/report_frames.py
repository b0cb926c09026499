"""The report of a movie: the angle over time, a contact sheet, an overlay movie, and which frames were not measured."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from PIL import Image, ImageDraw

from . import figures
from .contact_angle import CLASSES
from .frame_input import prepared
from .frames import Frames
from .measure_frames import masks_of
from .metrics import percent
from .page import STYLE
from .palette import rgb
from .provenance import atomic_path, read_json

COLOURS = ("#000000", "#0072B2", "#E69F00")
RAW, SMOOTH = "#0072B2", "#D55E00"
SHEET = 12
MOVIE_FRAMES = 90
MOVIE_PX = 320
MOVIE_MS = 100


def report_frames(
    *,
    frames: Frames | None,
    scan: str | Path,
    masks: str | Path,
    geometry: str | Path,
    metrics: str | Path,
    curves: str | Path,
    settings: dict[str, Any],
    out_angle: str | Path,
    out_sheet: str | Path,
    out_movie: str | Path,
    out_html: str | Path,
) -> None:
    """Draw the angle's curve, the contact sheet and the movie (GIF), and write the page that holds them.

    Parameters
    ----------
    frames : Frames or None
        None where the movie was archived away.
    scan, masks, geometry, metrics, curves : path
        What `frames`, `segment_frames`, `measure_frames`, `evaluate_frames` and `train_frames` left.
    settings : dict
        Section `frames`.
    out_angle, out_sheet, out_movie, out_html : path
        PNG, PNG, GIF and one HTML file without links to others.
    """
    about, result = read_json(scan), read_json(metrics)
    table = pd.read_csv(geometry, dtype={"frame": str})
    with figures.style():
        figures.save(angle_figure(table, settings, result), out_angle)
    shown = set(np.linspace(0, len(table) - 1, min(SHEET, len(table))).round().astype(int).tolist())
    step = -(-len(table) // MOVIE_FRAMES)
    sheet, movie = [], []
    names = [frame["name"] for frame in about["frames"]]
    for index, (name, labels) in enumerate(zip(names, masks_of(masks, names), strict=True)):
        if index in shown or index % step == 0:
            image = np.zeros(labels.shape, np.uint8) if frames is None else frames.read(name)
            picture = overlay(image, labels, table.iloc[index])
            if index in shown:
                sheet.append((name, picture))
            if index % step == 0:
                movie.append(picture)
    with figures.style():
        figures.save(sheet_figure(sheet), out_sheet, max_kb=900)
    write_gif(movie, out_movie)
    about["archived"] = frames is None
    write_page(about, result, table, pd.read_csv(curves), out_angle, out_sheet, out_movie, out_html)


def angle_figure(table: pd.DataFrame, settings: dict[str, Any], result: dict[str, Any]) -> Figure:
    """Raw angles with their interval, the smoothed curve beside them, and the human's angles."""
    timed = settings["frame_s"] is not None
    x = table["time_s" if timed else "index"].to_numpy(float)
    raw, low, high = (table[f"{name}_deg"].to_numpy(float) for name in ("angle", "angle_low", "angle_high"))
    figure = Figure(figsize=(10, 3.6))
    axes = figure.subplots()
    axes.fill_between(x, low, high, color=RAW, alpha=0.2, linewidth=0, label="95 % interval")
    axes.vlines(x, low, high, color=RAW, alpha=0.35, linewidth=1)
    axes.plot(x, raw, ".-", color=RAW, markersize=4, linewidth=0.8, label="raw, frame by frame")
    label = f"smoothed over {settings['smooth']} frames (not a measurement)"
    axes.plot(x, table["angle_smoothed_deg"], color=SMOOTH, linewidth=1.6, label=label)
    human = {entry["name"]: entry["human_deg"] for entry in result["frames"] if entry["human_deg"] is not None}
    of_human = table["frame"].isin(list(human))
    if of_human.any():
        values = table["frame"].map(human)[of_human]
        axes.plot(x[of_human], values, "o", mfc="none", color="black", markersize=5, label="on a human's mask")
    missing = ~np.isfinite(raw)
    if missing.any():
        floor = np.nanmin(low) if np.isfinite(low).any() else 0.0
        axes.plot(x[missing], np.full(missing.sum(), floor), "|", color="#b3261e", label="not measured")
    axes.set(xlabel="time, s" if timed else "frame", ylabel="contact angle, °")
    axes.grid(True)
    axes.legend(fontsize=7.5, loc="best")
    return figure


def overlay(image: np.ndarray, labels: np.ndarray, row: pd.Series) -> np.ndarray:
    """A frame with its mask's colours, the fitted circle and the interface, RGB uint8, longer side `MOVIE_PX`."""
    grey = prepared(image, MOVIE_PX)[0].numpy()
    factor = grey.shape[0] / image.shape[0]
    rows = np.clip(((np.arange(grey.shape[0]) + 0.5) / factor).astype(int), 0, labels.shape[0] - 1)
    columns = np.clip(((np.arange(grey.shape[1]) + 0.5) / factor).astype(int), 0, labels.shape[1] - 1)
    small = labels[rows[:, None], columns]
    picture = np.repeat((255 * grey)[..., None], 3, axis=2)
    for c, text in enumerate(COLOURS):
        if c:
            picture[small == c] = 0.7 * picture[small == c] + 0.3 * np.array(rgb(text))
    drawn = Image.fromarray(picture.astype(np.uint8))
    pen = ImageDraw.Draw(drawn)
    if np.isfinite(row["angle_deg"]):
        centre = ((row["centre_x"] + 0.5) * factor, (row["centre_y"] + 0.5) * factor)
        radius = row["radius_px"] * factor
        pen.ellipse([centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius], outline="white")
        ends = [((row[f"{side}_x"] + 0.5) * factor, (row[f"{side}_y"] + 0.5) * factor) for side in ("left", "right")]
        pen.line(ends, fill="white")
        text = f"{row['frame']}  {row['angle_deg']:.1f}"
    else:
        text = f"{row['frame']}  not measured"
    pen.rectangle([0, 0, 7 * len(text), 12], fill="black")
    pen.text((2, 0), text, fill="white")
    return np.asarray(drawn)


def sheet_figure(pictures: list[tuple[str, np.ndarray]]) -> Figure:
    """Frames through the movie, four in a row."""
    columns = min(4, len(pictures))
    rows = -(-len(pictures) // columns)
    height = 2.6 * max(picture.shape[0] / picture.shape[1] for _, picture in pictures)
    figure = Figure(figsize=(2.6 * columns, rows * (height + 0.2)))
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for place in axes:
        place.axis("off")
    for place, (name, picture) in zip(axes, pictures, strict=False):
        place.imshow(picture, interpolation="nearest")
        place.set_title(name, fontsize=8)
    return figure


def write_gif(pictures: list[np.ndarray], path: str | Path) -> None:
    """An animated GIF, pictures of other sizes on a canvas of the largest."""
    height, width = (max(picture.shape[axis] for picture in pictures) for axis in (0, 1))
    images = []
    for picture in pictures:
        canvas = np.zeros((height, width, 3), np.uint8)
        canvas[: picture.shape[0], : picture.shape[1]] = picture
        images.append(Image.fromarray(canvas).quantize(128, dither=Image.Dither.NONE))
    buffer = io.BytesIO()
    images[0].save(buffer, "GIF", save_all=True, append_images=images[1:], duration=MOVIE_MS, loop=0)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getvalue())


def write_page(
    about: dict[str, Any],
    result: dict[str, Any],
    table: pd.DataFrame,
    curves: pd.DataFrame,
    angle: str | Path,
    sheet: str | Path,
    movie: str | Path,
    path: str | Path,
) -> None:
    """One HTML file, images embedded."""
    name = escape(about["name"])
    items = "\n".join(
        f'<li class="{kind}"><b>{escape(label)}</b> {escape(text)}</li>'
        for kind, label, text in verdicts(about, result, table, curves)
    )
    parts = [
        f"<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'><title>{name}: contact angle</title>",
        f"<link rel='icon' href='data:,'><style>{STYLE}</style></head><body><main>",
        f"<h1>{name}</h1><ul class='verdicts'>\n{items}\n</ul>",
        _figure("Contact angle", angle, "Per frame, with the 95 % interval of the contour's noise; what a mask gets "
                "wrong along its whole edge is not in it. The smoothed curve is to guide the eye."),
        _figure("Contact sheet", sheet, "Frames through the movie: wire blue, droplet orange; the fitted circle and "
                "the interface white."),
        _figure("Overlay movie", movie, "All frames, or every n-th of a long movie.", "gif"),
        f"<h2>Scores against human masks</h2>{score_table(result)}" if result["stages"] else "",
        f"<h2>Frames with a remark</h2>{reason_table(table)}",
    ]  # fmt: skip
    meanings = " ".join(f"{key}: {text}." for key, text in sorted(result["definitions"].items()))
    parts.append(f"<footer>{escape(meanings)}</footer></main></body></html>\n")
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(parts), encoding="utf-8")


def verdicts(
    about: dict[str, Any], result: dict[str, Any], table: pd.DataFrame, curves: pd.DataFrame
) -> Iterator[tuple[str, str, str]]:
    """What a reader must know first: (kind, label, text)."""
    measured = int(table["angle_deg"].notna().sum())
    kind = "good" if measured == len(table) else "warn" if measured else "bad"
    yield kind, "frames", f"{measured} of {len(table)} measured."
    if measured:
        width = (table["angle_high_deg"] - table["angle_low_deg"]).median()
        low, high = table["angle_deg"].min(), table["angle_deg"].max()
        yield "note", "angle", f"{low:.1f} to {high:.1f}°; the median interval is {width:.2f}° wide."
    if result["stages"]:
        scored = result["stages"]["frames"]
        text = f"mean IoU {percent(scored['mean_iou'])} on {len(result['frames'])} frames that no training saw"
        if result["angle"]:
            found = result["angle"]
            text += f"; angle off by {found['rmse']:.2f}° (root mean square, {found['n']} frames)"
        yield "good", "test", f"{text}."
    else:
        yield "note", "test", "no frame was kept for it."
    best = curves["validation"].max()
    if np.isfinite(best):
        yield "note", "training", f"best epoch has a mean IoU of {percent(float(best))} on the validation frames."
    if about["archived"]:
        yield "note", "pictures", "the movie is archived away: they show masks without its grey levels."
    if about["pixel_nm"] is None:
        yield "warn", "lengths", "no pixel size is known: lengths are in pixels; set `frames.pixel_nm`."


def score_table(result: dict[str, Any]) -> str:
    """Scores of the whole and of each class."""
    scored = result["stages"]["frames"]
    rows = [["", "IoU", "Dice"], ["mean", percent(scored["mean_iou"]), percent(scored["mean_dice"])]]
    rows += [[c, percent(scored["classes"][c]["iou"]), percent(scored["classes"][c]["dice"])] for c in CLASSES]
    rows.append(["pixel accuracy", percent(scored["accuracy"]), ""])
    if result["angle"]:
        found = result["angle"]
        rows.append(["angle: mean square error, bias", f"{found['mse']:.2f} °²", f"{found['bias']:+.2f}°"])
    return _table(rows)


def reason_table(table: pd.DataFrame) -> str:
    """Frames that have a reason, with it; at most 200."""
    named = table[table["reason"].fillna("") != ""]
    rows = [["frame", "reason"], *named[["frame", "reason"]].head(200).to_numpy().tolist()]
    return _table(rows) if len(named) else "<p>None.</p>"


def _table(rows: list[list[Any]]) -> str:
    lines = []
    for index, row in enumerate(rows):
        tag = "td" if index else "th"
        lines.append("<tr>" + "".join(f"<{tag}>{escape(str(cell))}</{tag}>" for cell in row) + "</tr>")
    return f"<div class='scroll'><table>{''.join(lines)}</table></div>"


def _figure(title: str, image: str | Path, caption: str, kind: str = "png") -> str:
    data = base64.b64encode(Path(image).read_bytes()).decode()
    return (
        f"<h2>{title}</h2><figure><img alt='{title}' src='data:image/{kind};base64,{data}'>"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
