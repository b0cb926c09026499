"""Pages of the reference: every key from the schemas, every error from the source."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ERRORS = "InputError"


def write_pages(root: Path, folder: Path) -> None:
    """Write `keys.md` and `errors.md`, only where they differ, so that a second build has nothing to do."""
    folder.mkdir(exist_ok=True)
    pages = {
        "keys.md": keys_page(root / "workflow" / "schemas"),
        "errors.md": errors_page(root / "scripts" / "beamseg"),
    }
    for name, text in pages.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def keys(schema: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Dotted key and schema of every key, sections before what they hold."""
    for name, entry in schema.get("properties", {}).items():
        yield prefix + name, entry
        yield from keys(entry, f"{prefix}{name}.")
    if isinstance(free := schema.get("additionalProperties"), dict) and "properties" in free:
        yield from keys(free, f"{prefix}<name>.")


def keys_page(folder: Path) -> str:
    """Every key of the configuration: type, default, unit, meaning; a table per section."""
    lines = [
        "# Every key",
        "",
        "Made from `workflow/schemas`. `beamseg show_config SAMPLE` prints the value of each for a scan, and the layer",
        "it came from; what the layers are: [configuration](../configuration.md). The file of a section is its name.",
    ]
    paths = sorted(folder.glob("*.yaml"), key=lambda path: (path.stem != "config", path.stem))
    for path in paths:
        schema = yaml.safe_load(path.read_text(encoding="utf-8"))
        section = "" if path.stem == "config" else f"{path.stem}."
        lines += ["", f"## {'Top level' if not section else path.stem}", "", _cell(schema.get("description", "")), ""]
        lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
        for name, entry in keys(schema, section):
            default = _code(json.dumps(entry["default"], ensure_ascii=False)) if "default" in entry else ""
            unit = f"; {entry['unit']}" if "unit" in entry else ""
            cells = [_code(name), _cell(kind(entry) + unit), default, _cell(entry.get("description", ""))]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def kind(entry: dict[str, Any]) -> str:
    """What a key may hold, in words: `a, b or c`; `integer, 1 to 8`; `list of number`."""
    if "enum" in entry:
        return " or ".join(", ".join(_word(value) for value in entry["enum"]).rsplit(", ", 1))
    types = entry.get("type", "")
    text = " or ".join(
        _word(None) if name == "null" else name for name in ([types] if isinstance(types, str) else types)
    )
    if isinstance(entry.get("items"), dict):
        text = text.replace("array", f"list of {kind(entry['items'])}")
    text = text.replace("object", "mapping").replace("array", "list")
    low = entry.get("minimum", entry.get("exclusiveMinimum"))
    high = entry.get("maximum", entry.get("exclusiveMaximum"))
    above = "above " if "exclusiveMinimum" in entry else ""
    if low is not None and high is not None:
        return f"{text}, {above}{low} to {high}"
    if low is not None:
        return f"{text}, {above or 'at least '}{low}"
    return text if high is None else f"{text}, at most {high}"


def _word(value: Any) -> str:
    return "empty" if value is None else str(value)


def _cell(text: str) -> str:
    """Text for a cell of a table: one line, nothing in it is markup but code."""
    flat = " ".join(str(text).split())
    for character in "\\|<*_$[":
        flat = flat.replace(character, f"\\{character}") if "`" not in flat or character == "|" else flat
    return flat


def _code(text: str) -> str:
    return "`" + text.replace("|", "\\|") + "`"


def errors(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Module and the four texts (where, found, expected, remedy) of every error for users in the library's source."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == ERRORS and len(node.args) == 4:
                yield path.relative_to(folder).with_suffix("").as_posix(), [spoken(part) for part in node.args]


def spoken(node: ast.expr) -> str:
    """An expression as the reader of a message meets it: words as they are, what is filled in as `…`."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(spoken(part) if isinstance(part, ast.Constant) else "…" for part in node.values)
    if isinstance(node, ast.BinOp):
        return spoken(node.left) + spoken(node.right)
    if isinstance(node, ast.IfExp):
        return " / ".join(dict.fromkeys(spoken(part) for part in (node.body, node.orelse)))
    return "…"


def errors_page(folder: Path) -> str:
    """Every error: what it names, what was found, what is wanted, what to do; by the stage or part that raises it."""
    lines = [
        "# Every error",
        "",
        "Made from the source. A message reads `where: found; expected; what to do`; `…` stands for what is filled in.",
        "Files that cannot be read are told apart in [inputs](../inputs.md#errors).",
    ]
    module = ""
    for name, texts in errors(folder):
        if name != module:
            lines += ["", f"## {name}", "", "| where | found | expected | what to do |", "|---|---|---|---|"]
            module = name
        lines.append(f"| {' | '.join(_cell(text) for text in texts)} |")
    return "\n".join(lines) + "\n"
