"""The workflow on a private Slurm: what jobs ask for and are given, scans that arrive, and ways to be interrupted."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from cluster import Cluster, locked, missing, shared, wait_until

from beamseg.job import alive
from beamseg.provenance import read_json
from test_interrupts import (
    GROUP,
    STAGES,
    beamseg,
    contents,
    files_of,
    finished,
    leftovers,
    marks,
    record_of,
    remove,
    small,
    start,
    wait_for,
)
from workflow import PROFILES, Workflow, jobs_of

REQUIRED = os.environ.get("BEAMSEG_SLURM") == "required"
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(missing() is not None and not REQUIRED, reason=f"no private Slurm: {missing()}"),
]
GPU_RULES = {"train", "self_correct", "segment", "train_scm", "refine_scm"}
ONE = ("gpu:1", "gpu:fake:1")
"""What a rule with a GPU asks Slurm for, and what it is given: a GPU of whatever model, which the node's has."""
NONE = ("", "")


class OnSlurm(Workflow):
    """The slurm profile, with what a cluster without accounting and an impatient test need."""

    def __init__(self, folder: Path, config: dict[str, Any], table: str, **changes: Any) -> None:
        super().__init__(folder, config, table)
        self.options = ("--workflow-profile", str(profile_in(folder / "profile", **changes)))
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Start Snakemake."""
        self.started.append(start(self, *arguments))
        return self.started[-1]


def profile_in(folder: Path, **changes: Any) -> Path:
    """The slurm profile with what differs here, and with other changes."""
    profile = yaml.safe_load((PROFILES / "slurm" / "config.yaml").read_text())
    profile |= {"slurm-status-command": "squeue", "slurm-init-seconds-before-status-checks": 2}
    profile |= {"latency-wait": 10, "max-threads": 2}
    for key, value in changes.items():
        name = key.replace("_", "-")
        profile[name] = profile.get(name, {}) | value
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(profile))
    return folder


def base_of(factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of a test run share."""
    own = factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    assert missing() is None, f"no private Slurm, which is required here: {missing()}"
    with shared(base_of(tmp_path_factory)) as running:
        yield running


def write_scan(path: Path) -> None:
    """Cubes of four grey levels, with noise."""
    rng = np.random.default_rng(0)
    cubes = rng.integers(0, 4, (4, 12, 12)).repeat(8, 0).repeat(8, 1).repeat(8, 2)
    path.parent.mkdir()
    np.save(path, (60 * cubes + rng.normal(0, 8, cubes.shape)).astype(np.float32))


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """An undisturbed run without Slurm, by the first that asks for it."""
    base = base_of(tmp_path_factory)
    with locked(base / "done.lock"):
        new = not (base / "done").exists()
        if new:
            write_scan(base / "scans" / "a.npy")
        workflow = Workflow(base / "done", {**small(), "device": "auto"}, f"sample\tpath\na\t{base}/scans/a.npy\n")
        if new:
            workflow.run()
    return workflow


@pytest.fixture
def copied(cluster: Cluster, done: Workflow, tmp_path: Path) -> Iterator[OnSlurm]:
    shutil.copytree(done.folder, tmp_path / "copy")
    workflow = OnSlurm(tmp_path / "copy", done.config, (done.folder / "config" / "samples.tsv").read_text())
    yield workflow
    end(workflow, cluster)


def end(workflow: OnSlurm, cluster: Cluster) -> None:
    """Nothing goes on after a test that failed."""
    for snakemake in workflow.started:
        snakemake.kill()
        snakemake.wait()
    cluster.cancel(workflow.folder)


def output_of(workflow: Workflow) -> str:
    return (workflow.folder / "output.txt").read_text()


def rule_of(fields: dict[str, str]) -> str:
    return fields["Comment"].removeprefix("rule_").partition("_wildcards")[0]


def each_rule_s(cluster: Cluster, folder: Path, *keys: str) -> dict[str, set[tuple[str, ...]]]:
    """What `scontrol` tells of the Slurm jobs of each rule."""
    found: dict[str, set[tuple[str, ...]]] = {}
    for fields in cluster.jobs(folder).values():
        found.setdefault(rule_of(fields), set()).add(tuple(fields.get(key, "") for key in keys))
    return found


def gpus_of(cluster: Cluster, folder: Path) -> dict[str, set[tuple[str, str]]]:
    """GPUs that the jobs of each rule asked for, for the job or per node, and those that Slurm allocated to them."""
    found = each_rule_s(cluster, folder, "TresPerJob", "TresPerNode", "JOB_GRES")
    return {
        rule: {
            ((job + node).replace("gres:", "").replace("gres/", ""), given.replace("(null)", ""))
            for job, node, given in jobs
        }
        for rule, jobs in found.items()
    }


def gpus_seen(pid: int) -> str | None:
    """The GPUs that a process has been given, by its environment."""
    words = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(word.split("=", 1) for word in words if "=" in word).get("CUDA_VISIBLE_DEVICES")


@pytest.mark.slow
def test_scans_that_arrive_are_run_on_slurm_each_rule_with_the_gpus_that_it_declares(
    cluster: Cluster, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The whole workflow, of a scan that arrives beside a bad one: as if it had been run alone and without Slurm."""
    write_scan(tmp_path / "scans" / "a.npy")
    np.save(tmp_path / "scans" / "blank.npy", np.full((16, 48, 48), 7, np.float32))
    work = OnSlurm(tmp_path / "work", {**small(), "device": "auto"}, "sample\tpath\n")
    command = ["arrive", str(tmp_path / "scans"), "--profile", str(work.folder / "profile"), "--settle", "0"]
    try:
        arrived = beamseg(work, *command)
    finally:
        end(work, cluster)
    assert arrived.returncode == 1, arrived.stdout + arrived.stderr
    with open(work.folder / "results" / "summary.csv", newline="") as file:
        rows = {row["sample"]: row for row in csv.DictReader(file)}
    assert rows.keys() == {"a", "blank"}
    assert rows["a"]["state"] == "done"
    assert (rows["blank"]["stage"], rows["blank"]["state"]) == ("ingest", "failed")
    assert "blank.npy" in rows["blank"]["cause"]

    rules = {stage.removesuffix("_stage2").removesuffix("_stage3") for stage in STAGES} | {"methods", "record"}
    expected = {rule: {ONE if rule in GPU_RULES else NONE} for rule in rules - {"simulate"}}
    assert gpus_of(cluster, work.folder) == expected
    told = each_rule_s(cluster, work.folder, "Partition", "Account")
    assert told == {rule: {("all", "(null)")} for rule in expected}

    before = finished(work)
    again = beamseg(work, *command)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "nothing new" in again.stdout
    assert marks(before) == before
    # Last, since another test may have begun it meanwhile.
    alone = {name: digest for name, digest in contents(work).items() if "groups/blank/" not in name}
    assert alone == contents(request.getfixturevalue("done"))


def test_the_profile_alone_names_account_partitions_gpu_models_gres_and_several_gpus(
    cluster: Cluster, done: Workflow, copied: OnSlurm
) -> None:
    """A `gres` in place of `gpu`, and a model for a training on two GPUs, which no PyTorch can use here."""
    own = {"segment": {"gpu": 0, "gres": "'gpu:fake:1'", "slurm_partition": "named"}, "train": {"gpu_model": "fake"}}
    profile = profile_in(copied.folder / "own", default_resources={"slurm_account": "p1234"}, set_resources=own)
    copied.options = ("--workflow-profile", str(profile))
    for stage in ("segment_stage2", "export"):
        remove(copied, [stage])
        copied.run(STAGES[stage][0][0])
    assert contents(copied) == contents(done)
    copied.write({**copied.config, "gpus": 2})
    remove(copied, ["train"])
    copied.run("--retries", "0", STAGES["train"][0][0], fails=True)
    assert gpus_of(cluster, copied.folder) == {
        "segment": {("gpu:fake:1", "gpu:fake:1")},
        "train": {("gpu:fake:2", "gpu:fake:2")},
        "export": {NONE},
    }
    told = each_rule_s(cluster, copied.folder, "Partition", "Account")
    assert told == {"segment": {("named", "p1234")}, "train": {("all", "p1234")}, "export": {("all", "p1234")}}
    log = (copied.folder / "logs" / "groups" / "a" / "train.log").read_text()
    assert "2, and no GPU that PyTorch can use" in log


def interrupted(stage: str, workflow: OnSlurm) -> tuple[subprocess.Popen[bytes], dict]:
    """Run a stage anew; Snakemake and the record of the job, which stands still in the middle of its work."""
    remove(workflow, [stage])
    snakemake = workflow.start(STAGES[stage][0][0])
    entry = wait_for(stage, workflow, snakemake)
    os.kill(entry["pid"], signal.SIGSTOP)
    return snakemake, entry


def ended_as_if_undisturbed(stage: str, workflow: OnSlurm, done: Workflow, rules: list[str]) -> None:
    """The arrays are those of the undisturbed run, nothing is left, and only these rules have run."""
    assert contents(workflow) == contents(done)
    assert leftovers(workflow) == []
    assert set(rules) == {stage.removesuffix("_stage2")}
    # Nothing else is out of date either.
    assert jobs_of(workflow.run("--dry-run", STAGES[stage][0][0])) == []


def test_a_cancelled_job_is_tried_again_and_keeps_its_slabs(cluster: Cluster, done: Workflow, copied: OnSlurm) -> None:
    snakemake, entry = interrupted("segment_stage2", copied)
    slabs = files_of(copied, "segment_stage2")
    subprocess.run(["scancel", entry["slurm_job"]], check=True)
    assert snakemake.wait(400) == 0, output_of(copied)
    assert "Trying to restart job" in output_of(copied)
    assert 0 < len(slabs) < 4
    assert slabs.items() <= files_of(copied, "segment_stage2").items()
    ended_as_if_undisturbed("segment_stage2", copied, done, jobs_of(output_of(copied)))


def test_a_lost_node_s_job_goes_on_from_its_state_on_another(cluster: Cluster, done: Workflow, copied: OnSlurm) -> None:
    profile = profile_in(copied.folder / "own", set_resources={"train": {"slurm_partition": "frail"}})
    copied.options = ("--workflow-profile", str(profile))
    snakemake, entry = interrupted("train", copied)
    node = cluster.jobs()[entry["slurm_job"]]["NodeList"]
    assert gpus_seen(entry["pid"]) == "0"
    try:
        cluster.lose_node(node)
        assert (copied.folder / GROUP / ".stage2.resume.pt").exists()
        assert snakemake.wait(400) == 0, output_of(copied)
    finally:
        cluster.start_node(node)
    wait_until(lambda: cluster.states()[node] == "idle", f"{node} comes back")
    assert gpus_of(cluster, copied.folder) == {"train": {ONE}}
    assert each_rule_s(cluster, copied.folder, "Partition") == {"train": {("frail",)}}
    again = read_json(record_of("train", copied))
    assert cluster.jobs()[again["slurm_job"]]["NodeList"] != node
    ended_as_if_undisturbed("train", copied, done, jobs_of(output_of(copied)))


def test_near_its_time_limit_a_training_saves_its_state_and_goes_on(
    cluster: Cluster, done: Workflow, copied: OnSlurm
) -> None:
    """What Slurm sends two minutes before the limit reaches the script: the step's processes get SIGTERM."""
    snakemake, entry = interrupted("train", copied)
    state = without_state(copied)
    # Whole minutes from the start of the job; between two and three are left.
    hours, minutes, _ = cluster.jobs()[entry["slurm_job"]]["RunTime"].split(":")
    limit = 60 * int(hours) + int(minutes) + 3
    subprocess.run(["scontrol", "update", f"JobId={entry['slurm_job']}", f"TimeLimit={limit}"], check=True)
    # Slurm may wake a stopped process together with the signal; else it is woken here.
    wait_until(lambda: not alive(entry) or is_told_to_end(entry["pid"]), "the signal before the limit", 150)
    if alive(entry):
        os.kill(entry["pid"], signal.SIGCONT)
    has_saved_its_state_and_ended(entry, state, copied)
    assert cluster.jobs(copied.folder)[entry["slurm_job"]]["JobState"] != "TIMEOUT"
    assert snakemake.wait(400) == 0, output_of(copied)
    ended_as_if_undisturbed("train", copied, done, jobs_of(output_of(copied)))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_sigterm_and_ctrl_c_end_snakemake_and_its_slurm_job_which_saves_its_state(
    number: signal.Signals, cluster: Cluster, done: Workflow, copied: OnSlurm
) -> None:
    """Also where its next look at the jobs is far."""
    usual = copied.options
    copied.options = (*usual, "--slurm-init-seconds-before-status-checks", "120")
    snakemake, entry = interrupted("train", copied)
    state = without_state(copied)
    if number == signal.SIGINT:
        os.killpg(snakemake.pid, number)  # a terminal tells the whole group
    else:
        snakemake.send_signal(number)
    assert snakemake.wait(30) != 0
    has_saved_its_state_and_ended(entry, state, copied)
    wait_until(lambda: not cluster.unfinished(copied.folder), "no job is left")
    assert each_rule_s(cluster, copied.folder, "JobState") == {"train": {("CANCELLED",)}}
    copied.options = usual
    # Not locked: the same command goes on, and from that state.
    ended_as_if_undisturbed("train", copied, done, copied.rules(STAGES["train"][0][0]))


def without_state(workflow: OnSlurm) -> Path:
    """Take the state from a training that stands still: one that is there later was saved on a signal."""
    state = workflow.folder / GROUP / ".stage2.resume.pt"
    state.unlink()
    return state


def has_saved_its_state_and_ended(entry: dict, state: Path, workflow: OnSlurm) -> None:
    wait_until(lambda: not alive(entry), "the job ends", 60)
    told = read_json(record_of("train", workflow))
    assert (told["pid"], told["state"], told["cause"]) == (entry["pid"], "failed", "stopped by a signal (143)")
    assert state.exists()
    assert not (workflow.folder / STAGES["train"][0][0]).exists()


def is_told_to_end(pid: int) -> bool:
    """Whether a stopped process has a SIGTERM that it has not yet heard."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return False
    masks = [int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd", "ShdPnd"))]
    return any(mask >> (signal.SIGTERM - 1) & 1 for mask in masks)


def test_a_job_may_fail_twice(cluster: Cluster, done: Workflow, copied: OnSlurm) -> None:
    snakemake, entry = interrupted("train_scm", copied)
    for _ in range(2):
        os.kill(entry["pid"], signal.SIGKILL)
        wait_until(lambda pid=entry["pid"]: not Path(f"/proc/{pid}").exists(), "the job ends")
        (copied.folder / GROUP / ".scm.resume.pt").unlink(missing_ok=True)
        killed = entry["pid"]
        while (entry := wait_for("train_scm", copied, snakemake))["pid"] == killed:
            assert snakemake.poll() is None, output_of(copied)
    assert snakemake.wait(400) == 0, output_of(copied)
    assert output_of(copied).count("Trying to restart job") == 2
    ended_as_if_undisturbed("train_scm", copied, done, jobs_of(output_of(copied)))


def test_recover_cancels_what_a_killed_snakemake_left_on_slurm(
    cluster: Cluster, done: Workflow, copied: OnSlurm
) -> None:
    snakemake, entry = interrupted("train", copied)
    snakemake.kill()
    snakemake.wait(10)
    assert "Directory cannot be locked" in copied.run(STAGES["train"][0][0], fails=True)
    recovered = beamseg(copied, "recover")
    assert recovered.returncode == 0, recovered.stdout + recovered.stderr
    assert not alive(entry)
    assert all(fields["JobState"] != "RUNNING" for fields in cluster.jobs(copied.folder).values())
    ended_as_if_undisturbed("train", copied, done, copied.rules(STAGES["train"][0][0]))
