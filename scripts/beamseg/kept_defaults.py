"""Defaults of the program as a group's first run had them: a later version's move no result with `code: frozen`.

`results/groups/<group>/defaults.json` holds the schema's defaults and the shipped presets that the group's runs name.
It is written when a workflow starts.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .errors import InputError
from .provenance import write_json

NAME = "defaults.json"


def read_kept(folder: Path) -> dict[str, Any] | None:
    """`defaults` and `presets` (name -> layer) kept in the results folder of a group; None before its first run.

    Raises
    ------
    InputError
        If the file is not what `keep` writes.
    """
    path = folder / NAME
    try:
        found = json.loads(path.read_text())
        parts = [found["defaults"], found["presets"], *found["presets"].values()]
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, AttributeError):
        parts = [None]
    if not all(isinstance(part, dict) for part in parts):
        raise InputError(
            path,
            "no defaults as a workflow writes them",
            "`defaults` and `presets`",
            "put it back from a copy, or remove it: today's defaults then hold, and what they change is computed anew",
        )
    return dict(found)


def keep(folder: Path, now: dict[str, Any], *, frozen: bool) -> None:
    """Write what a group's runs have of the program's defaults, `defaults` and `presets`.

    What is kept already stays where the group is frozen; presets that are new to it are added.
    """
    kept = read_kept(folder) if frozen else None
    content = now if kept is None else {**kept, "presets": now["presets"] | kept["presets"]}
    if content != kept:
        write_json(folder / NAME, content)
