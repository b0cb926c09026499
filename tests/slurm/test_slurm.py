"""The workflow on a private Slurm: what jobs ask for, and four ways to be interrupted."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from cluster import Cluster, missing, wait_until

from beamseg.job import alive
from beamseg.provenance import read_json
from test_interrupts import (
    GROUP,
    STAGES,
    beamseg,
    contents,
    files_of,
    leftovers,
    record_of,
    remove,
    small,
    start,
    wait_for,
)
from workflow import PROFILES, Workflow, jobs_of

pytestmark = [pytest.mark.slurm, pytest.mark.skipif(missing() is not None, reason=f"no private Slurm: {missing()}")]
GPU_RULES = {"train", "self_correct", "segment", "train_scm", "refine_scm"}


class OnSlurm(Workflow):
    """The slurm profile, with what a cluster without accounting and an impatient test need."""

    options = (
        *("--workflow-profile", str(PROFILES / "slurm"), "--slurm-no-account", "--slurm-status-command", "squeue"),
        *("--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "10", "--max-threads", "2"),
    )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("slurm") / "root") as running:
        yield running


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    """An undisturbed run without Slurm."""
    workflow = Workflow(tmp_path_factory.mktemp("done"), {**small(), "device": "auto"})
    workflow.run()
    return workflow


@pytest.fixture
def copied(done: Workflow, tmp_path: Path) -> OnSlurm:
    shutil.copytree(done.folder, tmp_path / "copy")
    return OnSlurm(tmp_path / "copy", done.config)


def output_of(workflow: Workflow) -> str:
    return (workflow.folder / "output.txt").read_text()


def gpus_asked(cluster: Cluster, folder: Path) -> dict[str, set[str]]:
    """What the Slurm jobs of each rule asked of GPUs, for the job or per node; empty text for none."""
    asked: dict[str, set[str]] = {}
    for fields in cluster.jobs(folder).values():
        rule = fields["Comment"].removeprefix("rule_").partition("_wildcards")[0]
        words = fields.get("TresPerJob", "") + fields.get("TresPerNode", "")
        asked.setdefault(rule, set()).add(words.replace("gres:", "gres/"))  # as of Slurm 22
    return asked


@pytest.mark.slow
def test_every_rule_gets_the_gpus_that_it_declares(cluster: Cluster, done: Workflow, tmp_path: Path) -> None:
    workflow = OnSlurm(tmp_path, done.config)
    workflow.run()
    assert contents(workflow) == contents(done)
    rules = {stage.removesuffix("_stage2").removesuffix("_stage3") for stage in STAGES} | {"methods", "record"}
    assert gpus_asked(cluster, tmp_path) == {rule: {"gres/gpu:1" if rule in GPU_RULES else ""} for rule in rules}


def test_a_rule_without_gpu_gets_none(cluster: Cluster, done: Workflow, copied: OnSlurm) -> None:
    """Beside the training below, which gets one: what the whole workflow shows of all rules, in a minute."""
    remove(copied, ["export"])
    copied.run(STAGES["export"][0][0])
    assert gpus_asked(cluster, copied.folder) == {"export": {""}}
    assert contents(copied) == contents(done)


def test_the_profile_alone_names_gpu_models_gres_and_several_gpus(
    cluster: Cluster, done: Workflow, copied: OnSlurm
) -> None:
    """A `gres` in place of `gpu`, and a model of GPU for a training on two, which no PyTorch can use here."""
    profile = yaml.safe_load((PROFILES / "slurm" / "config.yaml").read_text())
    profile["set-resources"] = {"segment": {"gpu": 0, "gres": "'gpu:fake:1'"}, "train": {"gpu_model": "fake"}}
    own = copied.folder / "profile"
    own.mkdir()
    (own / "config.yaml").write_text(yaml.safe_dump(profile))
    copied.options = tuple(str(own) if word == str(PROFILES / "slurm") else word for word in OnSlurm.options)
    remove(copied, ["segment_stage2"])
    copied.run(STAGES["segment_stage2"][0][0])
    assert contents(copied) == contents(done)
    copied.write({**copied.config, "gpus": 2})
    remove(copied, ["train"])
    copied.run("--retries", "0", STAGES["train"][0][0], fails=True)
    assert gpus_asked(cluster, copied.folder) == {"segment": {"gres/gpu:fake:1"}, "train": {"gres/gpu:fake:2"}}
    log = (copied.folder / "logs" / "groups" / "a" / "train.log").read_text()
    assert "2, and no GPU that PyTorch can use" in log


def interrupted(stage: str, workflow: OnSlurm) -> tuple[subprocess.Popen[bytes], dict]:
    """Run a stage anew; Snakemake and the record of the job, which stands still in the middle of its work."""
    remove(workflow, [stage])
    snakemake = start(workflow, STAGES[stage][0][0])
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
    snakemake, entry = interrupted("train", copied)
    node = cluster.jobs()[entry["slurm_job"]]["NodeList"]
    try:
        cluster.lose_node(node)
        assert (copied.folder / GROUP / ".stage2.resume.pt").exists()
        assert snakemake.wait(400) == 0, output_of(copied)
    finally:
        cluster.start_node(node)
    wait_until(lambda: cluster.states()[node] == "idle", f"{node} comes back")
    assert gpus_asked(cluster, copied.folder) == {"train": {"gres/gpu:1"}}
    again = read_json(record_of("train", copied))
    assert cluster.jobs()[again["slurm_job"]]["NodeList"] != node
    ended_as_if_undisturbed("train", copied, done, jobs_of(output_of(copied)))


def test_near_its_time_limit_a_training_saves_its_state_and_goes_on(
    cluster: Cluster, done: Workflow, copied: OnSlurm
) -> None:
    """What Slurm sends two minutes before the limit reaches the script: the step's processes get SIGTERM."""
    # Long enough for a line of progress, and no state but the one that the signal asks for.
    config = {**copied.config, "train": {**copied.config["train"], "steps": 300, "checkpoint_s": 3600}}
    copied.write(config)
    remove(copied, ["train"])
    target, log = STAGES["train"][0][0], copied.folder / "logs" / "groups" / "a" / "train.log"
    log.unlink()
    begin = time.monotonic()
    snakemake = start(copied, target)
    wait_until(lambda: log.exists() and " steps (" in log.read_text(), "the training is at work", 300)
    entry = read_json(record_of("train", copied))
    os.kill(entry["pid"], signal.SIGSTOP)
    state = copied.folder / GROUP / ".stage2.resume.pt"
    assert not state.exists()
    # Whole minutes from the start of the job; between two and three are left.
    limit = math.ceil((time.monotonic() - begin) / 60) + 2
    subprocess.run(["scontrol", "update", f"JobId={entry['slurm_job']}", f"TimeLimit={limit}"], check=True)
    # Slurm may wake a stopped process together with the signal; else it is woken here.
    wait_until(lambda: not alive(entry) or is_told_to_end(entry["pid"]), "the signal before the limit", 150)
    if alive(entry):
        os.kill(entry["pid"], signal.SIGCONT)
    wait_until(lambda: not alive(entry), "the job ends", 60)
    assert cluster.jobs(copied.folder)[entry["slurm_job"]]["JobState"] != "TIMEOUT"
    assert state.exists()
    assert not (copied.folder / target).exists()
    assert snakemake.wait(400) == 0, output_of(copied)
    weights = (copied.folder / target).read_bytes()
    remove(copied, ["train"])
    Workflow(copied.folder, config).run(target)
    assert (copied.folder / target).read_bytes() == weights


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
