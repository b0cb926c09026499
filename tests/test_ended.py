"""What jobs record of the code that they ran, and what `code: frozen` keeps although that has changed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake.iocontainers import Namedlist, Params, Wildcards

from beamseg.code import SCRIPTS, code_digest, module_digests, script_of
from beamseg.ended import code_of, made_with, other_packages, stale_results, tracked_code
from beamseg.job import job
from beamseg.provenance import made_now, read_json, write_json

THEN = "0" * 16


def ran(rule: str, log: str, **wildcards: str) -> None:
    """A job of `code: frozen`, which Snakemake knows by the code of another version."""
    snakemake = SimpleNamespace(
        rule=rule,
        log=[log],
        wildcards=Wildcards(fromdict=wildcards),
        output=Namedlist(),
        params=Params(fromdict={"code": THEN, "settings": {"steps": 3}}),
        resources={"mem_mb": 100},
    )
    with job(snakemake):
        pass


def test_a_record_holds_the_code_that_ran_and_apart_from_it_what_snakemake_compares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ran("train", "logs/groups/g/train.log", group="g")
    assert tracked_code("train", "g") == THEN
    assert code_of("train", "g") == code_digest("train") != THEN
    ran("apply_scm", "logs/groups/g/apply/scm.log", group="g")
    assert read_json(Path("logs/groups/g/apply/scm.log.json"))["code"] == code_digest("apply")
    assert stale_results({"g"}) == []
    assert code_of("train", "h") is None
    assert tracked_code("train", "h") is None


def test_records_of_earlier_versions_tell_the_code_by_its_modules(tmp_path: Path) -> None:
    entry = {"stage": "train", "sample": "g", "state": "done", "code": THEN, "modules": module_digests("train")}
    write_json(tmp_path / "groups" / "g" / "train.log.json", entry)
    assert tracked_code("train", "g", tmp_path) == THEN
    assert code_of("train", "g", tmp_path) == code_digest("train")
    write_json(tmp_path / "groups" / "g" / "train.log.json", entry | {"modules": {}})
    assert code_of("train", "g", tmp_path) == THEN


def test_parts_by_different_versions_are_told_apart(tmp_path: Path) -> None:
    for part, then in (("1-of-3", "b" * 16), ("2-of-3", "c" * 16), ("3-of-3", "b" * 16)):
        entry = {"stage": "segment", "sample": "a", "state": "done", "code": then, "tracked": THEN}
        write_json(tmp_path / "a" / "segment" / "stage2" / f"{part}.log.json", entry)
    assert code_of("segment_stage2", "a", tmp_path) == f"{'b' * 16}, {'c' * 16}"
    assert tracked_code("segment_stage2", "a", tmp_path) == THEN


def test_what_jobs_ran_with_is_told_by_their_records(tmp_path: Path) -> None:
    assert made_with({"train": "g"}, tmp_path) is None
    for name, versions in (("train", {"torch": "2.1", "numpy": "1"}), ("self_correct", {"torch": "2.2", "numpy": "1"})):
        entry = {"stage": name, "sample": "g", "state": "done", "code": THEN, "commit": name[0] * 40}
        write_json(tmp_path / "groups" / "g" / f"{name}.log.json", entry | {"versions": versions})
    old = {"stage": "ingest", "sample": "a", "state": "done", "code": THEN}  # of an earlier version
    write_json(tmp_path / "a" / "ingest.log.json", old)
    assert made_with({"ingest": "a", "train": "g", "self_correct": "g"}, tmp_path) == {
        "commit": f"{'s' * 40}, {'t' * 40}",
        "versions": {"numpy": "1", "torch": "2.1, 2.2"},
    }


def finished(logs: Path) -> None:
    """Records of a finished folder, of an earlier state of every module."""
    stages = {"a/ingest": "ingest", "groups/g/apply/scm": "apply_scm", "a/segment/stage2/1-of-1": "segment"}
    for log, stage in stages.items():
        modules = module_digests(script_of(stage)) | {"beamseg/slabs.py": "other"}
        entry = {"stage": stage, "sample": "g" if "groups" in log else "a", "state": "done", "code": THEN}
        write_json(logs / f"{log}.log.json", entry | {"modules": modules})
    write_json(logs / "gone" / "ingest.log.json", {"stage": "ingest", "sample": "gone", "state": "done", "code": THEN})


def test_stale_results_are_those_of_the_runs_that_are_kept(tmp_path: Path) -> None:
    finished(tmp_path)
    why = "(changed: beamseg/slabs.py)"
    assert stale_results({"a", "g"}, tmp_path) == [f"ingest of a {why}", f"segment of a {why}", f"apply_scm of g {why}"]
    assert stale_results({"g"}, tmp_path) == [f"apply_scm of g {why}"]


def test_packages_of_other_versions_are_told_of_the_results_that_they_left(tmp_path: Path) -> None:
    now = made_now()["versions"]
    for who, torch in (("a", "1.0"), ("b", "1.0"), ("c", now["torch"]), ("gone", "0.9")):
        entry = {"stage": "train", "sample": who, "state": "done", "versions": now | {"torch": torch, "left": "3"}}
        write_json(tmp_path / who / "train.log.json", entry)
    write_json(tmp_path / "old" / "train.log.json", {"stage": "train", "sample": "old", "state": "done"})
    assert other_packages({"a", "b", "c", "old"}, tmp_path) == [f"torch 1.0, now {now['torch']} (a, b)"]


def test_of_300_scans_the_list_has_a_line_a_stage(tmp_path: Path) -> None:
    names = {f"scan_{number:03}" for number in range(300)}
    for name in names:
        entry = {"stage": "ingest", "sample": name, "state": "done", "code": THEN}
        write_json(tmp_path / name / "ingest.log.json", entry)
    (line,) = stale_results(names, tmp_path)
    assert line.startswith("ingest of scan_000, scan_001, ")
    assert f"scan_007 and 292 others (code {THEN}, now " in line


def test_the_list_comes_at_the_end_of_a_process_that_had_nothing_to_do_and_moved_elsewhere(tmp_path: Path) -> None:
    finished(tmp_path / "logs")
    moved = {group: {"train.lr": "0.1, now 0.2"} for group in ("g", "h")}
    code = f"import os; from beamseg.ended import stale_at_exit; stale_at_exit({{'g'}}, {moved}); os.chdir('/')"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stderr.split("\n  ") == [
        "\nkept although the code has changed since (code: frozen):",
        "apply_scm of g (changed: beamseg/slabs.py)\n\ndefaults of the groups' first runs hold (code: frozen):",
        "train.lr: 0.1, now 0.2 (g, h)\n",
    ]


@pytest.mark.parametrize("name", ["apply_scm", "segment_stage3", "train_scm"])
def test_every_stage_has_a_script(name: str) -> None:
    assert (SCRIPTS / f"{script_of(name)}.py").exists()
