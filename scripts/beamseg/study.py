"""study: run every cell of a study by the workflow, and gather what it measured."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import yaml

from .config import load_runs
from .errors import InputError
from .studies import known_studies, load_study, one_of, write_workdir
from .study_table import gather, write_tables


def command(folder: Path, basedir: Path, profile: str, cores: str | None) -> list[str]:
    """The command line that runs a study's working directory."""
    chosen = basedir / "workflow" / "profiles" / profile
    chosen = chosen if chosen.is_dir() else Path(profile).resolve()
    settings = chosen / "config.yaml"
    if not settings.exists():
        raise InputError(
            "--profile", profile, "default, slurm, or a folder with a config.yaml", "see workflow/profiles"
        )
    if cores is None and "executor" not in yaml.safe_load(settings.read_text()):
        cores = "all"
    return [
        *(sys.executable, "-m", "snakemake", "--snakefile", str(basedir / "Snakefile")),
        *("--directory", str(folder), "--workflow-profile", str(chosen)),
        *(("--cores", cores) if cores is not None else ()),
    ]


def run_study(
    name: str,
    scale: str,
    workdir: Path,
    basedir: Path,
    *,
    profile: str = "default",
    cores: str | None = None,
    dry_run: bool = False,
) -> int:
    """Run a study and gather what is there, also after failures.

    Returns
    -------
    int
        Snakemake's exit status.

    Raises
    ------
    InputError
        For an unknown or faulty study, or a working directory in which another Snakemake is, or was killed.
    """
    known = known_studies(workdir, basedir)
    path = Path(name)
    if path.suffix != ".yaml":
        one_of(name, list(known), "study")
        path = known[name]
    study = load_study(path, scale, basedir)
    folder = workdir / "studies" / f"{study.name}-{scale}"
    if any((folder / ".snakemake" / "locks").glob("*")):
        raise InputError(
            str(folder),
            "locked: a Snakemake is at work there, or was killed",
            "no other Snakemake",
            f"wait for it, or run `beamseg --directory {folder} recover`; then the same command again",
        )
    write_workdir(study, folder)
    load_runs(folder, basedir)  # combinations that make no sense are refused here, with words
    line = command(folder, basedir, profile, cores)
    status = run_snakemake([*line, "--dry-run"] if dry_run else [*line, "--quiet", "rules"])
    if not dry_run:
        rows = gather(study, folder, basedir)
        print(write_tables(study, rows, folder).read_text())
        print(f"{folder}: table.md, table.csv, table.png, table.svg; pictures of each run: results/<run>/report.html")
    return status


def run_snakemake(line: list[str]) -> int:
    """Run Snakemake; a signal reaches it and is waited for, so that its jobs save their states."""
    process = subprocess.Popen(line)
    # The terminal sends Ctrl-C to both; SIGTERM goes to this process alone.
    previous = [
        (signal.SIGINT, signal.signal(signal.SIGINT, signal.SIG_IGN)),
        (signal.SIGTERM, signal.signal(signal.SIGTERM, lambda number, frame: process.send_signal(number))),
    ]
    try:
        return process.wait()
    finally:
        for number, handler in previous:
            signal.signal(number, handler)
