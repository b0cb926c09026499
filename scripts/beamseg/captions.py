"""What each picture of a report shows, in plain words and numbers."""

from __future__ import annotations

from typing import Any

from .metrics import STAGES, percent, stage_names
from .palette import CLUSTER, PLURAL, word_of


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
        "matching": f"Where the voxels of each class of {first_stage(result)} went in {product}, in per cent of a "
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
            f"Left, {PLURAL[word]} of {first_stage(result)} against the truth. They were matched once, {how}; all "
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


def first_stage(result: dict[str, Any]) -> str:
    """The first stage, in a sentence."""
    first = stage_names(result)[0]
    return f"the {STAGES[first]}" if first == "pseudo_labels" else STAGES[first]
