"""The code digest follows the syntax that a script reaches, and nothing else."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest

import beamseg
from beamseg.code import _module, code_digest, lead_the_path
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


def test_every_rule_has_a_digest_and_training_does_not_reach_the_report():
    assert code_digest("train") != code_digest("evaluate")
    from beamseg.code import SCRIPTS

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
