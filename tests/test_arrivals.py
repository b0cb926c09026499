"""Scans that arrive, one good and one bad, through the real workflow with a bundle: what is left of either.

And the good one again, where no file can be locked.
"""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from beamseg.arrive import arrive
from beamseg.job import beyond_what_it_asked
from beamseg.provenance import read_json
from bundle_case import write_bundle
from workflow import BASEDIR, TINY, Workflow


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The working directory of the first call, and its exit status."""
    folder = tmp_path_factory.mktemp("arrivals")
    work = folder / "work"
    (work / "config").mkdir(parents=True)
    # The least budget there is, so that what jobs ask for is not far above what they take.
    config = {"samples": "config/samples.tsv", "slab_depth": 8, "device": "cpu", "mem_budget_mb": 256}
    (work / "config" / "config.yaml").write_text(yaml.safe_dump(config))
    scans = folder / "scans"
    scans.mkdir()
    # The bundle's grey levels are 0 … 100; one scan reaches far beyond.
    np.save(scans / "good.npy", np.random.default_rng(0).uniform(0, 140, (16, 48, 48)).astype(np.float32))
    np.save(scans / "blank.npy", np.full((16, 48, 48), 7, np.float32))
    return work, arrive(scans, work, BASEDIR, bundle=write_bundle(folder), settle_s=0, cores="2")


def test_one_bad_scan_does_not_stop_the_other(work: tuple[Path, int]) -> None:
    folder, status = work
    assert status == 1
    with open(folder / "results" / "summary.csv", newline="") as file:
        rows = {row["sample"]: row for row in csv.DictReader(file)}
    assert rows["good"]["state"] == "done"
    assert (rows["blank"]["stage"], rows["blank"]["state"]) == ("ingest", "failed")
    assert "blank.npy" in rows["blank"]["cause"]
    results = folder / "results" / "good"
    assert read_json(results / "labels.json")["shape"] == [16, 48, 48]
    assert len(list((results / "labels").iterdir())) == 16
    assert not (folder / "results" / "groups" / "good" / "train.csv").exists()


@pytest.fixture(scope="module")
def without_locks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of processes whose locks are refused, those of HDF5's library too.

    What this process, which has imported beamseg, tells HDF5 of locks is left out: jobs have to say it themselves.
    """
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    made = tmp_path_factory.mktemp("no_locks") / "no_locks.so"
    command = ["cc", "-shared", "-fPIC", "-o", str(made), str(Path(__file__).with_name("no_locks.c")), "-ldl"]
    subprocess.run(command, check=True)
    ours = {name: value for name, value in os.environ.items() if name != "HDF5_USE_FILE_LOCKING"}
    return {**ours, "LD_PRELOAD": str(made)}


REFUSED = """
import errno, fcntl, h5py, sys
for lock in (fcntl.flock, fcntl.lockf):
    with open(sys.argv[1], "w") as file:
        try:
            lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            assert error.errno == errno.ENOLCK
            print("refused")
try:
    h5py.File(sys.argv[1] + ".h5", "w", locking=True)
except OSError as error:
    print("No locks available" in str(error))
"""


@pytest.mark.slow
def test_where_locks_are_refused_a_scan_arrives_to_the_same_labels(
    work: tuple[Path, int], without_locks: dict[str, str], tmp_path: Path
) -> None:
    command = [sys.executable, "-c", REFUSED, str(tmp_path / "file")]
    told = subprocess.run(command, env=without_locks, capture_output=True, text=True, check=True).stdout
    assert told.split() == ["refused", "refused", "True"]
    again = tmp_path / "work"
    shutil.copytree(work[0] / "config", again / "config", ignore=shutil.ignore_patterns("samples*"))
    (tmp_path / "scans").mkdir()
    shutil.copy(work[0].parent / "scans" / "good.npy", tmp_path / "scans")
    bundle = str(work[0].parent / "bundle")
    command = [sys.executable, "-m", "beamseg.cli", "--directory", str(again), "arrive", str(tmp_path / "scans")]
    command += ["--bundle", bundle, "--settle", "0", "--cores", "2"]
    done = subprocess.run(command, env=without_locks, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found, wanted = (read_json(folder / "results" / "good" / "labels.json")["digest"] for folder in (again, work[0]))
    assert found == wanted
    assert not list(again.glob(".beamseg-arrive.claim*"))


@pytest.mark.slow
def test_where_locks_are_refused_all_stages_leave_the_same_arrays(
    without_locks: dict[str, str], tmp_path: Path
) -> None:
    config = {**TINY, "refine": ["mpp", "scm"], "keep": "all"}
    taken, refused = (Workflow(tmp_path / name, config) for name in ("taken", "refused"))
    taken.run()
    done = subprocess.run(refused.command(), env=without_locks, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert refused.digests() == taken.digests()


def test_drift_is_told_wherever_one_looks(work: tuple[Path, int]) -> None:
    folder, _ = work
    with open(folder / "results" / "summary.csv", newline="") as file:
        (row,) = (row for row in csv.DictReader(file) if row["sample"] == "good")
    page = (folder / "results" / "index.html").read_text()
    report = (folder / "results" / "good" / "report.html").read_text()
    (warning,) = read_json(folder / "results" / "good" / "compare.json")["warnings"][:1]
    assert "grey levels" in warning
    assert "Do not use this as it is" in report
    assert "Do not use this as it is" in page
    assert "grey levels" in row["warnings"]


def test_no_job_took_more_memory_or_time_than_it_asked_for(work: tuple[Path, int]) -> None:
    folder, _ = work
    records = [read_json(path) for path in (folder / "logs").rglob("*.log.json")]
    asked = {entry["stage"]: entry["mem_mb"] for entry in records if entry["mem_mb"] and entry["runtime"]}
    assert {"ingest", "histogram", "segment", "refine_mpp", "evaluate", "report", "export"} <= asked.keys()
    assert min(asked.values()) == 2512
    assert [told for entry in records for told in beyond_what_it_asked(entry)] == []


def test_a_job_that_took_more_says_what_to_set() -> None:
    entry = {"stage": "segment", "mem_mb": 1000, "max_rss_mb": 1200, "runtime": 60, "seconds": 3500.0}
    (told,) = beyond_what_it_asked(entry)
    assert "segment took 1200 MB of memory and had asked for 1000" in told
    assert "`set-resources: segment: mem_mb: 1500`" in told
    (told,) = beyond_what_it_asked(entry | {"mem_mb": None, "seconds": 3601.0})
    assert "segment took 61 minutes and had asked for 60" in told
    assert "`set-resources: segment: runtime: 77`" in told
    assert beyond_what_it_asked(entry | {"mem_mb": None}) == []
