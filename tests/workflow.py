"""Running the workflow in a folder of its own: what the workflow's tests share."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from beamseg.provenance import read_json

BASEDIR = Path(__file__).resolve().parents[1]
PROFILES = BASEDIR / "workflow" / "profiles"
TINY: dict[str, Any] = {
    "samples": "config/samples.tsv",
    "preset": "srct",
    "phantom": {"size": [32, 96, 96], "angles": 120},
    "slab_depth": 16,
    "train": {"steps": 12, "batch": 2, "crop": 32},
    "self_correct": {"steps": 8},
    "refine_scm": {"steps": 8},
}


class Workflow:
    """A working directory with a configuration, and `snakemake` run in it."""

    snakefile = BASEDIR / "Snakefile"
    options: tuple[str, ...] = ("--cores", "2", "--workflow-profile", str(PROFILES / "default"))

    def __init__(self, folder: Path, config: dict[str, Any] | None = None, table: str = "sample\tpath\na\tphantom\n"):
        self.folder = folder
        self.config = config or TINY
        (folder / "config").mkdir(parents=True, exist_ok=True)
        self.write(self.config)
        (folder / "config" / "samples.tsv").write_text(table)

    def write(self, config: dict[str, Any]) -> None:
        """Write config.yaml."""
        (self.folder / "config" / "config.yaml").write_text(yaml.safe_dump(config))

    def command(self, *arguments: str) -> list[str]:
        """The command line of a run."""
        return [
            *(sys.executable, "-m", "snakemake", "--snakefile", str(self.snakefile)),
            *("--directory", str(self.folder), *self.options, *arguments),
        ]

    def run(self, *arguments: str, fails: bool = False) -> str:
        """Run snakemake; its standard error. Raises AssertionError if it ends otherwise than expected."""
        done = subprocess.run(self.command(*arguments), capture_output=True, text=True, env=environment())
        assert (done.returncode != 0) == fails, done.stderr[-6000:] + done.stdout[-2000:]
        return done.stderr + done.stdout

    def rules(self, *arguments: str) -> list[str]:
        """Names of the rules of the jobs that a run executed, in order, without `all`."""
        return jobs_of(self.run(*arguments))

    def digests(self, sample: str = "a") -> dict[str, Any]:
        """Digests of every array of a run, by stage and slab, and of the exported labels."""
        results = self.folder / "results"
        found: dict[str, Any] = {"export": read_json(results / sample / "labels.json")["digest"]}
        for path in sorted((results / sample).rglob("*-of-*.json")):
            stage = path.parent.relative_to(results / sample).as_posix()
            for slab in read_json(path)["slabs"]:
                found[f"{stage} {slab['z0']}"] = slab["digests"]
        return found


def environment() -> dict[str, str]:
    """One thread per library, so that tests beside each other do not slow each other."""
    return {**os.environ, "COLUMNS": "200", "PYTHONUNBUFFERED": "1"}


def jobs_of(text: str) -> list[str]:
    """Rules of the jobs in snakemake's output."""
    starts = ("rule ", "localrule ", "checkpoint ", "localcheckpoint ")
    names = [line.split()[1].rstrip(":") for line in text.splitlines() if line.startswith(starts)]
    return [name for name in names if name != "all"]
