"""Which stage's labels are the product of a run, and which classes stages have lost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .metrics import STAGES

LOST_FROM = 0.001
LOST_BELOW = 0.2


def choose_product(
    names: list[str],
    verdict: dict[str, Any] | None,
    refinement: dict[str, dict[str, Any]] | None,
    called: Mapping[int, str],
) -> dict[str, Any]:
    """The stage that is handed on and why: the last of the chain, unless the watch or the refinement speaks against it.

    `called` names what a refinement may have erased.

    Returns
    -------
    dict
        stage, reason, and `fallback` (bool): whether it is not the last of the chain.
    """
    chain = [name for name in names if name != "stage3" or (verdict or {}).get("use", "stage3") == "stage3"]
    index = len(chain) - 1
    reasons = []
    while index > 0 and (refinement or {}).get(chain[index], {}).get("erased"):
        erased = ", ".join(called[cluster] for cluster in (refinement or {})[chain[index]]["erased"])
        reasons.append(f"{STAGES[chain[index]]} took away more than half of {erased}")
        index -= 1
    stage = chain[index]
    if "stage3" in names and "stage3" not in chain:
        because = str((verdict or {}).get("reason") or "the watch over stage 3 failed").rstrip(". ")
        after = "" if stage == "stage2" else ", and refinement works on it"
        reasons.insert(0, f"stage 2 takes the place of stage 3{after}: {because}")
    if not reasons:
        reasons.append("the last stage of the configured chain, and no watch refused it")
    return {
        "stage": stage,
        "reason": "; ".join(reasons),
        "fallback": stage != names[-1] or "stage3" in set(names) - set(chain),
    }


def lost_classes(fractions: dict[str, dict[str, float | None]]) -> dict[str, list[str]]:
    """Stage -> classes that hold LOST_FROM or more of the first stage's voxels and less than LOST_BELOW of that here.

    A cluster too many is meant to go; a phase that goes is a collapse. Which it is the user sees, so the loss is said.
    """
    first, *others = fractions
    return {
        stage: [
            name
            for name, share in fractions[first].items()
            if (share or 0) >= LOST_FROM and (fractions[stage][name] or 0) < LOST_BELOW * (share or 0)
        ]
        for stage in others
    }


def found_again(result: dict[str, Any]) -> None:
    """Take back what `lost_classes` says of a class that the truth knows and whose IoU has not fallen.

    It lost what was falsely in it. Of classes that share a value of the truth, one too many among them, nothing is.
    """
    name_of = result["matching"]["map"]
    known = list(name_of.values())
    first = next(iter(result["stages"].values()))["classes"]
    for stage, lost in result["lost_classes"].items():
        now = result["stages"][stage]["classes"]
        result["lost_classes"][stage] = [
            c
            for c in lost
            if known.count(name_of[c]) > 1 or (now[name_of[c]]["iou"] or 0) < (first[name_of[c]]["iou"] or 0)
        ]
