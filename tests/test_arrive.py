"""arrive: which scans are taken in, when the workflow is started, and who is kept out."""

from __future__ import annotations

import errno
import json
import os
import re
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np
import pytest

from beamseg import arrive as module
from beamseg.arrive import alone, arrive, jobs_anew
from beamseg.config import load_runs, read_table
from beamseg.errors import InputError
from beamseg.job import start_of
from beamseg.provenance import atomic_path
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


def only(line):
    (given,) = (word for word in line if word.startswith("only="))
    return json.loads(given.removeprefix("only="))


def test_what_is_done_is_not_asked_for_again(place, monkeypatch):
    folder, lines = place
    come(folder)
    scan(folder, "two")
    monkeypatch.setattr(module, "run_state", lambda _, name, *__: {"state": "done" if name == "one" else "failed"})
    come(folder)
    assert [only(line) for line in lines] == [["one"], ["two"]]


def test_a_row_whose_bundle_is_gone_stops_no_other(place):
    folder, lines = place
    table(folder).write_text("sample\tpath\tbundle\nold\t/data/old.h5\t/data/gone\n")
    assert come(folder) == 0
    assert come(folder) == 0  # nothing is new, and one is not done
    assert [only(line) for line in lines] == [["one"], ["one"]]
    runs, common = load_runs(folder / "work", BASEDIR, {"only": ["one"]})
    assert list(runs) == ["one"]
    assert "gone" in str(common["left_out"]["old"])
    with pytest.raises(InputError, match="gone"):
        load_runs(folder / "work", BASEDIR)
    with pytest.raises(InputError, match="gone"):
        load_runs(folder / "work", BASEDIR, {"only": ["old"]})


def test_a_group_of_finished_scans_gets_no_new_model_unasked(place, monkeypatch, capsys):
    folder, lines = place
    table(folder).write_text("sample\tpath\tgroup\nold\t/data/old.h5\tg\n")
    monkeypatch.setattr(module, "run_state", lambda _, name, *__: {"state": "done" if name == "old" else "new"})
    told = "rule train:\n    reason: Code has changed since last execution\n    wildcards: group=g\n    threads: 8\n"
    monkeypatch.setattr(module.subprocess, "run", lambda line, **_: subprocess.CompletedProcess(line, 0, told, ""))
    assert come(folder, group="g") == 1
    assert "group g: train would be made anew" in capsys.readouterr().out
    assert lines == []
    scan(folder, "two")
    assert come(folder, group="h") == 1
    assert [only(line) for line in lines] == [["two"]]


def test_jobs_that_replace_what_scans_share_are_told_from_a_dry_run():
    def told(rule, reason, wildcards):
        return f"[Fri Nov 27 2026]\nrule {rule}:\n    input: x\n    reason: {reason}\n    wildcards: {wildcards}\n"

    changed, missing = "Params have changed since last execution", "Missing output files: results/groups/a/plan.json"
    jobs = [("train", changed, "group=a"), ("bundle", changed, "group=a"), ("plan", missing, "group=a")]
    jobs += [("segment", changed, "sample=b, model=stage2, part=1-of-1"), ("self_correct", changed, "group=b")]
    text = "Job stats:\ntrain 1\n\n" + "".join(told(*job) for job in jobs)
    assert jobs_anew(text) == [("train", "a"), ("self_correct", "b")]


def test_a_scan_that_joins_a_group_leaves_its_model_alone(place):
    folder, _ = place
    table(folder).write_text("sample\tpath\tgroup\nold\t/data/old.h5\tg\n")
    come(folder, group="g")
    graph = Runs(load_runs(folder / "work", BASEDIR)[0])
    assert graph.references("g") == ["old"]
    assert list(graph.runs) == ["old", "one"]


def linked(folder):
    """A master file and the file beside it that holds its voxels."""
    with h5py.File(folder / "scans" / "voxels.h5", "w") as file:
        file["v"] = np.random.default_rng(0).integers(0, 99, (20, 16, 18)).astype(np.uint8)
    with h5py.File(folder / "scans" / "master.h5", "w") as file:
        file["exchange/data"] = h5py.ExternalLink("voxels.h5", "v")


def test_a_scan_that_leads_to_other_files_is_a_row_and_a_word_on_what_to_set(place, capsys):
    folder, lines = place
    linked(folder)
    come(folder)
    assert [row["sample"] for row in read_table(table(folder))] == ["master", "one"]
    printed = capsys.readouterr().out
    assert "added    master: /exchange/data is a link to v in voxels.h5; if you trust" in printed
    assert "set `ingest: {external_links: beside}` in config.yaml" in printed
    assert len(lines) == 1
    assert not (folder / "work" / "config" / "samples").exists()
    _, common = load_runs(folder / "work", BASEDIR)
    assert common["ingest"]["external_links"] == "none"


@pytest.mark.parametrize("where", ["config.yaml", "the group's column"])
def test_a_scan_that_leads_to_other_files_is_looked_at_where_that_was_allowed(place, where, capsys):
    folder, _ = place
    linked(folder)
    if where == "config.yaml":
        (folder / "work" / "config" / "config.yaml").write_text("ingest: {external_links: beside}\n")
    else:
        head = "sample\tpath\tgroup\tingest.external_links\n"
        table(folder).write_text(f"{head}old\t/data/old.h5\tg\tbeside\n")
    come(folder, group="g" if where != "config.yaml" else None)
    assert "added    master: 20×16×18 uint8" in capsys.readouterr().out


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


def test_names_that_no_row_can_hold_stop_no_call(place, capsys):
    folder, lines = place
    scan(folder, "groups")
    scan(folder, "two\u2028lines")
    scan(folder, os.fsdecode(b"not_utf8_\xff"))
    (folder / "scans" / os.fsdecode(b"no_scan_\xff.h5")).write_bytes(b"nothing")
    for _ in range(2):
        assert come(folder) == 0
        assert [row["sample"] for row in read_table(table(folder))] == ["groups_2", "one"]
        printed = capsys.readouterr().out
        assert printed.count("not yet ") == 3
        assert r"two\u2028lines.npy: a path with control characters" in printed
    assert len(lines) == 2


def test_a_long_name_beside_settings_of_samples(place):
    folder, lines = place
    deep = folder / "scans" / ("a" * 200)
    deep.mkdir()
    np.save(deep / f"{'b' * 100}.npy", np.zeros((20, 16, 18), np.uint8))
    (folder / "work" / "config" / "samples").mkdir()
    assert come(folder) == 0
    assert len(load_runs(folder / "work", BASEDIR)[0]) == 2
    assert len(lines) == 1


def test_a_kill_as_soon_as_the_table_is_there_makes_no_new_scan_a_reference(place, monkeypatch):
    folder, _ = place
    table(folder).write_text("sample\tpath\tgroup\nold\t/data/old.h5\tg\n")

    @contextmanager
    def killed_after(path):
        with atomic_path(path) as temporary:
            yield temporary
        if path == table(folder):
            raise KeyboardInterrupt

    monkeypatch.setattr("beamseg.init.atomic_path", killed_after)
    with pytest.raises(KeyboardInterrupt):
        come(folder, group="g")
    monkeypatch.setattr("beamseg.init.atomic_path", atomic_path)
    come(folder, group="g")
    graph = Runs(load_runs(folder / "work", BASEDIR)[0])
    assert list(graph.runs) == ["old", "one"]
    assert graph.references("g") == ["old"]


@pytest.fixture
def claim(place, monkeypatch):
    """The claim of a working directory whose file system takes no locks."""

    def refuse(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(module.fcntl, "flock", refuse)
    return place[0] / "work" / ".beamseg-arrive.claim"


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK])
def test_two_do_not_overlap_where_locks_are_refused(place, claim, monkeypatch, capsys, number):
    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module.fcntl, "flock", refuse)
    folder, lines = place
    with alone(folder / "work") as free:
        assert free
        assert json.loads(claim.read_text())["pid"] == os.getpid()
        assert come(folder) == 0
    assert "another `beamseg arrive`" in capsys.readouterr().out
    assert lines == []
    assert come(folder) == 0
    assert len(lines) == 1
    assert not claim.exists()


def test_another_error_of_a_lock_is_not_taken_for_a_refusal(place, monkeypatch):
    def fail(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(module.fcntl, "flock", fail)
    with pytest.raises(OSError, match="Input/output"), alone(place[0] / "work"):
        pass


def test_the_claim_of_a_process_that_has_ended_is_taken_over(place, claim):
    folder, _ = place
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    for pid in (int(ended.stdout), os.getpid()):  # a number that is used again belongs to another process
        claim.write_text(json.dumps({"host": socket.gethostname(), "pid": pid, "started": "boot 1"}))
        with alone(folder / "work") as free:
            assert free
            assert json.loads(claim.read_text())["started"] == start_of(os.getpid())
        assert not list(claim.parent.glob(".beamseg-arrive.claim*"))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"host": "elsewhere", "pid": 7, "started": "boot 1"}', "process 7 of elsewhere"),
        (f'{{"host": "{socket.gethostname()}", "pid": 7, "started": null}}', "process 7"),
        ("", "process unknown of an unknown host"),
    ],
)
def test_the_claim_of_another_host_is_left_to_a_person(place, claim, text, found):
    folder, lines = place
    claim.write_text(text)
    with pytest.raises(InputError, match=re.escape(found)) as error:
        come(folder)
    assert "remove this file" in error.value.remedy
    assert claim.read_text() == text
    assert lines == []


def test_a_claim_made_while_a_stale_one_is_removed_stays(place, claim, monkeypatch):
    stale = {"host": socket.gethostname(), "pid": os.getpid(), "started": "boot 1"}
    live = json.dumps(stale | {"started": start_of(os.getpid())})
    claim.write_text(json.dumps(stale))
    monkeypatch.setattr(module, "alive", lambda entry: bool(claim.write_text(live)) and False)
    with alone(place[0] / "work") as free:
        assert not free
    assert claim.read_text() == live
