"""Layers of the configuration: nested dicts, each checked against the schema before they are merged."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from .errors import InputError
from .strict_yaml import parse_yaml

PHANTOM = "phantom"
"""A path that stands for a scan, labels or a movie that the workflow makes."""
WRITTEN_OUT = 1_000_000
SHOWN = 200


def load_schema(folder: str | Path) -> dict[str, Any]:
    """Assemble the schema: `config.yaml` for the top level, every other file a section of its name."""
    found = {path.stem: parse_yaml(path.read_text()) for path in sorted(Path(folder).glob("*.yaml"))}
    schema: dict[str, Any] = found.pop("config")
    schema["properties"] |= found
    return schema


def defaults(schema: dict[str, Any]) -> Any:
    """The default of every key of a schema, nested as the schema is."""
    if "properties" in schema:
        return {key: defaults(entry) for key, entry in schema["properties"].items()}
    return copy.deepcopy(schema.get("default"))


def merge(base: dict[str, Any], layer: dict[str, Any]) -> dict[str, Any]:
    """A new dict: dicts merge key by key, anything else of `layer` replaces what `base` has."""
    result = dict(base)
    for key, value in layer.items():
        old = result.get(key)
        result[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def check(layer: dict[str, Any], schema: dict[str, Any], where: str) -> None:
    """Validate one layer without filling defaults.

    Raises
    ------
    InputError
        Naming the key, its value, what is wanted and, for an unknown key, the nearest known one.
    """
    if _is_longer(layer, WRITTEN_OUT):
        raise InputError(
            where,
            f"over {WRITTEN_OUT:,} values and characters, each alias (*name) written out",
            "a configuration of a few hundred",
            "remove anchors (&name) and aliases that repeat each other",
        )
    validator = jsonschema.Draft202012Validator(schema)
    errors = sorted(validator.iter_errors(layer), key=lambda error: [str(part) for part in error.absolute_path])
    for error in errors:
        path = ".".join(str(part) for part in error.absolute_path)
        if error.validator == "additionalProperties" and isinstance(error.instance, dict):
            known = list(error.schema.get("properties", {}))
            unknown = next(key for key in error.instance if key not in known)
            dotted = f"{path}.{unknown}" if path else str(unknown)
            near = difflib.get_close_matches(str(unknown), known, n=1, cutoff=0.5)
            remedy = f"did you mean {near[0]!r}?" if near else f"remove it; known here: {', '.join(sorted(known))}"
            raise InputError(where, f"unknown key {dotted!r}", "a key of the schema", remedy)
        entry = error.schema if isinstance(error.schema, dict) else {}
        about = entry.get("description", "")
        whole = repr(error.instance)
        short = whole if len(whole) <= SHOWN else f"{whole[:SHOWN]} … ({len(whole):,} characters)"
        raise InputError(
            f"{where}: {path or 'top level'}",
            short,
            error.message.replace(whole, short),
            f"change the value. {about}".strip(),
        )


def _is_longer(value: Any, most: int) -> bool:
    """Whether a value holds more than so many others and characters; one that YAML's aliases repeat counts each time.

    Asked before jsonschema looks, whose messages hold whatever they are about in full.
    """
    left, stack = most, [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str | bytes):
            left -= len(item)
        elif isinstance(item, dict | list | tuple | set):
            left -= len(item)
            if left >= 0:
                stack += [part for pair in item.items() for part in pair] if isinstance(item, dict) else item
        if left < 0:
            return True
    return False


def read_layer(path: Path, schema: dict[str, Any]) -> dict[str, Any]:
    """A YAML file as a checked layer; an absent file raises InputError."""
    if not path.exists():
        raise InputError(path, "no such file", "a YAML file", "check the name")
    try:
        layer = parse_yaml(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise InputError(path, str(error), "YAML", "mend the syntax at that line") from error
    if not isinstance(layer, dict):
        raise InputError(path, f"a {type(layer).__name__}", "keys and values", "write `key: value` lines")
    check(layer, schema, str(path))
    return layer


def nested(dotted: str, value: Any) -> dict[str, Any]:
    """`'train.lr', 1` -> {'train': {'lr': 1}}."""
    *parents, last = dotted.split(".")
    result: dict[str, Any] = {last: value}
    for key in reversed(parents):
        result = {key: result}
    return result


def flatten(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of every leaf."""
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
