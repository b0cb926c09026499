"""Jobs, and Snakemake itself, are killed in the middle of their work; the same command then ends as if nothing was."""

from __future__ import annotations

import asyncio
import base64
import copy
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

from beamseg.config import load_runs
from beamseg.job import alive, start_of
from beamseg.provenance import read_json, write_json
from beamseg.recover import end_at_once, end_process, recover
from beamseg.runs import Runs
from beamseg.summary import run_state
from workflow import BASEDIR, TINY, Workflow, environment

SLABS = ("normalize", "assign", "segment_stage2", "segment_stage3", "refine_mpp", "refine_scm")
GROUP, SCAN, PART = "results/groups/a", "results/a", "1-of-1.json"
# Of each stage: what it leaves, the target first, and what shows that it is in the middle of its work.
STAGES: dict[str, tuple[list[str], str]] = {
    "simulate": ([f"{SCAN}/phantom.h5", f"{SCAN}/phantom_truth.h5"], f"{SCAN}/.phantom.h5.*.tmp"),
    "ingest": ([f"{SCAN}/scan.json", f"{SCAN}/source.json", f"{SCAN}/.ingest.json"], ""),
    "histogram": ([f"{SCAN}/histogram.npz"], ""),
    "plan": ([f"{GROUP}/plan.json"], ""),
    "normalize": ([f"{SCAN}/normalize/{PART}", f"{SCAN}/normalize"], f"{SCAN}/normalize/slab_000000.h5"),
    "pseudo_label": ([f"{GROUP}/classes.json", f"{GROUP}/table.npy"], ""),
    "assign": ([f"{SCAN}/assign/{PART}", f"{SCAN}/assign"], f"{SCAN}/assign/slab_000000.h5"),
    "train": ([f"{GROUP}/stage2.safetensors", f"{GROUP}/train.csv"], f"{GROUP}/.stage2.resume.pt"),
    "self_correct": (
        [f"{GROUP}/stage3.safetensors", f"{GROUP}/self_correct.csv", f"{GROUP}/verdict.json"],
        f"{GROUP}/.stage3.resume.pt",
    ),
    "segment_stage2": (
        [f"{SCAN}/segment/stage2/{PART}", f"{SCAN}/segment/stage2"],
        f"{SCAN}/segment/stage2/slab_000000.h5",
    ),
    "segment_stage3": (
        [f"{SCAN}/segment/stage3/{PART}", f"{SCAN}/segment/stage3"],
        f"{SCAN}/segment/stage3/slab_000000.h5",
    ),
    "refine_mpp": ([f"{SCAN}/refine_mpp/{PART}", f"{SCAN}/refine_mpp"], f"{SCAN}/refine_mpp/slab_000000.h5"),
    "train_scm": ([f"{GROUP}/scm.safetensors", f"{GROUP}/train_scm.csv"], f"{GROUP}/.scm.resume.pt"),
    "refine_scm": ([f"{SCAN}/refine_scm/{PART}", f"{SCAN}/refine_scm"], f"{SCAN}/refine_scm/slab_000000.h5"),
    "bundle": ([f"{GROUP}/bundle/bundle.json", f"{GROUP}/bundle"], ""),
    "evaluate": ([f"{SCAN}/metrics.json", f"{SCAN}/metrics.csv", f"{SCAN}/truth_slices.npz"], ""),
    "report": ([f"{SCAN}/report.html", f"{SCAN}/figures"], f"{SCAN}/figures/*.png"),
    "export": ([f"{SCAN}/labels.json", f"{SCAN}/labels"], f"{SCAN}/labels/z_000003.tif"),
}
# With what is written about the stages, in an order in which none comes before what it reads.
EVERY = STAGES | {"record": ([f"{SCAN}/provenance.json"], ""), "methods": ([f"{GROUP}/methods.md"], "")}


def small() -> dict:
    """Four slabs, clusters of each slab, a saved state after every step, and a cache that stays."""
    config = copy.deepcopy(TINY)
    config["pseudo_label"] = {"scope": "slab"}
    config |= {"keep": "all", "slab_depth": 8, "device": "cpu", "model": {"n_slices": 3}}
    config["train"] |= {"checkpoint_s": 0, "steps": 6}
    config["self_correct"] = {"steps": 4, "batch": 2, "checkpoint_s": 0, "watch": {"crops": 4}}
    config["refine_scm"] |= {"steps": 12, "batch": 2, "crop": 32, "checkpoint_s": 0}
    return config


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """An undisturbed run."""
    workflow = Workflow(tmp_path_factory.mktemp("done"), small())
    workflow.run()
    return workflow


@pytest.fixture
def copied(done, tmp_path):
    shutil.copytree(done.folder, tmp_path / "copy")
    return Workflow(tmp_path / "copy", small())


def arrays_digest(path: Path) -> str:
    """Digest of all arrays of an HDF5 file."""
    content = hashlib.sha256()
    with h5py.File(path) as file:
        file.visititems(
            lambda _, item: content.update(np.asarray(item[()]).tobytes()) if hasattr(item, "dtype") else None
        )
    return content.hexdigest()


def contents(workflow: Workflow) -> dict[str, str]:
    """Digest of every result that no clock enters, by file; of HDF5 files, of their arrays."""
    found = {}
    for path in sorted((workflow.folder / "results").rglob("*")):
        name = path.relative_to(workflow.folder).as_posix()
        if path.suffix in (".json", ".npy", ".npz", ".safetensors", ".tif") and path.name not in (
            "source.json",
            ".ingest.json",
        ):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        elif path.suffix == ".h5":
            found[name] = arrays_digest(path)
    return found


def leftovers(workflow: Workflow) -> list[str]:
    """Temporary files, resume states and room reserved for a cache."""
    return [
        path.name for pattern in (".*.tmp", ".*.resume.pt", "*.reserved") for path in workflow.folder.rglob(pattern)
    ]


def record_of(stage: str, workflow: Workflow) -> Path:
    who = "groups/a" if EVERY[stage][0][0].startswith(GROUP) else "a"
    below = {"segment_stage2": "segment/stage2", "segment_stage3": "segment/stage3"}.get(stage, stage)
    part = f"{below}/1-of-1" if stage in SLABS else below
    return workflow.folder / "logs" / who / f"{part}.log.json"


def remove(workflow: Workflow, stages: list[str]) -> None:
    """Take away what stages have left, and their records."""
    for stage in stages:
        for name in EVERY[stage][0]:
            path = workflow.folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        record_of(stage, workflow).unlink(missing_ok=True)


def start(workflow: Workflow, *arguments: str) -> subprocess.Popen:
    """Snakemake as a terminal starts it: in a process group of its own, which hears Ctrl-C."""
    with open(workflow.folder / "output.txt", "w") as output:
        return subprocess.Popen(
            workflow.command(*arguments),
            stdout=output,
            stderr=output,
            env=environment(),
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )


def wait_for(stage: str, workflow: Workflow, snakemake: subprocess.Popen) -> dict:
    """The record of the job of a stage, as soon as the job is in the middle of its work (or already at its end)."""
    path, sign = record_of(stage, workflow), EVERY[stage][1]
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline and snakemake.poll() is None:
        if path.exists() and (not sign or any(workflow.folder.glob(sign))):
            entry = read_json(path)
            if entry["state"] in ("running", "done"):
                return entry
        time.sleep(0.001)
    raise AssertionError((workflow.folder / "output.txt").read_text()[-3000:])


def kill_in_the_middle(stage: str, workflow: Workflow, target: str) -> bool:
    """Run a stage anew and kill its job; whether the job had not already ended."""
    remove(workflow, [stage])
    snakemake = start(workflow, target)
    entry = wait_for(stage, workflow, snakemake)
    if alive(entry):
        os.kill(entry["pid"], signal.SIGKILL)
    return snakemake.wait(60) != 0


def files_of(workflow: Workflow, stage: str) -> dict[Path, tuple[int, int]]:
    """Inode and time of the slab files of a stage."""
    folder = (workflow.folder / STAGES[stage][0][0]).parent
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.glob("slab_*.h5")}


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_job_is_named_and_the_same_command_ends_as_if_undisturbed(stage, done, copied):
    target = STAGES[stage][0][0]
    assert any(kill_in_the_middle(stage, copied, target) for _ in range(3))
    row = (copied.folder / "results" / "summary.csv").read_text().splitlines()[1]
    assert row.startswith(f"a,{stage},killed,")
    slabs = files_of(copied, stage) if stage in SLABS else {}
    assert len(slabs) < 4

    copied.run(target)
    assert contents(copied) == contents(done)
    assert copied.digests() == done.digests()
    assert leftovers(copied) == []
    assert slabs.items() <= (files_of(copied, stage) if stage in SLABS else {}).items()
    assert len(slabs) > 0 or stage not in SLABS


def beamseg(workflow: Workflow, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "beamseg.cli", "--directory", str(workflow.folder), *arguments]
    env = {**environment(), "PYTHONPATH": str(BASEDIR / "scripts")}
    return subprocess.run(command, capture_output=True, text=True, env=env)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["train", "ingest"])
def test_a_killed_snakemake_is_recovered_from(stage, done, copied):
    remove(copied, [stage, "report"] if stage == "ingest" else list(STAGES)[list(STAGES).index(stage) :])
    snakemake = start(copied)
    entry = wait_for(stage, copied, snakemake)
    os.kill(entry["pid"], signal.SIGSTOP)  # so that it is still there for what follows
    snakemake.kill()
    snakemake.wait(10)

    # Without recovery: Snakemake refuses, and after an unlock by hand the second job does.
    assert "Directory cannot be locked" in copied.run(fails=True)
    copied.run("--unlock")
    assert "left by an earlier Snakemake, is still at this" in copied.run(fails=True)
    assert alive(entry)

    recovered = beamseg(copied, "recover")
    assert recovered.returncode == 0, recovered.stdout + recovered.stderr
    assert f"ended process {entry['pid']}: {stage} of a" in recovered.stdout
    assert not alive(entry)
    assert snakemake.wait(10) != 0

    copied.run()
    assert contents(copied) == contents(done)
    assert leftovers(copied) == []
    assert (copied.folder / "results" / "summary.csv").read_text().splitlines()[1].startswith("a,record,done")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_save_the_training_and_say_so(number, done, copied):
    remove(copied, ["train"])
    target = STAGES["train"][0][0]
    snakemake = start(copied, target)
    entry = wait_for("train", copied, snakemake)
    if number == signal.SIGINT:
        os.killpg(snakemake.pid, number)  # a terminal tells the whole group
    else:
        snakemake.send_signal(number)
    assert snakemake.wait(60) != 0
    assert (copied.folder / GROUP / ".stage2.resume.pt").exists()
    assert not alive(entry)
    entry = read_json(record_of("train", copied))
    assert (entry["state"], entry["cause"]) == ("failed", "stopped by a signal (143)")
    copied.run(target)
    assert contents(copied) == contents(done)


def finished(workflow: Workflow) -> dict[Path, tuple[int, int]]:
    """Inode and time of every file that finished jobs have left, and of every slab, its job finished or not."""
    found = set((workflow.folder / "results").rglob("slab_*.h5"))
    for record in (workflow.folder / "logs").rglob("*.log.json"):
        if (entry := read_json(record))["state"] == "done":
            for path in (workflow.folder / name for name in entry["outputs"]):
                found |= {path, *path.rglob("*")}
    return marks(found)


def marks(paths: Iterable[Path]) -> dict[Path, tuple[int, int]]:
    """Inode and time of those that are files: a file written again has others."""
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in paths if path.is_file()}


def apart_from(found: dict[Path, tuple[int, int]], outputs: set[Path]) -> dict[Path, tuple[int, int]]:
    return {path: mark for path, mark in found.items() if not outputs & {path, *path.parents}}


def unregistered(workflow: Workflow) -> set[Path]:
    """Outputs of jobs whose end Snakemake has not seen; it makes them again."""
    marked = (workflow.folder / ".snakemake" / "incomplete").rglob("*")
    return {workflow.folder / base64.urlsafe_b64decode(path.name).decode() for path in marked if path.is_file()}


def killed_at(
    stage: str, what: str, workflow: Workflow, before: dict[Path, tuple[int, int]], *arguments: str
) -> dict[Path, tuple[int, int]]:
    """Go on, kill the job of a stage or Snakemake itself while that job is at work, and recover.

    `before` and what is returned are what was finished at the last kill and at this one. Raises AssertionError if
    anything of it was made again.
    """
    for _ in range(5):  # a short job may end in the moment in which it is found
        order, path = list(EVERY), record_of(stage, workflow)
        if path.exists() and read_json(path)["state"] == "done":
            # What later stages have left too: Snakemake asks for no file between two that are there.
            remove(workflow, order[order.index(stage) :])
            later = {workflow.folder / name for each in order[order.index(stage) :] for name in EVERY[each][0]}
            before = apart_from(before, later)
        path.unlink(missing_ok=True)
        snakemake = start(workflow, *arguments)
        entry = wait_for(stage, workflow, snakemake)
        now = finished(workflow)
        hit = entry["state"] == "running" and alive(entry)
        if hit and what == "a job":
            os.kill(entry["pid"], signal.SIGKILL)
            hit = snakemake.wait(600) != 0
        else:
            snakemake.kill()
            assert beamseg(workflow, "recover").returncode == 0
            snakemake.wait(60)
        assert before.items() <= marks(before).items(), (stage, what, before.items() - marks(before).items())
        before = apart_from(now, unregistered(workflow))
        if hit:
            return before
    raise AssertionError(f"{stage} never was at work")


def test_three_kills_in_a_row_and_nothing_finished_is_computed_again(tmp_path):
    """A short job, Snakemake itself between two slabs, and a training, on the way to the weights of stage 2."""
    workflow, target = Workflow(tmp_path, small()), STAGES["train"][0][0]
    before: dict[Path, tuple[int, int]] = {}
    for stage, what in (("plan", "a job"), ("assign", "snakemake"), ("train", "a job")):
        before = killed_at(stage, what, workflow, before, target)
    assert {"scan.json", "plan.json", "slab_000000.h5", "table.npy"} <= {path.name for path in before}
    workflow.run(target)
    assert before.items() <= marks(before).items()
    assert leftovers(workflow) == []
    found = contents(workflow)
    remove(workflow, ["train"])
    workflow.run(target)
    assert contents(workflow) == found
    # A cache that alone is made again does not end the run, though all its readers call it ancient.
    marker = base64.urlsafe_b64encode(STAGES["normalize"][0][0].encode()).decode()
    write_json(tmp_path / ".snakemake" / "incomplete" / marker, {"external_jobid": None})
    assert {"normalize", "segment", "report"} <= set(workflow.rules("-n"))


@pytest.mark.slow
def test_twenty_kills_through_the_whole_graph_and_nothing_finished_is_computed_again(done, tmp_path):
    """Each stage's job is at work once when it or Snakemake is killed; which, and in which of two runs, is drawn."""
    workflow, rng = Workflow(tmp_path, small()), np.random.default_rng(0)
    kinds = dict(zip(EVERY, map(str, rng.permutation(["a job", "snakemake"] * 10)), strict=True))
    drawn = set(map(str, rng.permutation(list(EVERY))[:10]))
    for run in (drawn, EVERY.keys() - drawn):
        for folder in ("results", "logs"):
            shutil.rmtree(workflow.folder / folder, ignore_errors=True)
        before: dict[Path, tuple[int, int]] = {}
        for stage in (stage for stage in EVERY if stage in run):
            before = killed_at(stage, kinds[stage], workflow, before)
        workflow.run()
        assert before.items() <= marks(before).items()
        assert contents(workflow) == contents(done)
        assert workflow.digests() == done.digests()
        assert leftovers(workflow) == []
    rules = {read_json(path)["stage"] for path in (workflow.folder / "logs").rglob("*.log.json")}
    assert rules == {stage.partition("_stage")[0] for stage in EVERY}


# What follows is quick, and needs no run.


@pytest.fixture
def bystander():
    """A process that is no job, though its command line speaks of snakemake."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", ".snakemake/scripts/train.py"])
    yield process
    process.kill()
    process.wait()


def entry_of(pid: int, **changes) -> dict:
    entry = {"stage": "train", "sample": "a", "state": "running", "log": "logs/groups/a/train.log", "outputs": []}
    here = {"code": "c", "pid": pid, "started": start_of(pid), "host": socket.gethostname(), "slurm_job": None}
    return {**entry, **here, **changes}


def test_a_process_that_took_a_job_s_number_is_left_alone(tmp_path, bystander, capfd):
    workflow = Workflow(tmp_path)
    write_json(tmp_path / "logs/groups/a/train.log.json", entry_of(bystander.pid, started="another boot 1"))
    assert recover(tmp_path, BASEDIR) == 0
    assert bystander.poll() is None
    assert "ended" not in capfd.readouterr().out
    runs = Runs(load_runs(workflow.folder, BASEDIR)[0])
    assert run_state(runs, "a", tmp_path / "results", tmp_path / "logs")["state"] == "killed"


def test_end_process_ends_the_process_of_that_start_only(bystander):
    assert end_process(bystander.pid, "another boot 1")
    assert bystander.poll() is None
    os.kill(bystander.pid, signal.SIGSTOP)
    assert end_process(bystander.pid, start_of(bystander.pid))
    assert bystander.wait(5) == -signal.SIGTERM


def test_a_job_that_has_no_record_yet_is_ended_and_that_of_another_directory_is_not(tmp_path, capfd):
    ours, others = tmp_path / "ours", tmp_path / "others"
    jobs = []
    for folder in (ours, others):
        script = folder / ".snakemake" / "scripts" / "tmp1.train.py"
        script.parent.mkdir(parents=True)
        script.write_text("import time; time.sleep(60)")
        jobs.append(subprocess.Popen([sys.executable, str(script)], cwd=folder))
    try:
        Workflow(ours)
        assert recover(ours, BASEDIR) == 0
        assert [job.poll() for job in jobs] == [-signal.SIGTERM, None]
        assert f"ended process {jobs[0].pid}: a job that had no record yet" in capfd.readouterr().out
    finally:
        for job in jobs:
            job.kill()
            job.wait()


def test_a_job_on_another_host_keeps_the_directory_locked(tmp_path, bystander, capfd):
    Workflow(tmp_path)
    write_json(tmp_path / "logs/groups/a/train.log.json", entry_of(bystander.pid, host="node7"))
    assert recover(tmp_path, BASEDIR) == 1
    assert "not unlocked: run `beamseg recover` on node7" in capfd.readouterr().out
    assert bystander.poll() is None


@pytest.mark.parametrize(("own", "cancelled"), [("8", True), ("7", False)])
def test_a_slurm_job_is_cancelled_and_waited_for_unless_it_is_our_own(tmp_path, monkeypatch, own, cancelled):
    for name, text in (("scancel", 'echo "$@" > "$0.called"'), ("squeue", "true")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", own)
    Workflow(tmp_path)
    write_json(tmp_path / "logs/groups/a/train.log.json", entry_of(1, host="node7", slurm_job="7"))
    assert recover(tmp_path, BASEDIR) == int(not cancelled)
    assert (tmp_path / "scancel.called").exists() == cancelled


def test_queued_slurm_jobs_are_cancelled_those_of_this_directory_alone(tmp_path, monkeypatch):
    """A killed Snakemake may have left jobs in the queue, which have no record; other jobs are none of our business."""
    queue = f"7|{tmp_path}|rule_train_wildcards_a\n8|/elsewhere|rule_train_wildcards_a\n9|{tmp_path}|(null)\n"
    (tmp_path / "queue").write_text(queue)
    texts = {
        "scancel": f'echo "$@" >> {tmp_path}/called',
        "squeue": f'case "$*" in *--me*) cat {tmp_path}/queue;; esac',
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    Workflow(tmp_path)
    assert recover(tmp_path, BASEDIR) == 0
    assert (tmp_path / "called").read_text() == "7\n"


class OfCluster(RemoteExecutor):
    """One job, a look at it that ends when it may, and a next look that is far."""

    next_seconds_between_status_checks = 1000.0
    run_job = None

    def __init__(self):
        self.active_jobs, self.lock, self.wait, self.cancelled = ["7"], threading.Lock(), True, []
        settings = SimpleNamespace(init_seconds_before_status_checks=0)
        self.workflow = SimpleNamespace(
            executor_plugin=SimpleNamespace(common_settings=settings),
            remote_execution_settings=SimpleNamespace(immediate_submit=True),
        )
        self.looking, self.seen = threading.Event(), threading.Event()
        self.wait_thread = threading.Thread(target=self._wait_thread, daemon=True)
        self.wait_thread.start()

    async def check_active_jobs(self, active_jobs):
        self.looking.set()
        while not self.seen.is_set():
            await asyncio.sleep(0.01)
        for job in active_jobs:
            yield job

    def cancel_jobs(self, active_jobs):
        self.cancelled += active_jobs


@pytest.mark.parametrize("during_a_look", [True, False])
def test_told_to_end_a_cluster_s_executor_cancels_its_jobs_and_waits_for_no_next_look(during_a_look):
    end_at_once(OfCluster)
    executor = OfCluster()
    assert executor.looking.wait(10)
    if during_a_look:
        threading.Timer(0.3, executor.seen.set).start()
    else:
        executor.seen.set()
        while not executor.active_jobs:
            time.sleep(0.01)
    ending = threading.Thread(target=executor.cancel, daemon=True)
    ending.start()
    ending.join(30)
    assert executor.cancelled == ["7"]
    assert not ending.is_alive()


def test_temporary_files_of_killed_writers_go_and_those_of_live_ones_stay(tmp_path, bystander):
    gone = subprocess.Popen(["true"])
    gone.wait()
    host = socket.gethostname()
    names = [
        f".x.json.{host}.{gone.pid}.tmp",
        f".x.json.{host}.{bystander.pid}.tmp",
        ".x.json.node7.5.tmp",
        ".y.node7.5.tmp",
    ]
    for name in [*names, ".note.tmp"]:
        (tmp_path / name).write_text("")
    os.utime(tmp_path / names[3], (0, 0))
    write_json(tmp_path / "x.json", 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*names[1:3], ".note.tmp", "x.json"])


def test_summary_leaves_out_records_that_the_configuration_no_longer_asks_for(tmp_path):
    workflow = Workflow(tmp_path, {**TINY, "parts": 2, "stage3": "none", "refine": ["mpp"]})
    runs = Runs(load_runs(workflow.folder, BASEDIR)[0])
    logs, results = tmp_path / "logs", tmp_path / "results"
    failed = {"state": "failed", "cause": "old", "remedy": "none"}
    for name in ("a/segment/stage2/1-of-3", "a/segment/stage3/1-of-2", "groups/a/self_correct", "a/refine_scm/1-of-2"):
        write_json(logs / f"{name}.log.json", entry_of(1, log=f"logs/{name}.log", **failed))
    for name in ("labels.json", "metrics.json", "report.html"):
        write_json(results / "a" / name, {})
    assert run_state(runs, "a", results, logs)["state"] == "done"
    name = "a/segment/stage2/2-of-2"
    write_json(logs / f"{name}.log.json", entry_of(1, log=f"logs/{name}.log", **failed))
    row = run_state(runs, "a", results, logs)
    assert (row["stage"], row["state"], row["cause"]) == ("segment_stage2", "failed", "old")


def test_summary_does_not_call_done_what_has_lost_its_output(tmp_path):
    """A job that dies before its first line of log leaves the record of the time before."""
    workflow = Workflow(tmp_path)
    runs = Runs(load_runs(workflow.folder, BASEDIR)[0])
    weights = "results/groups/a/stage2.safetensors"
    write_json(tmp_path / "logs/groups/a/train.log.json", entry_of(1, state="done", outputs=[weights]))
    for name in ("labels.json", "metrics.json", "report.html"):
        write_json(tmp_path / "results" / "a" / name, {})
    (tmp_path / weights).parent.mkdir(parents=True)
    row = run_state(runs, "a", tmp_path / "results", tmp_path / "logs")
    assert (row["stage"], row["state"]) == ("train", "not finished")
    assert re.match(f"{weights} is not there", row["cause"])
    write_json(tmp_path / weights, {})
    assert run_state(runs, "a", tmp_path / "results", tmp_path / "logs")["state"] == "done"
    # A folder that was archived as a whole has been finished.
    shutil.rmtree((tmp_path / weights).parent)
    assert run_state(runs, "a", tmp_path / "results", tmp_path / "logs")["state"] == "done"
