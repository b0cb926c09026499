"""What scripts make of the files that the workflow hands them."""

from __future__ import annotations

from pathlib import Path

from beamseg.inputs import chosen_labels, many, per_scan
from beamseg.provenance import write_json


def test_one_file_several_or_none_are_a_list() -> None:
    assert many("a.json") == ["a.json"]
    assert many(["a.json", "b.json"]) == ["a.json", "b.json"]
    assert many(None) == many([]) == []


def test_manifests_are_split_by_scan_whatever_the_number_of_parts() -> None:
    paths = ["r/a/mpp/1-of-1.json", "r/b/mpp/1-of-2.json", "r/b/mpp/2-of-2.json"]
    assert per_scan(paths) == [paths[:1], paths[1:]]


def test_refinement_starts_from_the_stage_that_the_verdict_names(tmp_path: Path) -> None:
    verdict = tmp_path / "verdict.json"
    files = {"stage2": "two.json", "stage3": ["three.json"], "verdict": str(verdict)}
    for stage, chosen in (("stage2", ["two.json"]), ("stage3", ["three.json"])):
        write_json(verdict, {"use": stage, "reason": "measured"})
        assert chosen_labels(files) == chosen
    assert chosen_labels({"stage2": "two.json", "verdict": []}) == ["two.json"]
