"""Scans that arrive, one good and one bad, through the real workflow with a bundle: what is left of either."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import yaml

from beamseg.arrive import arrive
from beamseg.job import beyond_what_it_asked
from beamseg.provenance import read_json
from bundle_case import write_bundle
from workflow import BASEDIR


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
