"""Defaults of the program as a group's first run had them: a later version's move no result with `code: frozen`.

`results/groups/<group>/defaults.json` holds the schema's defaults and the shipped presets that the group's runs name.
It is written when a workflow starts.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError
from .layers import check, defaults, flatten, merge, nested, read_layer
from .provenance import canonical_json, write_json

if TYPE_CHECKING:
    from .config import Run

NAME = "defaults.json"
EARLIER = "default of an earlier version; now "
"""Before today's, where the origin of a key is told."""


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


class Earlier:
    """Reads what groups keep of an earlier version's defaults, as far as this version's schema allows it."""

    def __init__(self, schema: dict[str, Any], presets: Path) -> None:
        self.schema, self.presets = schema, presets
        self.known: dict[str, dict[str, Any] | None] = {}

    def __call__(self, folder: Path) -> dict[str, Any] | None:
        """`defaults` and `presets` of a group's results folder; None if it keeps none, or they are today's."""
        found = read_kept(folder)
        if found is None:
            return None
        text = canonical_json(found)
        if text not in self.known:
            names = found["presets"]
            today = program_defaults(self.schema, self.presets, names)
            allowed = {name: self._allowed(layer) for name, layer in names.items()}
            then = {"defaults": self._allowed(found["defaults"]), "presets": allowed}
            self.known[text] = None if found == today else then
        return self.known[text]

    def _allowed(self, layer: dict[str, Any]) -> dict[str, Any]:
        """What the schema allows of a layer; `code` is not its to say."""
        result: dict[str, Any] = {}
        for key, value in flatten(layer):
            one = nested(key, value)
            try:
                check(one, self.schema, "")
            except InputError:
                continue
            result = result if key == "code" else merge(result, one)
        return result


def program_defaults(schema: dict[str, Any], presets: Path, names: Iterable[str]) -> dict[str, Any]:
    """What `kept_defaults` keeps: the schema's `defaults`, and those of the named `presets` that are shipped."""
    paths = {name: presets / f"{name}.yaml" for name in names}
    return {
        "defaults": defaults(schema),
        "presets": {name: read_layer(path, schema) for name, path in paths.items() if path.exists()},
    }


def moved_defaults(run: Run) -> dict[str, str]:
    """Keys that stand at the default of an earlier version: the value and today's, in words."""
    values = dict(flatten(run.settings))
    return {
        key: f"{values[key]!r}, now {origin.removeprefix(EARLIER)}"
        for key, origin in sorted(run.origins.items())
        if origin.startswith(EARLIER) and key in values
    }
