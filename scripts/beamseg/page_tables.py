"""Tables of a report's first page, as HTML; every cell is escaped."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape
from typing import Any

from .metrics import STAGES, percent, stage_names, stage_rows
from .palette import MEMBERS, word_of
from .units import length_text, volume_text

QUANTITIES = (
    ("volume.volume", "volume", 3),
    ("surface.area", "surface", 2),
    ("surface.area_per_volume", "surface per volume", -1),
    ("components.count", "components", 0),
    ("components.largest_fraction", "in the largest", None),
    ("connectivity.euler", "Euler number", 0),
    ("thickness.mean", "mean thickness", 1),
)
"""Of a class in quantities.json: section and key, heading, power of the unit of length (None: a share)."""


def _row(cells: Iterable[str], tag: str = "td", product: bool = False, first: str = "") -> str:
    """A row of texts; `first` is HTML before them. The row of the product is marked."""
    texts = "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells)
    mark = " class='product'" if product else ""
    return f"<tr{mark}>{first}{texts}</tr>"


def _table(rows: Iterable[str]) -> str:
    return f"<div class='scroll'><table>{''.join(rows)}</table></div>"


def gain_table(result: dict[str, Any]) -> str:
    """IoU and Dice of every class of the truth by stage, with the difference to the first stage in points."""
    names = stage_names(result)
    classes = [entry["name"] for entry in result["truth"] if entry["voxels"]]
    over_two = "".join(f"<th colspan='2'>{escape(name)}</th>" for name in classes)
    rows = [_row([], first=f"<th>stage</th>{over_two}"), _row(["", *["IoU", "Dice"] * len(classes)], "th")]
    base = result["stages"][names[0]]["classes"]
    for name in names:
        own = result["stages"][name]["classes"]
        cells = [STAGES[name]]
        for value, first in ((own[c][key], base[c][key]) for c in classes for key in ("iou", "dice")):
            compared = name != names[0] and value is not None and first is not None
            cells.append(percent(value) + (f" ({100 * (value - first):+.1f})" if compared else ""))
        rows.append(_row(cells, product=name == result["product"]["stage"]))
    return _table(rows)


def round_table(rounds: list[dict[str, Any]]) -> str:
    """How the network before a round and its own label the same painted pixels, all of them and the new ones."""
    head = ["round", "painted pixels", "", "accuracy before", "after", "mean IoU before", "after"]
    rows = [_row(head, "th")]
    for entry in rounds:
        for key, kind in (("all", "all"), ("new", "new, learned by no round before")):
            if measured := entry.get(key):
                before, after = measured["before"], measured["after"]
                pairs = [percent(one and one[k]) for k in ("accuracy", "mean_iou") for one in (before, after)]
                rows.append(_row([str(entry["round"]), f"{after['painted']:,}", kind, *pairs]))
    return _table(rows) if len(rows) > 1 else ""


def region_table(result: dict[str, Any], voxel: list[float] | None) -> str:
    """Where the network is least certain; `voxel` is the size in µm (z, y, x), where it is known."""
    head = ["least certain regions: slices", "rows (y)", "columns (x)", "mean confidence", "stages disagree"]
    rows = [_row(head + (["middle at z, y, x"] if voxel else []), "th")]
    for entry in result["least_certain"]:
        cells = [f"{entry[axis][0]} to {entry[axis][1] - 1}" for axis in "zyx"]
        cells += [percent(entry["confidence"]), percent(entry["disputed"])]
        if voxel:
            middle = (sum(entry[axis]) / 2 * size for axis, size in zip("zyx", voxel, strict=True))
            cells.append(", ".join(length_text(float(f"{value:.4g}"), "µm") for value in middle))
        rows.append(_row(cells))
    return _table(rows)


def stage_table(result: dict[str, Any]) -> str:
    """The stages beside each other, with truth or without."""
    header, *lines = stage_rows(result)
    names = stage_names(result)
    if result["has_truth"]:
        header = [*header, "mean IoU, best map"]
        best = [result["best_map"][name]["mean_iou"] for name in names]
        lines = [[*line, percent(own)] for line, own in zip(lines, best, strict=True)]
    rows = (_row(line, product=name == result["product"]["stage"]) for name, line in zip(names, lines, strict=True))
    return _table([_row(header, "th"), *rows])


def class_table(result: dict[str, Any], voxel: list[float] | None) -> str:
    """The classes of the product; `voxel` is the size in µm (z, y, x), where it is known."""
    product = result["stages"][result["product"]["stage"]]
    header = ["class", "id", MEMBERS[word_of(result)], "fraction"]
    header += ["volume"] if voxel else []
    header += ["confidence"] if "confidence" in product else []
    header += ["stands for", "IoU", "Dice", "voxels in truth"] if result["has_truth"] else []
    rows = [_row(header, "th")]
    for about in result["classes"]:
        name = about["name"]
        cells = [str(about["id"]), ", ".join(map(str, about["clusters"])), percent(product["fractions"][name])]
        if voxel:
            inside = result["voxels"]["field_of_view"] * math.prod(voxel)
            cells.append(volume_text((product["fractions"][name] or 0) * inside, of=inside))
        if "confidence" in product:
            cells.append(percent(product["confidence"][name]))
        if result["has_truth"]:
            target = result["matching"]["map"][name]
            own = product["classes"][target]
            cells += [target, percent(own["iou"]), percent(own["dice"]), f"{own['voxels']:,}"]
        swatch = f"<span class='swatch' style='background:{escape(about['colour'])}'></span>"
        rows.append(_row(cells, first=f"<td>{swatch}{escape(name)}</td>"))
    return _table(rows)


def quantity_table(found: dict[str, Any]) -> str:
    """A row per class of the quantities that were measured."""
    classes = [
        {f"{name}.{key}": v for name, part in row.items() if isinstance(part, dict) for key, v in part.items()}
        for row in found["classes"]
    ]
    unit = "µm" if found["unit"] == "um" else found["unit"]
    shown = [column for column in QUANTITIES if any(row.get(column[0]) is not None for row in classes)]
    powers = {3: "³", 2: "²", 1: "", -1: "⁻¹"}
    heads = [title + (f", {unit}{powers[power]}" if power in powers else "") for _, title, power in shown]
    rows = [_row(["class", *heads], "th")]
    for about, row in zip(found["classes"], classes, strict=True):
        rows.append(_row([about["name"], *(_quantity(row.get(key), power) for key, _, power in shown)]))
    return _table(rows)


def _quantity(value: float | None, power: int | None) -> str:
    """A number in a unit of that power, a count (0) or a share (None)."""
    if value is None:
        return "–"
    if power is None:
        return percent(value)
    return f"{value:,.4g}" if power else f"{value:,}"


def shading_table(measured: dict[str, Any]) -> str:
    """What was measured of shading and defects, in a row."""
    found, most = measured["defects"], measured["defects"]["clipped_slice"]
    cells = {
        "drift along z": percent(measured["drift"]["amplitude"]),
        "cupping": percent(measured["cupping"]["amplitude"]),
        "rings": percent(measured["rings"]["amplitude"]),
        "no number": f"{found['not_finite']:,} voxels",
        "slices of one value": _spans(found["constant_slices"]),
        "empty slices": _spans(found["empty_slices"]),
        "most clipped below": f"{percent(most['low'])} of slice {most['z_low']}",
        "most clipped above": f"{percent(most['high'])} of slice {most['z_high']}",
    }
    return _table([_row(cells, "th"), _row(cells.values())])


def _spans(spans: list[list[int]]) -> str:
    listed = ", ".join(f"{a}" if a == b else f"{a} to {b}" for a, b in spans[:5])
    return (listed + (" …" if len(spans) > 5 else "")) or "none"
