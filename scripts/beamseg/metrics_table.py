"""What `evaluate` found of every stage, as a table for the terminal and as CSV."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from . import metrics
from .metrics import STAGES
from .palette import CLUSTER, word_of
from .provenance import atomic_path


def write_csv(result: dict[str, Any], path: str | Path) -> None:
    """A row per stage and class; class `all` holds accuracy and the means."""
    header = ["stage", "product", "class", "accuracy", "iou", "dice", "voxels", "fraction", "confidence"]
    with atomic_path(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, header, restval="", lineterminator="\n")
        writer.writeheader()
        for name, stage in result["stages"].items():
            base = {"stage": name, "product": int(name == result["product"]["stage"])}
            means = {"accuracy": stage.get("accuracy"), "iou": stage.get("mean_iou"), "dice": stage.get("mean_dice")}
            writer.writerow(base | {"class": "all", **means, "confidence": stage.get("mean_confidence")})
            for label, fraction in stage["fractions"].items():
                trust = stage.get("confidence", {}).get(label)
                writer.writerow(base | {"class": label, "fraction": fraction, "confidence": trust})
            for label, entry in stage.get("classes", {}).items():
                writer.writerow(base | {"class": f"truth: {label}"} | {k: entry[k] for k in ("iou", "dice", "voxels")})


def stage_table(result: dict[str, Any]) -> str:
    """A plain-text table of `metrics.stage_rows`, a line per stage, for the terminal; `*` marks the product."""
    header, *rows = metrics.stage_rows(result)
    rows = [[*row] for row in rows]
    for row, name in zip(rows, metrics.stage_names(result), strict=True):
        row[0] += " *" if name == result["product"]["stage"] else ""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [_line(header, widths), "  ".join("-" * width for width in widths)]
    lines += [_line(row, widths) for row in rows]
    product = result["product"]
    lines.append(f"* the product is {STAGES[product['stage']]}: {product['reason']}")
    lost = result["lost_classes"].get(product["stage"])
    if lost:
        why = "were these clusters too many?" if word_of(result) == CLUSTER else "is enough of each labelled?"
        lines.insert(0, f"WARNING: the product has lost {', '.join(lost)}; {why}")
    return "\n".join(lines)


def _line(cells: list[str], widths: list[int]) -> str:
    first, *rest = cells
    return "  ".join([first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(rest, widths[1:], strict=True))]).rstrip()
