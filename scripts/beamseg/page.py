"""The first page of a run's report: one HTML file, images embedded, no link to anything outside."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path
from typing import Any

from .metrics import STAGES, percent, relative_gain, stage_names
from .page_tables import (
    class_table,
    gain_table,
    quantity_table,
    region_table,
    round_table,
    shading_table,
    stage_table,
)
from .palette import CLASS, CLUSTER, PLURAL, member_names, word_of
from .provenance import atomic_path
from .units import length_text

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
        parts.append(f"<h2>Gain of each class over {_first_stage(result)}</h2>{gain_table(result)}")
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


def _first_stage(result: dict[str, Any]) -> str:
    """The first stage, in a sentence."""
    first = stage_names(result)[0]
    return f"the {STAGES[first]}" if first == "pseudo_labels" else STAGES[first]


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


def told(
    plan: dict[str, Any], clusters: dict[str, Any], compared: dict[str, Any] | None, word: str = CLUSTER
) -> dict[str, Any]:
    """A plan as `verdicts` reads it: with the warnings of the clusters, and what `compare` found of a bundle's scan.

    Where the network learned classes of its user (`word`), clusters that hold too little are nobody's loss.
    """
    warnings = [*plan.get("warnings", []), *(clusters.get("warnings", []) if word == CLUSTER else [])]
    return {**plan, "warnings": warnings, "compared": compared}


def answer(found: list[tuple[str, str, str]], has_truth: bool) -> tuple[str, str]:
    """(bad, warn or good; sentence): whether the product can be trusted, from the verdicts."""
    bad, warn = ([label for kind, label, _ in found if kind == wanted] for wanted in ("bad", "warn"))
    if bad:
        return "bad", f"Do not use this as it is: see {', '.join(dict.fromkeys(bad))}."
    if warn:
        return "warn", f"Look first at what is said of {', '.join(dict.fromkeys(warn))}, then at the pictures."
    proof = "" if has_truth else " No truth was given, so that nothing here proves it right: look at the pictures."
    return "good", f"No check speaks against it.{proof}"


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


def verdicts(
    result: dict[str, Any], scan: dict[str, Any], plan: dict[str, Any], shading: dict[str, Any] | None = None
) -> list[tuple[str, str, str]]:
    """What a reader must know first: (bad, warn, good or note; label; text), the failed watch on top.

    `shading` is what `shading.measured` found of the scan.
    """
    found: list[tuple[str, str, str]] = []
    product = result["product"]
    verdict = result.get("verdict") or {}
    if verdict:
        kept = verdict.get("use") == "stage3"
        reason = str(verdict.get("reason") or "").rstrip(". ")
        text = "stage 3 passed the watch against collapse" if kept else "stage 2 takes the place of stage 3"
        refused = "note" if verdict.get("harmless") else "bad"
        found.append(("good" if kept else refused, "watch", f"{text}{': ' + reason if reason else ''}."))
    kind = "warn" if product.get("fallback") else "note"
    found.append((kind, "product", f"{STAGES[product['stage']]}: {product['reason']}."))
    names = stage_names(result)
    first, last = result["stages"][names[0]], result["stages"][product["stage"]]
    if result["has_truth"]:
        better = (last["mean_iou"] or 0) >= (first["mean_iou"] or 0)
        text = (
            f"accuracy {percent(first['accuracy'])} to {percent(last['accuracy'])} "
            f"({relative_gain(last['accuracy'], first['accuracy'])} relative), "
            f"mean IoU {percent(first['mean_iou'])} to {percent(last['mean_iou'])} "
            f"({relative_gain(last['mean_iou'], first['mean_iou'])}), {STAGES[names[0]]} to the product"
        )
        found.append(("good" if better else "bad", "truth", f"{text}."))
        best = max(names, key=lambda name: result["stages"][name]["mean_iou"] or 0)
        if (result["stages"][best]["mean_iou"] or 0) > (last["mean_iou"] or 0) + 0.005:
            found.append(("warn", "truth", f"{STAGES[best]} is nearer to the truth than the product (by mean IoU)."))
    else:
        found.append(("note", "truth", "none was given: the numbers below compare stages with each other only."))
    lost = result["lost_classes"].get(product["stage"])
    if lost:
        why = "clusters too many" if word_of(result) == CLUSTER else "too few labels"
        text = f"the product has lost {', '.join(lost)}: {why}, or a network trained too little."
        found.insert(0, ("bad", "classes", text))
    if last.get("mean_confidence") is not None:
        sure = {name: value for name, value in last["confidence"].items() if value is not None}
        least = min(sure, key=lambda name: sure[name])
        found.append(
            (
                "note",
                "confidence",
                f"mean {percent(last['mean_confidence'])} over the product, lowest for {least} "
                f"({percent(sure[least])}); it is the network's own and not calibrated.",
            )
        )
    for stage, change in (result.get("refinement") or {}).items():
        found.append(("note", STAGES.get(stage, stage), _changed(change, result)))
        found += [("warn", STAGES.get(stage, stage), f"{text}.") for text in change.get("warnings", [])]
    found += [("warn", "truth", f"{text}.") for text in result.get("warnings", [])]
    found += [("warn", "scan", str(text)) for text in scan.get("warnings", [])]
    found += [("warn", "plan", str(text)) for text in plan.get("warnings", [])]
    if clipped := plan.get("clipped"):
        text = f"{percent(clipped['low'])} of the values below the grey range and {percent(clipped['high'])} above it."
        found.append(("note", "clipping", text))
    if shading:
        text = ", ".join(f"{key} {percent(shading[key]['amplitude'])}" for key in ("drift", "cupping", "rings"))
        found.append(("note", "drift", f"of the grey range: {text}."))
    found += _compared(plan.get("compared"))
    order = {"bad": 0, "warn": 1, "good": 2, "note": 3}
    head, rest = (
        [f for f in found if f[1] in ("watch", "product")],
        [f for f in found if f[1] not in ("watch", "product")],
    )
    return head + sorted(rest, key=lambda item: order[item[0]])


def _changed(change: dict[str, Any], result: dict[str, Any]) -> str:
    """What a refinement took from each class and added to it, in a sentence."""
    text = f"changed {percent(change.get('changed'))} of the labels it was given"
    names = member_names(result["classes"], word_of(result))
    moved = [
        f"{names[entry['id']]} −{percent(entry['lost'])} +{percent(entry['gained'])}"
        for entry in change.get("classes", [])
        if entry["id"] in names and max(entry["lost"], entry["gained"]) >= 0.001
    ]
    return f"{text}; of the voxels of {', '.join(moved)}." if moved else f"{text}."


def _compared(compared: dict[str, Any] | None) -> list[tuple[str, str, str]]:
    """Verdicts on a bundle that was applied: where its network comes from, and whether the scan is like its own."""
    if compared is None:
        return []
    about = compared["bundle"]
    text = (
        f"the network is {STAGES[about['stage']]} of a bundle trained on {', '.join(map(str, about['scans']))}; the "
        f"grey levels here lie {100 * compared['distance']:.2f} % of the range from its own."
    )
    found = [("bad", "drift", f"{warning}.") for warning in compared["warnings"]]
    return [*found, ("note", "bundle", text)]


def captions(result: dict[str, Any], plan: dict[str, Any], facts: dict[str, Any]) -> dict[str, str]:
    """What each figure shows, in plain words and numbers."""
    truth, word = result["has_truth"], word_of(result)
    stand_for = "clusters that stand for its classes" if word == CLUSTER else "classes that stand for its values"
    product = STAGES[result["product"]["stage"]]
    low, high = plan["range"]
    clipped = plan.get("clipped") or {}
    disputed = [value for value in result["profile"]["disputed"] if value is not None]
    mean_disputed = percent(sum(disputed) / len(disputed)) if disputed else "–"
    left_out = result["excluded"]
    shown = facts.get("disputes", [])
    texts = {
        "stages": "Share of each class and, on the right, the share of voxels to which two stages give the same class.",
        "overlays": f"Slice {facts.get('overlays')}, classes over grey levels. "
        + (f"The truth has the colours of the {stand_for}. " if truth else "")
        + "The same colour is the same class in every picture.",
        "disputes": f"Slice{'s' if len(shown) != 1 else ''} {', '.join(map(str, shown))}: the windows in which most "
        f"voxels change class between stages. Over the volume, {mean_disputed} do not keep theirs.",
        "thumbnail": f"Slice {facts.get('thumbnail')}, grey levels and {product}.",
        "views": "Planes through the place where the stages disagree most (thin lines), grey levels and every stage. "
        "Steps along z that the grey levels do not have are errors of a slice-wise network.",
        "trust": f"Slice {facts.get('trust')}. Orange marks voxels on which not all stages agree. Where the network's "
        "confidence is beside it, 1 is sure; it is the network's own and not calibrated.",
        "histogram": f"Values of the scan. Those between {low:.6g} and {high:.6g} became the grey levels; "
        f"{percent(clipped.get('low'))} below and {percent(clipped.get('high'))} above were clipped. "
        + ("Dashed lines are the cuts between clusters, where grey levels decide. " if word == CLUSTER else "")
        + "The vertical axis is logarithmic above its first part.",
        "shading": "Of the values inside the field of view: how their level wanders along z and from the middle to the "
        "rim, rings about the middle (the median over all angles, less its running median), and what each slice has "
        "beyond the grey range or without a number. What the sample itself does along z or the radius is in it.",
        "elbow": "For K clusters of the group's grey levels, the least variance that can remain within them, and the "
        "distance of the closest two in standard deviations. Above √12 (grey line) a valley parts them, below "
        "it a cut goes through a peak. "
        + (
            "Dashed is the number taken; rather too large than too small."
            if word == CLUSTER
            else "The classes are those of the labels; dashed is their number."
        ),
        "curves": "Loss of stages 2 and 3, class rates among the predictions and what the watch against collapse "
        "saw. A class whose rate falls to zero has been lost.",
        "matching": f"Where the voxels of each class of {_first_stage(result)} went in {product}, in per cent of a "
        "row. A row far from 100 in its own column is a class that the networks or the refinement moved elsewhere.",
        "profile": "Left, the share of each class per slice: a step is a change in the sample or in the scan. Right, "
        "the share of voxels on which not all stages agree: high ends mean that the outer slices deserve less trust.",
    }
    if truth:
        n = sum(entry["voxels"] for entry in result["truth"])
        kinds = {"trained_on": "with training labels", "held_out": "of the slices held out"}
        listed = [f"{left_out[key]:,} {kind}" for key, kind in kinds.items() if left_out.get(key)]
        out = f"voxels left out: {', '.join(listed)}" if listed else ""
        background = " and ".join(entry["name"] for entry in result["truth"] if entry["background"]) or "no class"
        texts["stages"] = (
            f"Measured on {n:,} voxels with truth{'; ' + out if out else ''}. Accuracy and the means leave out "
            f"what counts as background ({background}). Blue is the product."
        )
        texts["trust"] = (
            f"Slice {facts.get('trust')} of {product}, for up to four classes: green was found, red is missed, blue "
            "is called by the class's name without being of it. Voxels without truth, and those trained on, stay grey."
        )
        how = {
            "hungarian": "on these voxels, one to one, by the highest sum of IoU",
            "many to one": f"on these voxels, each {word} to a class, several to one where that fits best",
            "numbers": "each to the value that is its number",
            "numbers, then many to one": "each to the value that is its number, or else where it fits best",
        }.get(result["matching"]["method"], "by the names in the configuration")
        texts["matching"] = (
            f"Left, {PLURAL[word]} of {_first_stage(result)} against the truth. They were matched once, {how}; all "
            "stages use this map. Right: "
            f"{texts['matching'][0].lower()}{texts['matching'][1:]}"
        )
    if "quantities" in facts:
        notes = facts["quantities"]["notes"]
        texts["quantities"] = " ".join(
            ["Measured on the product; quantities.csv has every number.", *(f"{n}." for n in notes)]
        )
    if "views_3d" in facts:
        steps = " × ".join(map(str, facts["views_3d"]))
        texts["views_3d"] = (
            f"The surface of every class of {product}, seen from above the xy plane, without perspective; one of every "
            f"{steps} voxels (z, y, x). Darker is farther or turned away."
        )
    if "grad_cam" in facts:
        texts["grad_cam"] = (
            f"Slice {facts['grad_cam']}, where the stages disagree most. Bright is what a network's prediction of the "
            "class rests on (Grad-CAM of its coarsest features), each map relative to its own maximum; a map without "
            "light is of a class that is not predicted there."
        )
    return texts
