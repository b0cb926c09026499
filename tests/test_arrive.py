"""arrive: which scans are taken in, when the workflow is started, and who is kept out."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from beamseg import arrive as module
from beamseg.arrive import alone, arrive
from beamseg.config import load_runs, read_table
from beamseg.errors import InputError
from beamseg.runs import Runs

BASEDIR = Path(__file__).resolve().parents[1]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory, a folder of one scan, and the command lines that would have been run."""
    lines: list[list[str]] = []
    monkeypatch.setattr(module, "run_snakemake", lambda line: lines.append(line) or 0)
    monkeypatch.setattr("beamseg.init.quiet_s", lambda source: 1000.0)
    (tmp_path / "scans").mkdir()
    scan(tmp_path, "one")
    (tmp_path / "work" / "config").mkdir(parents=True)
    (tmp_path / "work" / "config" / "config.yaml").write_text("{}\n")
    return tmp_path, lines


def scan(folder, name):
    np.save(folder / "scans" / f"{name}.npy", np.random.default_rng(0).integers(0, 99, (20, 16, 18)).astype(np.uint8))


def come(folder, **options):
    return arrive(folder / "scans", folder / "work", BASEDIR, **options)


def table(folder):
    return folder / "work" / "config" / "samples.tsv"


def test_a_new_scan_becomes_a_row_and_a_run(place):
    folder, lines = place
    assert come(folder, cores="2") == 0
    assert [row["sample"] for row in read_table(table(folder))] == ["one"]
    assert len(lines) == 1
    assert "--keep-going" in lines[0]
    assert lines[0][lines[0].index("--cores") + 1] == "2"


def test_comments_and_rows_stay_as_they_are(place):
    folder, _ = place
    text = "# of March\nsample\tpath\tgroup\tseed\nold\t/data/old.h5\tg\t4\n"
    table(folder).write_text(text)
    come(folder, group="g")
    assert table(folder).read_text().startswith(text)
    row = read_table(table(folder))[1]
    assert (row["group"], row["seed"]) == ("g", "4")


def test_a_scan_that_is_being_written_waits(place, monkeypatch, capsys):
    folder, lines = place
    monkeypatch.undo()
    monkeypatch.setattr(module, "run_snakemake", lambda line: lines.append(line) or 0)
    old = time.time() - 5000
    os.utime(folder / "scans" / "one.npy", (old, old))  # a copy with the original's time stamp
    assert come(folder) == 0
    assert not table(folder).exists()
    assert "may not be finished" in capsys.readouterr().out
    assert lines == []
    assert come(folder, settle_s=0) == 0
    assert len(lines) == 1


def test_nothing_is_started_when_nothing_is_new_and_all_have_ended(place, monkeypatch):
    folder, lines = place
    come(folder)
    monkeypatch.setattr(module, "run_state", lambda *_: {"state": "failed"})
    assert come(folder) == 0
    assert len(lines) == 1
    monkeypatch.setattr(module, "run_state", lambda *_: {"state": "killed"})
    come(folder)
    assert len(lines) == 2


def test_a_scan_that_joins_a_group_leaves_its_model_alone(place):
    folder, _ = place
    table(folder).write_text("sample\tpath\tgroup\nold\t/data/old.h5\tg\n")
    come(folder, group="g")
    graph = Runs(load_runs(folder / "work", BASEDIR)[0])
    assert graph.references("g") == ["old"]
    assert list(graph.runs) == ["old", "one"]


def test_a_column_that_the_table_has_not_is_asked_for(place):
    folder, lines = place
    table(folder).write_text("sample\tpath\nold\t/data/old.h5\n")
    with pytest.raises(InputError, match="no column 'group'"):
        come(folder, group="g")
    assert lines == []


def test_two_do_not_overlap(place, capsys):
    folder, lines = place
    with alone(folder / "work") as free:
        assert free
        assert come(folder) == 0
    assert "another `beamseg arrive`" in capsys.readouterr().out
    assert lines == []
    assert come(folder) == 0
    assert len(lines) == 1


def test_another_snakemake_is_not_disturbed(place):
    folder, lines = place
    locks = folder / "work" / ".snakemake" / "locks"
    locks.mkdir(parents=True)
    (locks / "0.input.lock").touch()
    with pytest.raises(InputError, match="locked"):
        come(folder)
    assert not table(folder).exists()
    assert lines == []
