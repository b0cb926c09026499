"""arrive: new scans of a folder become rows and a run, unattended; made for cron or a systemd timer."""

from __future__ import annotations

import fcntl
import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from .config import common_settings, load_runs, read_table
from .device import NO_LOCKS
from .errors import InputError
from .init import init
from .job import alive, start_of
from .runs import ALL_STAGES, Runs
from .study import command, run_snakemake
from .summary import run_state

SETTLE_S = 300.0
OF_A_SCAN = ("sample", "path", "dataset", "labels", "truth", "reference", "voxel_size_um")
"""Columns that a new row does not take over from the first of its group."""
LINKS = "ingest.external_links"
UNFINISHED = {"not finished", "killed"}


@contextmanager
def alone(workdir: Path) -> Iterator[bool]:
    """Whether no other `arrive` works in this directory; the lock goes with the process, however that ends.

    Where the file system refuses locks, a file that names its process takes its place, see `claimed`.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    with open(workdir / ".beamseg-arrive.lock", "w") as file:
        held: bool | None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = True
        except BlockingIOError:
            held = False
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            held = None
        if held is not None:
            yield held
            return
        with claimed(workdir / ".beamseg-arrive.claim") as held:
            yield held


@contextmanager
def claimed(path: Path) -> Iterator[bool]:
    """Whether this process alone made a file, which holds host, process and its start, and is removed at the end.

    One left by a process of this host that has ended is taken over.

    Raises
    ------
    InputError
        If the file names another host, or a process of which nothing can be known: it may be at work, or killed.
    """
    if not _create(path) and not (_clear(path) and _create(path)):
        yield False
        return
    try:
        yield True
    finally:
        with suppress(FileNotFoundError):
            path.unlink()


def _create(path: Path) -> bool:
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    entry = {"host": socket.gethostname(), "pid": os.getpid(), "started": start_of(os.getpid())}
    with os.fdopen(file, "w") as stream:
        json.dump(entry, stream)
    return True


def _clear(path: Path) -> bool:
    """Remove the claim of a process that has ended; False if it has not.

    It is renamed first, and of two processes that find it only one can do that; a claim that was made in between comes
    back.
    """
    entry = _claimant(path)
    if entry is None:
        return True
    if entry.get("host") != socket.gethostname() or not entry.get("started"):
        raise InputError(
            path,
            f"claimed by process {entry.get('pid', 'unknown')} of {entry.get('host', 'an unknown host')}",
            "none, or one of a process that this host knows: the file system takes no locks that would tell of others",
            "run it on that host; or, if no `beamseg arrive` is at work there, remove this file",
        )
    if alive(entry):
        return False
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        os.rename(path, aside)
    except FileNotFoundError:
        return False
    if _claimant(aside) != entry:
        os.rename(aside, path)
        return False
    aside.unlink()
    return True


def _claimant(path: Path) -> dict[str, Any] | None:
    """Host, process and its start; None if the file is gone, nothing if it was not written to its end."""
    try:
        entry = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) else {}


def arrive(
    folder: Path,
    workdir: Path,
    basedir: Path,
    *,
    group: str | None = None,
    bundle: Path | None = None,
    settle_s: float = SETTLE_S,
    profile: str = "default",
    cores: str | None = None,
    dry_run: bool = False,
) -> int:
    """Append the finished new scans of a folder to the sample table and run the workflow once, for what is not done.

    Nothing is started where nothing is new and every run has ended, well or not: a scan that failed is tried again
    together with the next one that arrives. A scan that joins a group takes over the settings in the row of the group's
    first scan, and leaves the group's model as it is. Finished scans are left as they are, whatever was edited or
    upgraded since, and so is what they share: where a new scan of their group would have it made anew, as after another
    choice of reference scans, it waits. A row whose bundle is gone stops no other.

    Parameters
    ----------
    folder : Path
        Searched as `init` does.
    workdir, basedir : Path
        Working directory, and where the Snakefile lies.
    group, bundle
        Of the new rows.
    settle_s : float
        A scan counts as finished when none of its files was written for so many seconds.
    profile, cores
        As for `study`.

    Returns
    -------
    int
        Exit status: Snakemake's (1 if any scan failed; the others and `results/summary.csv` are done all the same), 1
        if a new scan waits for its group, 0 if there was nothing to do or another `arrive` is at work.

    Raises
    ------
    InputError
        If the directory is locked by another Snakemake, or the configuration is not valid.
    """
    with alone(workdir) as free:
        if not free:
            print(f"another `beamseg arrive` is at work in {workdir}")
            return 0
        if any((workdir / ".snakemake" / "locks").glob("*")):
            raise InputError(
                workdir,
                "locked: a Snakemake is at work there, or was killed",
                "no other Snakemake",
                "wait for it, or run `beamseg recover`; then the same command again",
            )
        table = workdir / "config" / "samples.tsv"
        before = {row["sample"]: row for row in read_table(table)} if table.exists() else {}
        members = [row for row in before.values() if group and row.get("group") == group]
        cells = {key: value for key, value in members[0].items() if key not in OF_A_SCAN} if members else {}
        cells |= {"group": group or "", "bundle": "" if bundle is None else str(bundle.resolve())}
        added, waiting = init(
            folder,
            table,
            shipped=basedir / "config" / "samples.tsv",
            columns={key: value for key, value in cells.items() if value},
            own={"reference": False} if members else None,
            settle_s=settle_s,
            external_links=cells.get(LINKS) or common_settings(workdir, basedir)["ingest"]["external_links"],
        )
        print(*(f"added    {line}" for line in added), *(f"not yet  {line}" for line in waiting), sep="\n")
        if not table.exists():
            return 0
        new = [row["sample"] for row in read_table(table) if row["sample"] not in before]
        runs = Runs(load_runs(workdir, basedir, {"only": new}, lenient=True)[0])
        states = {name: run_state(runs, name, workdir / "results", workdir / "logs")["state"] for name in runs.runs}
        if not new and not UNFINISHED & set(states.values()):
            print(f"nothing new in {folder}")
            return 0
        only = [name for name, state in states.items() if state != "done"]
        line = command(workdir, basedir, profile, cores)
        held: dict[str, list[str]] = {}
        done = {runs.runs[name].group for name in states.keys() - set(only)}
        if done & {runs.runs[name].group for name in only}:
            held = {group: rules for group, rules in asked_anew(line, only).items() if group in done}
        for group, rules in held.items():
            print(
                f"WARNING: group {group}: {', '.join(rules)} would be made anew, and its finished scans go out of date "
                "by that; its new scans wait. See `snakemake -n` for the reason, and start snakemake yourself if it is "
                "to be so"
            )
        only = [name for name in only if runs.runs[name].group not in held]
        if not only:
            return 1
        line += [*named(only), "--keep-going", *(["--dry-run"] if dry_run else ["--quiet", "rules"])]
        return run_snakemake(line) or int(bool(held))


def named(only: list[str]) -> list[str]:
    """Options by which Snakemake makes these samples alone."""
    return ["--config", f"only={json.dumps(only)}"]


def asked_anew(line: list[str], only: list[str]) -> dict[str, list[str]]:
    """What of its groups' scans share Snakemake would replace for these samples: group -> rules."""
    asked = subprocess.run([*line, *named(only), "--dry-run"], capture_output=True, text=True)
    found: dict[str, list[str]] = {}
    for rule, group in jobs_anew(asked.stdout):
        found.setdefault(group, []).append(rule)
    return found


def jobs_anew(told: str) -> list[tuple[str, str]]:
    """Rule and group of the jobs in what a dry run told that would replace something which scans of a group share."""
    found = []
    for job in re.finditer(r"^rule (\w+):\n((?:    .*\n)+)", told, re.MULTILINE):
        stage, about = ALL_STAGES.get(job[1]), job[2]
        group = re.search(r"^    wildcards: group=(\S+)$", about, re.MULTILINE)
        if stage and job[1] != "bundle" and group and "    reason: Missing output files" not in about:
            found.append((job[1], group[1]))
    return found
