"""Which code made a result: a digest of the syntax trees that a script reaches."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).resolve().parent.parent
SCRIPT_OF = {"apply_scm": "apply"}
"""Scripts of rules that have none of their name."""
KNOWN_FORMAT = 1


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
    _known(scripts).keep()
    return {path.relative_to(scripts).as_posix(): seen[path] for path in sorted(seen)}


@cache
def _module(path: Path, scripts: Path) -> tuple[str, list[Path]]:
    """Digest of a file, and the files that it imports."""
    found, names = _known(scripts).parsed(path)
    return found, [file for name in names for file in _files(scripts / name)]


class Known:
    """What was found in files, kept from process to process: each job and each call asks for the digests of all.

    As Python keeps its own bytecode: in `__pycache__`, as long as a file has the same size and time; where that cannot
    be written, or is damaged, files are parsed again.
    """

    def __init__(self, scripts: Path) -> None:
        self.scripts = scripts
        self.cache = scripts / "__pycache__" / f"code.{sys.implementation.cache_tag}.json"
        self.found: dict[str, list[Any]] = {}
        self.is_new = False
        with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
            kept = json.loads(self.cache.read_text())
            self.found = kept["modules"] if kept["format"] == KNOWN_FORMAT else {}

    def parsed(self, path: Path) -> tuple[str, list[str]]:
        """Digest of a file, and what it may import, as paths below the scripts without an ending."""
        name, stat = path.relative_to(self.scripts).as_posix(), path.stat()
        if self.found.get(name, [])[:2] != [stat.st_mtime_ns, stat.st_size]:
            self.found[name] = [stat.st_mtime_ns, stat.st_size, *_parsed(path, self.scripts)]
            self.is_new = True
        return self.found[name][2], self.found[name][3]

    def keep(self) -> None:
        """Write what is new."""
        if not self.is_new or sys.dont_write_bytecode:
            return
        self.is_new = False
        with contextlib.suppress(OSError):
            self.cache.parent.mkdir(exist_ok=True)
            temporary = self.cache.with_name(f".{self.cache.name}.{os.getpid()}.tmp")
            temporary.write_text(json.dumps({"format": KNOWN_FORMAT, "modules": self.found}))
            temporary.replace(self.cache)


_known = cache(Known)


def _parsed(path: Path, scripts: Path) -> tuple[str, list[str]]:
    tree = ast.parse(path.read_text())
    imports: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            imports += _imported(node, path.relative_to(scripts).parent)
        elif isinstance(node, ast.Import):
            imports += [alias.name.replace(".", "/") for alias in node.names]
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node
        ):
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), sorted(set(imports))


def _imported(node: ast.ImportFrom, folder: Path) -> list[str]:
    base = folder
    for _ in range(node.level - 1):
        base = base.parent
    target = (base if node.level else Path()).joinpath(*(node.module or "").split("."))
    return [target.as_posix(), *((target / alias.name).as_posix() for alias in node.names)]


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
