"""recover: after Snakemake was killed, end the jobs it left running and unlock the directory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from .ended import records
from .job import alive, start_of

GRACE_S = 20.0
NAP_S = 0.5
SLURM_GRACE_S = 120.0


def recover(workdir: Path, basedir: Path) -> int:
    """End what still runs here or on Slurm, and unlock; the same command then goes on.

    A Snakemake that is still there is told to end with its jobs. Jobs get SIGTERM, on which trainings save their
    state, and SIGKILL after 20 s. While a job on another host may still write, nothing is unlocked.

    Returns
    -------
    int
        Exit status: 0, or 1 if the directory stays locked.
    """
    schedulers, _ = processes_in(workdir)
    for pid, started in schedulers:
        _signal(pid, started, signal.SIGTERM)
        print(f"told snakemake, process {pid}, to stop")
    out_of_reach = [entry for entry in records(workdir / "logs") if entry["state"] == "running" and not _end(entry)]
    for entry in out_of_reach:
        print(f"may still run: {entry['stage']} of {entry['sample']}, process {entry['pid']} on {entry['host']}")
    for job in slurm_jobs_in(workdir):
        if _cancel(job):
            print(f"Slurm job {job} has ended: a job that had no record yet")
    for pid, started in processes_in(workdir)[1]:
        if end_process(pid, started):
            print(f"ended process {pid}: a job that had no record yet")
    for pid, started in schedulers:
        if not end_process(pid, started):
            print(f"not unlocked: snakemake, process {pid}, does not end")
            return 1
    if out_of_reach:
        hosts = ", ".join(sorted({entry["host"] for entry in out_of_reach}))
        print(f"not unlocked: run `beamseg recover` on {hosts}; if that is gone for good, `snakemake --unlock` here")
        return 1
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(basedir / "Snakefile"), "--unlock"]
    done = subprocess.run([*command, "--quiet", "all", "--cores", "1"], cwd=workdir, check=False)
    if done.returncode == 0:
        print("unlocked; start the same snakemake command again")
    return int(done.returncode != 0)


def end_with_jobs(*_: object) -> None:
    """Handler of Snakemake's SIGTERM: its jobs get it too, and trainings save their state; then all is as on Ctrl-C.

    By itself Snakemake would wait for its jobs, which for a training may be hours.

    Raises
    ------
    KeyboardInterrupt
        Always; on it Snakemake ends, and cancels what it has on a cluster.
    """
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    raise KeyboardInterrupt


def end_at_once(executor: Any) -> None:
    """Have Snakemake's class of a cluster's executors end at once, and leave no job that it does not cancel.

    By itself it would first sit out the time until its next look at the jobs, up to 3 min. And while it looks, its list
    of jobs is empty: told to end in that moment it would cancel none.
    """

    async def sleep(self: Any) -> None:
        deadline = time.monotonic() + self.next_seconds_between_status_checks
        while self.wait and (left := deadline - time.monotonic()) > 0:
            await asyncio.sleep(min(NAP_S, left))

    def cancel(self: Any) -> None:
        self.shutdown()
        self.cancel_jobs(list(self.active_jobs))

    executor.sleep, executor.cancel = sleep, cancel


def processes_in(workdir: Path) -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
    """Number and start of every Snakemake, and of every script it started, that works in a directory.

    Scripts are found without their records, since one that is still importing has none yet.
    """
    schedulers, scripts = [], []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
            here = (folder / "cwd").resolve(strict=True) == workdir.resolve()
        except OSError:
            continue
        pid, paths = int(folder.name), [Path(word) for word in words[:4]]
        if not here or pid == os.getpid() or (started := start_of(pid)) is None:
            continue
        if any(path.parent.parts[-2:] == (".snakemake", "scripts") for path in paths):
            scripts.append((pid, started))
        elif any(path.name == "snakemake" for path in paths):
            schedulers.append((pid, started))
    return schedulers, scripts


def _end(entry: dict[str, Any]) -> bool:
    """End the job of a record that says `running`; False if it may still run where this process cannot see it."""
    what = f"{entry['stage']} of {entry['sample']}"
    if entry["host"] == socket.gethostname():
        if not alive(entry):
            return True
        ended = end_process(entry["pid"], entry["started"])
        if ended:
            print(f"ended process {entry['pid']}: {what}")
        return ended
    job = entry.get("slurm_job")
    if not job or not _cancel(str(job)):
        return False
    print(f"Slurm job {job} has ended: {what}")
    return True


def slurm_jobs_in(workdir: Path) -> list[str]:
    """Numbers of the Slurm jobs that a Snakemake submitted from a directory: queued ones have no record yet."""
    if not shutil.which("squeue"):
        return []
    command = ["squeue", "--me", "--noheader", "--format=%i|%Z|%k"]
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    jobs = [line.split("|", 2) for line in lines if line.count("|") >= 2]
    here = str(workdir.resolve())
    return [job for job, folder, comment in jobs if folder == here and comment.startswith("rule_")]


def _cancel(job: str) -> bool:
    """Cancel a Slurm job and wait for its end; False if it may still run.

    The allocation that this process runs in is never cancelled.
    """
    if job == os.environ.get("SLURM_JOB_ID") or not shutil.which("scancel"):
        return False
    subprocess.run(["scancel", job], check=False, capture_output=True)
    deadline = time.monotonic() + SLURM_GRACE_S
    while time.monotonic() < deadline:
        queue = subprocess.run(["squeue", "--noheader", "--jobs", job], capture_output=True, text=True, check=False)
        # Slurm forgets ended jobs after a while, and then calls the number invalid.
        if not queue.stdout.strip() and (queue.returncode == 0 or "Invalid job id" in queue.stderr):
            return True
        time.sleep(2)
    return False


def end_process(pid: int, started: str) -> bool:
    """SIGTERM, then SIGKILL once the grace period is over; whether the process has ended.

    A process that has taken the number since is left alone.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + GRACE_S
        _signal(pid, started, number)
        while time.monotonic() < deadline:
            if start_of(pid) != started:
                return True
            time.sleep(0.1)
    return False


def _signal(pid: int, started: str, number: signal.Signals) -> None:
    if start_of(pid) == started:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)
            os.kill(pid, signal.SIGCONT)  # a suspended process hears no SIGTERM
