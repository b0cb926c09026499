"""recover: after Snakemake was killed, end the jobs it left running and unlock the directory."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from .summary import records

GRACE = 20.0


def recover(workdir: Path, basedir: Path) -> int:
    """End recorded jobs that still run, here or on Slurm, and unlock; the same command then goes on.

    Jobs get SIGTERM, on which trainings save their state, and SIGKILL after 20 s.

    Returns
    -------
    int
        Exit status: 0, or 1 if Snakemake could not unlock.
    """
    running = [entry for entry in records(workdir / "logs") if entry["state"] == "running"]
    for entry in running:
        if entry.get("slurm_job") and shutil.which("scancel"):
            subprocess.run(["scancel", str(entry["slurm_job"])], check=False)
            print(f"cancelled Slurm job {entry['slurm_job']}: {entry['stage']} of {entry['sample']}")
        elif entry["host"] == socket.gethostname() and _is_job(entry):
            end_process(entry["pid"])
            print(f"ended process {entry['pid']}: {entry['stage']} of {entry['sample']}")
        elif entry["host"] != socket.gethostname():
            print(f"left alone: {entry['stage']} of {entry['sample']}, process {entry['pid']} on {entry['host']}")
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--snakefile",
        str(basedir / "Snakefile"),
        "--unlock",
        "--quiet",
        "all",
    ]
    done = subprocess.run([*command, "--cores", "1"], cwd=workdir, check=False)
    if done.returncode == 0:
        print("unlocked; start the same snakemake command again")
    return int(done.returncode != 0)


def _is_job(entry: dict[str, Any]) -> bool:
    """Whether the process is the recorded job, and not another that took its number."""
    try:
        command = Path(f"/proc/{entry['pid']}/cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return False
    return ".snakemake/scripts" in command or "snakemake" in command


def end_process(pid: int) -> None:
    """SIGTERM, then SIGKILL once the grace period is over."""
    try:
        os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        while time.monotonic() < deadline:
            os.kill(pid, 0)
            time.sleep(0.2)
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
