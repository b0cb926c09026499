"""Defaults of a group's first run, which hold where the program's have changed since."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from beamseg.config import load_runs
from beamseg.errors import InputError
from beamseg.kept_defaults import keep, moved_defaults, program_defaults, read_kept
from beamseg.layers import defaults, load_schema
from beamseg.provenance import read_json, write_json
from workflow import BASEDIR

SCHEMA = load_schema(BASEDIR / "workflow" / "schemas")
PRESETS = BASEDIR / "config" / "presets"


def place(folder: Path, config: dict[str, Any], rows: str = "a\tphantom\tg\nb\tphantom\th\n") -> Path:
    (folder / "config" / "presets").mkdir(parents=True, exist_ok=True)
    (folder / "config" / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / "config" / "samples.tsv").write_text(f"sample\tpath\tgroup\n{rows}")
    return folder


def earlier(folder: Path, defaults: dict[str, Any], **presets: dict[str, Any]) -> None:
    """Group g keeps what an earlier version had, as far as it differs from this one's."""
    now = program_defaults(SCHEMA, PRESETS, ["quick"])
    for key, value in defaults.items():
        now["defaults"][key] = now["defaults"][key] | value if isinstance(value, dict) else value
    keep(folder / "results" / "groups" / "g", {**now, "presets": now["presets"] | presets}, frozen=False)


def test_defaults_of_the_first_run_hold_for_its_group_alone(tmp_path: Path) -> None:
    earlier(
        place(tmp_path, {"plan": {"warn_drift": 0.3}}),
        {"segment": {"overlap": 0.125}, "plan": {"warn_drift": 0.7}, "seed": 7},
    )
    runs, _ = load_runs(tmp_path, BASEDIR)
    assert [runs[name].get("segment.overlap") for name in "ab"] == [0.125, defaults(SCHEMA)["segment"]["overlap"]]
    assert [runs[name].get("seed") for name in "ab"] == [7, 0]
    assert runs["a"].get("plan.warn_drift") == 0.3  # as the user says
    assert moved_defaults(runs["a"]) == {"segment.overlap": "0.125, now 0.5", "seed": "7, now 0"}
    assert moved_defaults(runs["b"]) == {}
    place(tmp_path, {"code": "tracked"})
    runs, _ = load_runs(tmp_path, BASEDIR)
    assert runs["a"].get("seed") == 0


def test_the_preset_of_the_first_run_holds_as_a_whole_but_not_one_of_the_user_s(tmp_path: Path) -> None:
    earlier(place(tmp_path, {}), {}, quick={"train": {"steps": 123}})
    run = load_runs(tmp_path, BASEDIR)[0]["a"]
    assert run.get("train.steps") == 123
    assert run.get("pseudo_label.labeler") == defaults(SCHEMA)["pseudo_label"]["labeler"]
    assert "train.steps" in moved_defaults(run)
    (tmp_path / "config" / "presets" / "quick.yaml").write_text("train: {steps: 77}\n")
    assert load_runs(tmp_path, BASEDIR)[0]["a"].get("train.steps") == 77


def test_the_preset_that_was_the_default_stays_the_group_s(tmp_path: Path) -> None:
    srct = yaml.safe_load((PRESETS / "srct.yaml").read_text())
    earlier(place(tmp_path, {}), {"preset": "srct"}, srct=srct)
    runs, _ = load_runs(tmp_path, BASEDIR)
    assert [runs[name].get("preset") for name in "ab"] == ["srct", "quick"]
    assert runs["a"].get("train.epochs") == srct["train"]["epochs"]
    place(tmp_path, {"preset": "quick"})
    assert load_runs(tmp_path, BASEDIR)[0]["a"].get("preset") == "quick"


def test_what_this_version_does_not_know_or_allow_is_left_to_its_own_default(tmp_path: Path) -> None:
    earlier(place(tmp_path, {}), {"segment": {"overlap": -3, "gone": 1}, "code": "tracked", "seed": 5})
    run = load_runs(tmp_path, BASEDIR)[0]["a"]
    assert run.get("segment.overlap") == defaults(SCHEMA)["segment"]["overlap"]
    assert "gone" not in run.get("segment")
    assert run.get("code") == "frozen"
    assert run.get("seed") == 5


def test_what_is_kept_stays_until_the_group_is_tracked(tmp_path: Path) -> None:
    first = {"defaults": {"seed": 1}, "presets": {"quick": {"seed": 2}}}
    keep(tmp_path, first, frozen=True)
    later = {"defaults": {"seed": 3}, "presets": {"quick": {"seed": 4}, "srct": {"seed": 5}}}
    keep(tmp_path, later, frozen=True)
    assert read_kept(tmp_path) == {"defaults": {"seed": 1}, "presets": {"quick": {"seed": 2}, "srct": {"seed": 5}}}
    keep(tmp_path, later, frozen=False)
    assert read_json(tmp_path / "defaults.json") == later


@pytest.mark.parametrize("content", [[], {"defaults": {}}, {"defaults": {}, "presets": {"quick": 3}}, {"defaults": 1}])
def test_another_file_in_its_place_is_refused_in_words(tmp_path: Path, content: Any) -> None:
    write_json(tmp_path / "defaults.json", content)
    with pytest.raises(InputError, match=r"defaults\.json\n  found:    no defaults as a workflow writes them"):
        read_kept(tmp_path)
