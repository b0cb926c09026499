"""Which code made a result: a digest of the syntax trees that a script reaches."""

from __future__ import annotations

import ast
import hashlib
import os
from functools import cache
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent.parent
SCRIPT_OF = {"apply_scm": "apply"}
"""Scripts of rules that have none of their name."""


def script_of(stage: str) -> str:
    """The script of a rule, or of a stage that is named by its network too, as `segment_stage2` is."""
    rule = stage.partition("_stage")[0]
    return SCRIPT_OF.get(rule, rule)


def code_digest(script: str, scripts: Path = SCRIPTS) -> str:
    """Digest of a script and of every library module it imports, directly or not.

    Docstrings, comments and layout do not count, so an edit reruns (`code: tracked`) what it touches and nothing else.

    Parameters
    ----------
    script : str
        Name of the rule, which is the name of the script.

    Returns
    -------
    str
        16 hexadecimal digits.
    """
    return digest_of(module_digests(script, scripts))


def digest_of(modules: dict[str, str]) -> str:
    """Digest of a script whose files have these digests."""
    ordered = sorted(modules.items(), key=lambda item: Path(item[0]))
    text = "\n".join(f"{name} {found}" for name, found in ordered)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def module_digests(script: str, scripts: Path = SCRIPTS) -> dict[str, str]:
    """Digest of each file that a script reaches, itself included, by path below `scripts`, in order."""
    seen: dict[Path, str] = {}
    queue = [scripts / f"{script}.py"]
    while queue:
        path = queue.pop()
        if path in seen:
            continue
        seen[path], imports = _module(path, scripts)
        queue += imports
    return {path.relative_to(scripts).as_posix(): seen[path] for path in sorted(seen)}


@cache
def _module(path: Path, scripts: Path) -> tuple[str, list[Path]]:
    tree = ast.parse(path.read_text())
    imports: list[Path] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            imports += _imported(node, path, scripts)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                imports += _files(scripts.joinpath(*alias.name.split(".")))
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), imports


def _imported(node: ast.ImportFrom, path: Path, scripts: Path) -> list[Path]:
    if node.level:
        base = path.parent
        for _ in range(node.level - 1):
            base = base.parent
    else:
        base = scripts
    target = base.joinpath(*(node.module or "").split(".")) if node.module else base
    found = _files(target)
    for alias in node.names:
        found += _files(target / alias.name)
    return found


def _files(target: Path) -> list[Path]:
    """The file or package that a dotted name under scripts/ stands for; nothing for other people's libraries."""
    return [path for path in (target.with_suffix(".py"), target / "__init__.py") if path.is_file()]


def lead_the_path() -> None:
    """Let processes that are started from here import this library, whatever is installed.

    Snakemake appends the scripts' folder to its jobs' path, where an installation of another checkout comes first.
    """
    ours = str(SCRIPTS)
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    os.environ["PYTHONPATH"] = os.pathsep.join([ours, *(folder for folder in given if folder not in ("", ours))])
