"""What jobs recorded of themselves in `logs/`: how each ended, and which code it ran."""

from __future__ import annotations

import atexit
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .code import code_digest, digest_of, module_digests, script_of
from .provenance import made_now, read_json

LOGS = Path("logs")
NAMED = 8


def records(logs: Path = LOGS) -> list[dict[str, Any]]:
    """What jobs recorded of their ends, one entry per log."""
    return [read_json(path) for path in sorted(logs.rglob("*.log.json"))]


def records_of(stage: str, who: str, logs: Path = LOGS) -> list[dict[str, Any]]:
    """Records of a stage's jobs; `segment` has one per network and part."""
    name, _, model = stage.partition("_stage")
    stage = name if name == "segment" else stage
    below = stage if not model or name != "segment" else f"segment/stage{model}"
    paths: list[Path] = []
    for folder in (logs / who, logs / "groups" / who):
        paths += [folder / f"{below}.log.json", *sorted((folder / below).glob("**/*.log.json"))]
    return [read_json(path) for path in paths if path.exists()]


def tracked_code(stage: str, who: str, logs: Path = LOGS) -> str | None:
    """Digest that Snakemake knows the code of a result by, None if nothing is recorded.

    With `code: frozen` it stays that of the first result, also where an edit of the settings has had the job run newer
    code: `code_of` is the digest of what ran.
    """
    for entry in records_of(stage, who, logs):
        if entry["state"] == "done":
            return str(entry.get("tracked", entry["code"]))
    return None


def code_of(stage: str, who: str, logs: Path = LOGS) -> str | None:
    """Digest of the code that made the result of a stage which is there, None if nothing is recorded.

    Of parts that different versions of the program made, all digests, with commas between.
    """
    ran = (_ran(entry) for entry in records_of(stage, who, logs) if entry["state"] == "done")
    return _all_of(list(ran))


def made_with(stages: Mapping[str, str], logs: Path = LOGS) -> dict[str, Any] | None:
    """The `commit` and `versions` with which jobs of stages (stage -> who) ran; of several, all, with commas between.

    None if none of them recorded any, as before version 0.1.
    """
    entries = [e for stage, who in stages.items() for e in records_of(stage, who, logs) if e["state"] == "done"]
    entries = [entry for entry in entries if "versions" in entry]
    if not entries:
        return None
    packages = sorted({package for entry in entries for package in entry["versions"]})
    return {
        "commit": _all_of([entry["commit"] for entry in entries]),
        "versions": {package: _all_of([entry["versions"].get(package) for entry in entries]) for package in packages},
    }


def device_of(stage: str, who: str, logs: Path = LOGS) -> str | None:
    """Where the networks of a stage computed, of its jobs all; None of a stage without any."""
    return _all_of([entry.get("device") for entry in records_of(stage, who, logs) if entry["state"] == "done"])


def _all_of(values: Sequence[str | None]) -> str | None:
    return ", ".join(sorted({value for value in values if value})) or None


def stale_results(names: set[str], logs: Path = LOGS) -> list[str]:
    """Stages whose code has changed since they left results of these samples and groups, a line each, in words."""
    stale: dict[tuple[str, str], set[str]] = {}
    for entry in records(logs):
        if entry["state"] != "done" or entry["sample"] not in names:
            continue
        try:
            modules = module_digests(script_of(entry["stage"]))
        except FileNotFoundError:
            continue
        then = entry.get("modules") or {}
        changed = sorted(name for name in then.keys() | modules.keys() if then.get(name) != modules.get(name))
        now = code_digest(script_of(entry["stage"]))
        if changed if then else entry["code"] not in (None, now):
            why = f"changed: {', '.join(changed)}" if then else f"code {entry['code']}, now {now}"
            stale.setdefault((entry["stage"], why), set()).add(entry["sample"])
    return [f"{stage} of {_named(who)} ({why})" for (stage, why), who in stale.items()]


def other_packages(names: set[str], logs: Path = LOGS) -> list[str]:
    """Packages that have other versions than when they left results of these samples and groups, a line each, in words.

    What an earlier version of this program did not record is not compared.
    """
    found: dict[str, set[str]] = {}
    now = made_now()["versions"]
    for entry in records(logs):
        if entry["state"] != "done" or entry["sample"] not in names:
            continue
        for package, then in entry.get("versions", {}).items():
            if package in now and then != now[package]:
                found.setdefault(f"{package} {then}, now {now[package]}", set()).add(entry["sample"])
    return [f"{line} ({_named(who)})" for line, who in sorted(found.items())]


def stale_at_exit(names: set[str], moved: Mapping[str, Mapping[str, str]] | None = None, logs: Path = LOGS) -> None:
    """At the end of this process, list what is stale; where nothing has to run, Snakemake ends without a word.

    `moved` are, by group, the keys that stand at an earlier version's default, and what it was and is, in words.
    """
    atexit.register(_print_stale, names, moved or {}, logs.absolute())


def _print_stale(names: set[str], moved: Mapping[str, Mapping[str, str]], logs: Path) -> None:
    groups: dict[str, set[str]] = {}
    for group, keys in moved.items():
        for key, words in keys.items():
            groups.setdefault(f"{key}: {words}", set()).add(group)
    for title, lines in (
        ("kept although the code has changed since", stale_results(names, logs)),
        ("kept although packages have other versions since", other_packages(names, logs)),
        ("defaults of the groups' first runs hold", [f"{line} ({_named(who)})" for line, who in groups.items()]),
    ):
        if lines:
            print(f"\n{title} (code: frozen):", *lines, sep="\n  ", file=sys.stderr)


def _named(who: set[str]) -> str:
    """Names in order; of many the first ones, and how many there are."""
    names = sorted(who)
    return ", ".join(names) if len(names) <= NAMED else f"{', '.join(names[:NAMED])} and {len(names) - NAMED} others"


def _ran(entry: dict[str, Any]) -> str:
    """Digest of the code that a job ran; records of earlier versions have that which Snakemake knew it by as `code`."""
    if "tracked" not in entry and entry.get("modules"):
        return digest_of(entry["modules"])
    return str(entry["code"])
