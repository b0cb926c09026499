"""What rounds of training are on record, and what each gained, in words; needs no network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .provenance import read_json

FOLDER = "rounds"


def ledger(beside: str | Path) -> list[dict[str, Any]]:
    """Entries of the rounds beside a group's weights or curves, the one trained last at the end."""
    path = Path(beside).parent / FOLDER / "rounds.json"
    return list(read_json(path)["rounds"]) if path.exists() else []


def described(entry: dict[str, Any]) -> str:
    """A line for the log; what was noted on two sets of pixels, by an earlier version, is no gain and not said."""
    if "all" not in entry:
        return f"round {entry['round']}"
    said = f"round {entry['round']}: on all {entry['all']['after']['painted']} painted pixels {_gain(entry['all'])}"
    if new := entry["new"]:
        said += f"; on the {new['after']['painted']} of them that no round before had {_gain(new)}"
    return said


def _gain(measured: dict[str, Any]) -> str:
    before, after = measured["before"], measured["after"]
    kinds = {"accuracy": "{:.1%}", "mean_iou": "{:.3f}"}
    texts = [
        f"{key.replace('_iou', ' IoU')} {'' if before is None else text.format(before[key]) + ' → '}"
        f"{text.format(after[key])}"
        for key, text in kinds.items()
    ]
    return ", ".join(texts)
