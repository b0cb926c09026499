"""arrive: new scans of a folder become rows and a run, unattended; made for cron or a systemd timer."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from .config import load_runs, read_table
from .errors import InputError
from .init import init
from .provenance import atomic_path
from .runs import Runs
from .study import command, run_snakemake
from .summary import run_state

SETTLE_S = 300.0
OF_A_SCAN = ("sample", "path", "dataset", "labels", "truth", "reference", "voxel_size_um")
"""Columns that a new row does not take over from the first of its group."""
UNFINISHED = {"not finished", "killed"}


@contextmanager
def alone(workdir: Path) -> Iterator[bool]:
    """Whether no other `arrive` works in this directory; the lock goes with the process, however that ends."""
    workdir.mkdir(parents=True, exist_ok=True)
    with open(workdir / ".beamseg-arrive.lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


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
    """Append the finished new scans of a folder to the sample table and run the workflow once.

    Nothing is started where nothing is new and every run has ended, well or not: a scan that failed is tried again
    together with the next one that arrives. A scan that joins a group takes over the settings in the row of the group's
    first scan, and leaves the group's model as it is.

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
        Exit status: Snakemake's (1 if any scan failed; the others and `results/summary.csv` are done all the same), 0
        if there was nothing to do or another `arrive` is at work.

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
            settle_s=settle_s,
        )
        print(*(f"added    {line}" for line in added), *(f"not yet  {line}" for line in waiting), sep="\n")
        if not table.exists():
            return 0
        new = [row["sample"] for row in read_table(table) if row["sample"] not in before]
        for name in new if members else ():
            _only_segmented(table.parent / "samples" / f"{name}.yaml")
        runs = Runs(load_runs(workdir, basedir)[0])
        states = {name: run_state(runs, name, workdir / "results", workdir / "logs")["state"] for name in runs.runs}
        if not new and not UNFINISHED & set(states.values()):
            print(f"nothing new in {folder}")
            return 0
        line = command(workdir, basedir, profile, cores)
        return run_snakemake([*line, "--keep-going", *(["--dry-run"] if dry_run else ["--quiet", "rules"])])


def _only_segmented(path: Path) -> None:
    """Keep a scan that joins a group out of the group's training."""
    if path.exists():
        return
    with atomic_path(path) as temporary:
        temporary.write_text(yaml.safe_dump({"reference": False}))
