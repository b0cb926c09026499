"""Files of the user that go away, are touched or replaced after a run has finished: scan, labels and truth."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from beamseg.annotations import files_of
from beamseg.provenance import file_digest, read_json, write_json
from beamseg.seen import found_by, seen
from test_few_labels import SHORT, truth, workflow
from workflow import Workflow

CHOSEN = [2, 6, 10, 14]
CONFIG = {**SHORT, "stage3": "none", "refine": ["mpp"], "preset": "slices", "labels": {"slices": CHOSEN}}
FILES = ("scan.npy", "labels.npy", "truth.npy")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run that learned slices, with truth."""
    folder = tmp_path_factory.mktemp("done")
    np.save(folder / "labels.npy", truth()[CHOSEN])
    made = workflow(folder, file="../labels.npy", **CONFIG)
    made.run()
    assert made.rules("-n") == []
    return folder


@pytest.fixture
def finished(done: Path, tmp_path: Path) -> Workflow:
    shutil.copytree(done, tmp_path / "copy", symlinks=True)
    table = (tmp_path / "copy" / "config" / "samples.tsv").read_text()
    return Workflow(tmp_path / "copy", CONFIG, table)


def test_what_is_finished_stays_when_scan_labels_and_truth_are_archived_away(finished: Workflow) -> None:
    for name in FILES:
        (finished.folder / name).unlink()
    assert finished.rules("-n") == []
    kept = {path: path.read_bytes() for path in finished.folder.glob("results/**/*.safetensors")}
    before = read_json(finished.folder / "results/a/provenance.json")
    assert before["scans"][0]["labels_content"]
    finished.write({**finished.config, "export": {"formats": ["mrc"]}, "report": {"opacity": 0.3}})
    assert set(finished.rules()) == {"export", "report", "record"}
    assert (finished.folder / "results/a/labels.mrc").exists()
    assert kept == {path: path.read_bytes() for path in finished.folder.glob("results/**/*.safetensors")}
    assert read_json(finished.folder / "results/a/provenance.json")["scans"] == before["scans"]
    assert finished.rules("-n") == []


def test_touched_files_retrain_nothing_and_changed_ones_what_reads_them(finished: Workflow) -> None:
    time.sleep(1.1)
    for name in FILES[1:]:
        os.utime(finished.folder / name)
    assert finished.rules("-n") == []
    other = truth()
    other[:, :4] = 1
    np.save(finished.folder / "truth.npy", other)
    assert set(finished.rules("-n")) == {"evaluate", "report", "export", "record"}
    np.save(finished.folder / "truth.npy", truth())
    assert finished.rules("-n") == []
    np.save(finished.folder / "labels.npy", 1 - truth()[CHOSEN])
    assert {"train", "segment", "refine_mpp", "evaluate"} <= set(finished.rules("-n"))


def test_a_touched_scan_is_looked_at_and_a_file_back_from_the_archive_is_known(finished: Workflow) -> None:
    held = {name: (finished.folder / name).read_bytes() for name in FILES}
    for name in FILES:
        (finished.folder / name).unlink()
    time.sleep(1.1)
    for name, content in held.items():
        (finished.folder / name).write_bytes(content)
    assert finished.rules() == ["ingest"]
    assert finished.rules() == []


@pytest.fixture
def record(tmp_path: Path) -> Path:
    """The record of a job that was given `labels`, a folder of two files."""
    (tmp_path / "labels").mkdir()
    for name in "ab":
        (tmp_path / "labels" / name).write_text(name)
    given = look(tmp_path)
    write_json(tmp_path / "train.log.json", {"seen": found_by([[given], {"other": 1}, 3])})
    return tmp_path / "train.log.json"


def look(folder: Path, **how: bool) -> dict[str, object]:
    return seen("labels", files_of(folder / "labels"), folder / "train.log.json", **how)


def test_a_file_is_known_by_its_time_else_by_its_content_and_when_gone_as_it_was(tmp_path: Path, record: Path) -> None:
    then = look(tmp_path)
    later = time.time() + 5
    os.utime(tmp_path / "labels" / "a", (later, later))
    assert look(tmp_path)["stamp"] == then["stamp"]
    (tmp_path / "labels" / "a").write_text("other")
    changed = look(tmp_path)["stamp"]
    assert changed != then["stamp"]
    (tmp_path / "labels" / "c").write_text("one more")
    assert look(tmp_path)["stamp"] not in (then["stamp"], changed)
    for path in (tmp_path / "labels").iterdir():
        path.unlink()  # as a disk that is not mounted leaves it
    assert look(tmp_path) == {"path": "labels", "files": [], "stamp": then["stamp"]}
    (tmp_path / "labels").rmdir()
    assert look(tmp_path)["stamp"] == then["stamp"]
    record.unlink()
    assert look(tmp_path)["stamp"] is None


def test_of_a_scan_no_byte_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "labels"
    path.write_text("1")
    monkeypatch.setattr("beamseg.seen.file_digest", lambda path: 1 / 0)
    then = look(tmp_path, read=False)
    write_json(tmp_path / "train.log.json", {"seen": found_by([then])})
    later = time.time() + 5
    os.utime(path, (later, later))
    assert look(tmp_path, read=False)["stamp"] != then["stamp"]


def test_a_record_without_what_was_seen_is_of_an_earlier_version(tmp_path: Path, record: Path) -> None:
    now = look(tmp_path)
    write_json(record, {"state": "done"})
    assert look(tmp_path) == now
    assert file_digest(tmp_path / "labels")
