"""study: run every cell of a study by the workflow, and gather what it measured."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import yaml

from .config import load_runs
from .errors import InputError
from .forecast import cores as available
from .runs import is_images
from .studies import known_studies, load_study, one_of, write_workdir
from .study_table import gather, write_tables

THREADED = (
    *("simulate", "histogram", "normalize", "assign", "train", "self_correct", "segment", "refine_mpp", "train_scm"),
    *("refine_scm", "train_frames", "segment_frames"),
)
"""Rules that use several threads."""


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


def side_by_side(networks: int, cores: str | None) -> list[str]:
    """What has a machine work at so many networks at once, each job with its share of the cores."""
    threads = max(1, (available() if cores in (None, "all") else int(str(cores))) // networks)
    return ["--resources", f"gpu={networks}", "--set-threads", *(f"{rule}={threads}" for rule in THREADED)]


def run_study(
    name: str,
    scale: str,
    workdir: Path,
    basedir: Path,
    *,
    profile: str = "default",
    cores: str | None = None,
    at_once: int = 1,
    dry_run: bool = False,
) -> int:
    """Run a study and gather what is there, also after failures.

    `at_once` networks are at work at a time, see `side_by_side`: small ones are done sooner so.

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
    runs, _ = load_runs(folder, basedir)  # combinations that make no sense are refused here, with words
    products = [
        f"results/{name}/{product}"
        for name, run in runs.items()
        for product in ("report.html", "metrics.json", "geometry.csv" if is_images(run) else "labels.json")
    ]
    line = command(folder, basedir, profile, cores)
    if at_once > 1:
        line += side_by_side(at_once, cores)
    status = run_snakemake([*line, *(["--dry-run"] if dry_run else ["--quiet", "rules"]), "--", *products])
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
