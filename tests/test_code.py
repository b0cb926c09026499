"""The code digest follows the syntax that a script reaches, and nothing else."""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import beamseg
from beamseg.code import SCRIPTS, Known, _known, _module, code_digest, lead_the_path
from beamseg.job import Kept, kept
from beamseg.provenance import write_json


@pytest.fixture
def scripts(tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "__init__.py").write_text('"""A library."""\n')
    (tmp_path / "lib" / "used.py").write_text("from . import deep\n\ndef f():\n    return deep.X\n")
    (tmp_path / "lib" / "deep.py").write_text("X = 1\n")
    (tmp_path / "lib" / "unused.py").write_text("Y = 1\n")
    (tmp_path / "rule.py").write_text('"""Rule."""\nimport os\nfrom lib.used import f\n\nf()\n')
    return tmp_path


def digest(scripts):
    _module.cache_clear()
    _known.cache_clear()
    return code_digest("rule", scripts)


def test_comments_docstrings_and_unreached_modules_do_not_count(scripts):
    before = digest(scripts)
    (scripts / "rule.py").write_text('"""Other words."""\nimport os  # why\nfrom lib.used import f\n\n\nf()\n')
    (scripts / "lib" / "unused.py").write_text("Y = 2\n")
    assert digest(scripts) == before


@pytest.mark.parametrize("name", ["rule.py", "lib/used.py", "lib/deep.py", "lib/__init__.py"])
def test_a_change_of_what_is_reached_counts(scripts, name):
    before = digest(scripts)
    with open(scripts / name, "a") as file:
        file.write("\nZ = 3\n")
    assert digest(scripts) != before


def test_digests_are_kept_from_process_to_process_while_a_file_stays_as_it_is(scripts, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    before, cache = digest(scripts), Known(scripts).cache
    parsed = []
    monkeypatch.setattr("beamseg.code._parsed", lambda path, root: parsed.append(path.name) or ("0", ["lib/deep"]))
    assert digest(scripts) == before
    assert parsed == []
    os.utime(scripts / "lib" / "used.py", ns=(0, 0))  # as after a checkout of another version
    assert digest(scripts) != before
    assert parsed == ["used.py"]
    for damaged in ("{", '{"format": 0, "modules": {}}', "[]"):
        cache.write_text(damaged)
        assert Known(scripts).found == {}, damaged


def test_where_nothing_can_be_kept_digests_are_the_same(scripts, monkeypatch):
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    before = digest(scripts)
    shutil.rmtree(scripts / "__pycache__")
    (scripts / "__pycache__").write_text("no folder")
    assert digest(scripts) == before
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (scripts / "__pycache__").unlink()
    assert digest(scripts) == before
    assert not (scripts / "__pycache__").exists()


def test_a_module_that_appears_under_an_imported_name_counts(scripts):
    (scripts / "rule.py").write_text("from lib import used, extra\n")
    before = digest(scripts)
    (scripts / "lib" / "extra.py").write_text("E = 1\n")
    assert digest(scripts) != before


def test_what_few_jobs_need_is_imported_by_them_alone():
    """Each job is a process, and so is Snakemake for each job; PyTorch is 2 s of its start, Matplotlib 1."""
    heavy = {"torch", "matplotlib", "sklearn", "scipy.optimize", "zarr", "ncempy"}
    snakefile = "from beamseg import runs, config, ended, footprint, recover, record, summary"
    for code in (snakefile, *(f"import {name}" for name in ("ingest", "evaluate", "refine_mpp", "record", "plan"))):
        command = [sys.executable, "-c", f"import sys; {code}; print(*sys.modules)"]
        loaded = subprocess.check_output(command, text=True, env={**os.environ, "PYTHONPATH": str(SCRIPTS)}).split()
        assert not heavy & set(loaded), code


def test_every_rule_has_a_digest_and_training_does_not_reach_the_report():
    assert code_digest("train") != code_digest("evaluate")
    reached = [SCRIPTS / "train.py"]
    for path in reached:
        reached += [p for p in _module(path, SCRIPTS)[1] if p not in reached]
    names = {path.stem for path in reached}
    assert "crops" in names
    assert not names & {"report", "evaluate", "figures", "export"}


def test_processes_started_from_here_import_this_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "beamseg").mkdir()
    (tmp_path / "beamseg" / "__init__.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    lead_the_path()
    lead_the_path()
    found = subprocess.check_output([sys.executable, "-c", "import beamseg; print(beamseg.__file__)"], text=True)
    assert Path(found.strip()) == Path(beamseg.__file__)
    assert os.environ["PYTHONPATH"].split(os.pathsep)[1:] == [str(tmp_path)]


THEN = {"steps": 3, "fov": {"kind": "auto"}, "model.name": "unet"}
DEFAULTS = {"steps": 5, "new": [1], "fov": {"kind": "auto", "value": None}, "model.name": "unet"}


@pytest.fixture
def record(tmp_path: Path) -> Path:
    path = tmp_path / "train.log.json"
    write_json(path, {"settings": {"settings": repr(THEN)}})
    return path


def test_settings_that_differ_by_new_keys_at_their_default_look_as_then(record: Path) -> None:
    now = {"new": [1], **THEN, "fov": {"value": None, "kind": "auto"}}
    found = kept(now, record, "settings", DEFAULTS)
    assert found == now
    assert repr(found) == repr(THEN)
    # Snakemake hands params to scripts so.
    again = copy.copy(found)  # by the same protocol
    assert (again, repr(again), type(again)) == (now, repr(THEN), Kept)


@pytest.mark.parametrize(
    "change",
    [
        {"new": [2]},
        {"steps": 5},
        {"fov": {"kind": "auto", "value": 0}},
        {"fov": {"kind": "none"}},
        {"class of the user": None},
    ],
)
def test_settings_that_were_changed_do_not_look_as_then(record: Path, change: dict[str, object]) -> None:
    now = THEN | change
    assert repr(kept(now, record, "settings", DEFAULTS)) == repr(now)


def test_settings_without_a_record_are_what_they_are(record: Path) -> None:
    for path, name in ((record.with_name("none.json"), "settings"), (record, "correct")):
        assert type(kept(THEN, path, name, DEFAULTS)) is dict
    assert kept(None, record, "settings", DEFAULTS) is None
