"""The first page of a run's report: one HTML file, images embedded, no link to anything outside."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path
from typing import Any

from .captions import captions, first_stage
from .metrics import STAGES, percent
from .page_tables import (
    class_table,
    gain_table,
    quantity_table,
    region_table,
    round_table,
    shading_table,
    stage_table,
)
from .palette import CLASS, PLURAL, word_of
from .provenance import atomic_path
from .units import length_text
from .verdicts import answer, verdicts

STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; color: #1f2933; background: #f4f6f8;
  margin: 0; }
main { max-width: 1120px; margin: 0 auto; padding: 1.5rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; margin: 0.5rem 0 0; } h2 { font-size: 1.15rem; margin: 2.2rem 0 0.6rem; }
.answer { background: white; border-top: 6px solid #9aa5b1; border-radius: 3px; padding: 0.7rem 0.9rem;
  margin: 0.6rem 0; font-size: 1.1rem; font-weight: 600; }
.answer.bad { border-color: #b3261e; } .answer.warn { border-color: #e69f00; } .answer.good { border-color: #009e73; }
.inout { display: grid; grid-template-columns: minmax(0, 1fr) minmax(0, 1.25fr); gap: 0.8rem; margin: 0.6rem 0; }
.inout > * { background: white; border-radius: 3px; padding: 0.7rem 0.9rem; margin: 0; }
.inout h2 { margin: 0 0 0.3rem; font-size: 1rem; } .inout h2 + dl + h2 { margin-top: 0.8rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.1rem 0.8rem; margin: 0; font-size: 0.93rem; }
dt { color: #52606d; } dd { margin: 0; }
.shares { display: flex; height: 1.1rem; border: 1px solid #8a94a0; margin-top: 0.6rem; }
@media (max-width: 800px) { .inout { grid-template-columns: 1fr; } }
@media print { body { background: white; } figure, .verdicts li { break-inside: avoid; } }
ul.verdicts { list-style: none; padding: 0; margin: 0; }
.verdicts li { background: white; border-left: 6px solid #9aa5b1; margin: 0 0 0.4rem; padding: 0.5rem 0.9rem;
  border-radius: 3px; }
.verdicts li.bad { border-color: #b3261e; } .verdicts li.warn { border-color: #e69f00; }
.verdicts li.good { border-color: #009e73; }
.verdicts li { display: grid; grid-template-columns: 7.4rem 1fr; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; background: white; font-variant-numeric: tabular-nums; }
th, td { padding: 0.35rem 0.9rem; text-align: right; border-bottom: 1px solid #e3e7eb; }
td { white-space: nowrap; } th:first-child, td:first-child { text-align: left; }
tr.product td { font-weight: 600; background: #eaf3f9; }
.swatch { display: inline-block; width: 0.9em; height: 0.9em; border: 1px solid #8a94a0; margin-right: 0.5em;
  vertical-align: -0.1em; }
figure { background: white; margin: 0 0 1.2rem; padding: 0.9rem; border-radius: 3px; }
figure img { max-width: 100%; height: auto; display: block; margin: 0 auto; }
figcaption { color: #3e4c59; margin-top: 0.6rem; max-width: 62rem; }
footer { color: #52606d; font-size: 0.85rem; margin-top: 2rem; }
"""

TITLES = {
    "thumbnail": "The scan and the product",
    "stages": "Stage by stage",
    "overlays": "One slice through all stages",
    "disputes": "Where the stages disagree most",
    "views": "Three views, stage by stage",
    "trust": "Where not to trust it",
    "histogram": "Grey values and clusters",
    "shading": "Shading and defects of the scan",
    "elbow": "How many clusters",
    "curves": "Training",
    "matching": "What the clusters stand for",
    "profile": "Along z",
    "quantities": "Quantities of the classes",
    "views_3d": "The classes in three dimensions",
    "grad_cam": "What the networks look at",
}
OF_CLASSES = {
    "histogram": "Grey values",
    "elbow": "Clusters of the grey levels",
    "matching": "What the classes stand for",
}
"""Titles that are others where the network learned the classes of its user."""


def write_page(
    result: dict[str, Any],
    scan: dict[str, Any],
    plan: dict[str, Any],
    clusters: dict[str, Any],
    images: dict[str, str | Path],
    facts: dict[str, Any],
    path: str | Path,
) -> None:
    """Write the page.

    Parameters
    ----------
    result, scan, plan, clusters : dict
        Of `evaluate`, `ingest`, `plan` and `pseudo_label`.
    images : dict
        Name (of `TITLES`) -> PNG file, in the order of the page.
    facts : dict
        Slices shown: `overlays`, `trust` (a slice), `disputes` (a list); `shading.measured` as `shading`; what
        `quantities` measured as `quantities`, where it did; entries of `ledger` as `rounds`.
    path : path
        The HTML file.
    """
    name = escape(str(scan.get("name", "scan")))
    found = verdicts(result, scan, plan, facts["shading"])
    items = "\n".join(
        f'<li class="{kind}"><b>{escape(label)}</b><span>{escape(text)}</span></li>' for kind, label, text in found
    )
    kind, text = answer(found, result["has_truth"])
    texts = captions(result, plan, facts)
    heads = TITLES | (OF_CLASSES if word_of(result) == CLASS else {})
    pictures = {key: _figure(heads[key], image, texts[key]) for key, image in images.items()}
    parts = [
        f"<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'><title>{name}: segmentation</title>",
        "<meta name='viewport' content='width=device-width, initial-scale=1'>",
        # An icon of its own, so that no browser asks a server for one.
        f"<link rel='icon' href='data:,'><style>{STYLE}</style></head><body><main>",
        f"<h1>{name}</h1><p class='answer {kind}'>{escape(text)}</p>",
        f"<ul class='verdicts'>\n{items}\n</ul>",
        f"<div class='inout'><div><h2>What went in</h2>{_list(went_in(result, scan, plan, clusters))}"
        f"<h2>What came out</h2>{_list(came_out(result))}{shares_bar(result)}</div>{pictures.pop('thumbnail')}</div>",
        f"<h2>{heads['stages']}</h2>{stage_table(result)}{pictures.pop('stages')}",
        f"<h2>Classes of the product</h2>{class_table(result, scan.get('voxel_size_um'))}",
    ]
    if result["has_truth"] and len(result["stages"]) > 1:
        parts.append(f"<h2>Gain of each class over {first_stage(result)}</h2>{gain_table(result)}")
    for key, picture in pictures.items():
        parts.append(f"<h2>{heads[key]}</h2>")
        if key == "trust" and result["least_certain"]:
            parts.append(region_table(result, scan.get("voxel_size_um")))
        if key == "shading":
            parts.append(shading_table(facts["shading"]))
        if key == "curves" and facts["rounds"]:
            parts.append(round_table(facts["rounds"]))
        if key == "quantities":
            parts.append(quantity_table(facts["quantities"]))
        parts.append(picture)
    meanings = " ".join(f"{key.replace('_', ' ')}: {text}." for key, text in sorted(result["definitions"].items()))
    parts.append(f"<footer>{escape(meanings)}</footer></main></body></html>\n")
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(parts), encoding="utf-8")


def _figure(title: str, image: str | Path, caption: str) -> str:
    data = base64.b64encode(Path(image).read_bytes()).decode()
    return (
        f"<figure><img alt='{escape(title)}' src='data:image/png;base64,{data}'>"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def _list(entries: dict[str, str]) -> str:
    return "<dl>" + "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in entries.items()) + "</dl>"


def shares_bar(result: dict[str, Any]) -> str:
    """Class fractions of the product as one bar in the classes' colours."""
    fractions = result["stages"][result["product"]["stage"]]["fractions"]
    pieces = (
        f"<span title='{escape(row['name'])}' style='background:{escape(row['colour'])};"
        f"width:{100 * (fractions[row['name']] or 0):.2f}%'></span>"
        for row in result["classes"]
    )
    return f"<div class='shares'>{''.join(pieces)}</div>"


def went_in(
    result: dict[str, Any], scan: dict[str, Any], plan: dict[str, Any], clusters: dict[str, Any]
) -> dict[str, str]:
    """The input in a few lines: size, voxels, field of view, grey range, clusters or the labels' classes."""
    kind = ", ".join(str(scan[key]) for key in ("format", "dtype") if scan.get(key))
    entries = {"scan": describe_scan(result, scan)}
    if kind:
        entries["stored as"] = kind
    others = len(plan.get("scans") or {}) - 1
    shared = f", shared with {others} other scan{'s' * (others > 1)}" if others > 0 else ""
    entries["grey range"] = f"{plan['range'][0]:.6g} to {plan['range'][1]:.6g}{shared}"
    labeler, word = clusters.get("labeler"), word_of(result)
    by = "of labels given by hand" if word == CLASS else f"by {labeler}" if labeler else ""
    entries[PLURAL[word]] = f"{clusters['n_clusters']}{f', {by}' if by else ''}"
    return entries


def came_out(result: dict[str, Any]) -> dict[str, str]:
    """The product in a few lines: stage, classes, stages compared."""
    product = result["stages"][result["product"]["stage"]]
    shares = (f"{row['name']} {percent(product['fractions'][row['name']])}" for row in result["classes"])
    return {
        "product": f"labels of {STAGES[result['product']['stage']]}, of {len(result['stages'])} stages compared",
        "classes": "; ".join(shares),
    }


def describe_scan(result: dict[str, Any], scan: dict[str, Any]) -> str:
    """Shape, size and field of view in a sentence."""
    shape, voxel = scan["shape"], scan.get("voxel_size_um")
    text = f"{shape[0]} × {shape[1]} × {shape[2]} voxels (z, y, x)"
    if voxel:
        size = " × ".join(length_text(float(f"{n * v:.4g}"), "µm") for n, v in zip(shape, voxel, strict=True))
        text += f" of {' × '.join(f'{v:g}' for v in voxel)} µm, which is {size}"
    else:
        text += ", voxel size unknown"
    inside = result["voxels"]["field_of_view"] / max(1, result["voxels"]["volume"])
    return f"{text}; {100 * inside:.1f} % lie in the field of view and hold a number."
