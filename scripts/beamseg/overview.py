"""One page over all runs of a table: how each ended, whether to trust it, its classes, and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .metrics import STAGES, frame_line, percent
from .page import STYLE, shares_bar
from .palette import word_of
from .provenance import atomic_path, read_json
from .verdicts import answer, told, verdicts

OWN_STYLE = """
main { max-width: 1400px; } table { width: 100%; } td { text-align: left; vertical-align: top; white-space: normal; }
th { text-align: left; } td img { width: 240px; height: auto; display: block; } .shares { width: 12rem; margin-top: 0; }
td.bad { box-shadow: inset 6px 0 #b3261e; } td.warn { box-shadow: inset 6px 0 #e69f00; }
td.good { box-shadow: inset 6px 0 #009e73; } td.bad, td.warn, td.good { padding-left: 1.1rem; }
.names { font-size: 0.85rem; color: #52606d; }
"""
HEAD = ("sample", "state", "can it be trusted?", "product", "classes", "scan and product")


def write_overview(
    path: str | Path, rows: Sequence[dict[str, str]], beside: dict[str, dict[str, Path]], results: Path
) -> None:
    """Write the page. It links to reports and pictures in the folders beside it and to nothing else.

    Parameters
    ----------
    path : path
        `results/index.html`.
    rows : sequence of dict
        Of `results/summary.csv`: sample, stage, state, cause, remedy, log.
    beside : dict
        Sample -> paths of its `scan`, `plan`, `classes` and `compared`, which may belong to another run or group.
    results : path
        The folder that holds one per sample.
    """
    body = "\n".join(_row(row, beside.get(row["sample"], {}), results) for row in rows)
    done = sum(row["state"] == "done" for row in rows)
    head = "".join(f"<th>{name}</th>" for name in HEAD)
    with atomic_path(path) as temporary:
        temporary.write_text(
            "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'><title>all runs: segmentation</title>"
            "<meta name='viewport' content='width=device-width, initial-scale=1'><link rel='icon' href='data:,'>"
            f"<style>{STYLE}{OWN_STYLE}</style></head><body><main><h1>All runs</h1>"
            f"<p class='about'>{done} of {len(rows)} done.</p>"
            f"<div class='scroll'><table><tr>{head}</tr>\n{body}\n</table></div></main></body></html>\n",
            encoding="utf-8",
        )


def _row(row: dict[str, str], beside: dict[str, Path], results: Path) -> str:
    name = row["sample"]
    folder = results / name
    link = f"{quote(name)}/report.html"
    title = f"<a href='{link}'>{escape(name)}</a>" if (folder / "report.html").exists() else escape(name)
    state = escape(row["state"])
    if row["state"] != "done":
        told = " ".join(row[key] for key in ("stage", "cause") if row[key])
        state = f"<b>{state}</b><br>{escape(told)}<br><i>{escape(row['remedy'])}</i>"
    verdict, product, classes = "<td></td>", "", ""
    if (folder / "metrics.json").exists():
        result = read_json(folder / "metrics.json")
        if "product" not in result:
            kind, text = "note", frame_line(result)
        else:
            kind, text = answer(verdicts_beside(result, beside), result["has_truth"])
            stage = result["product"]["stage"]
            product = escape(f"{STAGES[stage]}{_measured(result['stages'][stage])}")
            classes = shares_bar(result) + _names(result)
        verdict = f"<td class='{kind}'>{escape(text)}</td>"
    picture = ""
    if (folder / "figures" / "thumbnail.png").exists():
        source = f"{quote(name)}/figures/thumbnail.png"
        picture = f"<a href='{link}'><img loading='lazy' alt='{escape(name)}' src='{source}'></a>"
    return f"<tr><td>{title}</td><td>{state}</td>{verdict}<td>{product}</td><td>{classes}</td><td>{picture}</td></tr>"


def verdicts_beside(result: dict[str, Any], beside: dict[str, Path]) -> list[tuple[str, str, str]]:
    """The verdicts of a run's report, from its metrics and the paths that `write_overview` takes."""
    found = {key: read_json(path) for key, path in beside.items() if path.exists()}
    plan = told(found.get("plan", {}), found.get("classes", {}), found.get("compared"), word_of(result))
    return verdicts(result, found.get("scan", {}), plan)


def _measured(stage: dict[str, Any]) -> str:
    if stage.get("mean_iou") is None:
        return ""
    return f"; accuracy {percent(stage['accuracy'])}, mean IoU {percent(stage['mean_iou'])}"


def _names(result: dict[str, Any]) -> str:
    fractions = result["stages"][result["product"]["stage"]]["fractions"]
    lines = (
        f"<span class='swatch' style='background:{escape(row['colour'])}'></span>{escape(row['name'])} "
        f"{percent(fractions[row['name']])}"
        for row in result["classes"]
    )
    return f"<div class='names'>{'<br>'.join(lines)}</div>"
