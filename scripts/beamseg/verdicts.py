"""What the checks of a run say, in sentences: can I trust this, and where not?"""

from __future__ import annotations

from typing import Any

from .metrics import STAGES, percent, relative_gain, stage_names
from .palette import CLUSTER, member_names, word_of


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
