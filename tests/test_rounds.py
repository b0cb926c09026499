"""Rounds of training: each begins with the one before, and what it gained is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import training_case as case
from beamseg.ledger import described
from beamseg.models import load_weights
from beamseg.page_tables import round_table
from beamseg.provenance import file_digest, read_json
from beamseg.rounds import agreement, keep_round, painted_pixels, previous
from beamseg.volumes import ArrayVolume


def run(folder: Path, steps: int, **how: Any) -> Path:
    grey, labels = case.phantom()
    case.train(
        [ArrayVolume(grey)],
        [ArrayVolume(labels)],
        folder / "stage2.safetensors",
        folder / "train.csv",
        settings=case.section("train", crop=16, steps=steps, lr=how.pop("lr", 0.003)),
        model_settings={"name": "unet", "n_slices": 1, "dropout": 0.0, "widths": how.pop("widths", [8, 16])},
        n_classes=2,
        seed=3,
        device="cpu",
        **how,
    )
    return folder / "stage2.safetensors"


def test_a_round_begins_with_the_one_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grey, labels = (ArrayVolume(array) for array in case.phantom())
    weights = run(tmp_path, 6)
    painted = painted_pixels(["s"], [labels])
    assert previous(weights, "one", painted) is None
    first = keep_round(weights, "one", [grey], [labels], ["s"], 2, "cpu")
    assert (first["all"]["before"], first["new"]) == (None, None)
    kept = file_digest(weights)
    # Tried again, it is the same round and begins with none.
    assert previous(weights, "one", painted) is None
    assert keep_round(weights, "one", [grey], [labels], ["s"], 2, "cpu") == first
    start = previous(weights, "two", painted)
    assert start == tmp_path / "rounds" / "1.safetensors"
    assert file_digest(start) == kept

    run(tmp_path, 1, lr=1e-12, start_from=start)
    assert "the weights of the previous round" in capsys.readouterr().out
    for name, value in load_weights(start)[0].state_dict().items():
        assert torch.allclose(value, load_weights(weights)[0].state_dict()[name], atol=1e-9)
    second = keep_round(weights, "two", [grey], [labels], ["s"], 2, "cpu")
    assert (second["round"], second["weights"]) == (2, "2.safetensors")
    assert second["new"] is None
    assert second["all"]["before"] == first["all"]["after"]
    assert read_json(tmp_path / "rounds" / "rounds.json")["rounds"] == [first, second]

    run(tmp_path, 1, widths=[8, 8], start_from=start)
    assert "another network" in capsys.readouterr().out


def painted_in(labels: np.ndarray, *windows: Any) -> ArrayVolume:
    painted = np.full_like(labels, 255)
    for window in windows:
        painted[window] = labels[window]
    return ArrayVolume(painted)


def test_before_and_after_are_of_the_same_pixels(tmp_path: Path) -> None:
    grey, labels = case.phantom()
    old, new = np.s_[1, 15:25, 10:30], np.s_[1, 5:20, 12:18]
    weights = run(tmp_path, 6)
    keep_round(weights, "one", [ArrayVolume(grey)], [painted_in(labels, old)], ["s"], 2, "cpu")
    left = weights.read_bytes()
    run(tmp_path, 12)
    both = painted_in(labels, old, new)
    # A second scan, first in the table, in which nothing is painted.
    blank = ArrayVolume(np.full_like(labels, 255))
    scans = [ArrayVolume(grey), ArrayVolume(grey)]
    entry = keep_round(weights, "two", scans, [blank, both], ["t", "s"], 2, "cpu")
    unseen = painted_in(labels, new).array.copy()
    unseen[old] = 255
    (tmp_path / "before.safetensors").write_bytes(left)
    expected = {"s:1": unseen[1] != 255}
    wanted = agreement(
        tmp_path / "before.safetensors", [ArrayVolume(grey)], [ArrayVolume(unseen)], [expected], ["s"], 2, "cpu"
    )
    assert [entry["new"]["before"]] == wanted
    assert [entry[key][time]["painted"] for key in ("new", "all") for time in ("before", "after")] == [60, 60, 260, 260]
    assert [entry["new"]["after"]] == agreement(weights, scans[:1], [both], [expected], ["s"], 2, "cpu")
    before, after = (entry["new"][time]["accuracy"] for time in ("before", "after"))
    said = f"on the 60 of them that no round before had accuracy {before:.1%} → {after:.1%}"
    assert said in described(entry)
    assert round_table([entry]).count("<td>60</td>") == 1
    # Of an earlier version, which noted two sets of pixels.
    assert described({"round": 1, "before": None, "after": {}}) == "round 1"
    assert round_table([{"round": 1, "before": None, "after": {}}]) == ""


def test_labels_that_come_back_keep_their_number_and_no_weights_are_lost(tmp_path: Path) -> None:
    grey, labels = case.phantom()
    weights = run(tmp_path, 2)
    kept = {}
    for identity, window in (("A", np.s_[1, :5]), ("B", np.s_[1, :9]), ("A", np.s_[1, :5]), ("C", np.s_[2, :9])):
        run(tmp_path, 1 + len(kept))
        entry = keep_round(weights, identity, [ArrayVolume(grey)], [painted_in(labels, window)], ["s"], 2, "cpu")
        kept[identity] = (entry["round"], file_digest(tmp_path / "rounds" / entry["weights"]))
    entries = read_json(tmp_path / "rounds" / "rounds.json")["rounds"]
    assert [(e["identity"], e["round"]) for e in entries] == [("B", 2), ("A", 1), ("C", 3)]
    for entry in entries:
        assert file_digest(tmp_path / "rounds" / entry["weights"]) == kept[entry["identity"]][1]
    everything = painted_pixels(["s"], [ArrayVolume(labels)])
    assert previous(weights, "D", everything) == tmp_path / "rounds" / "3.safetensors"
    (tmp_path / "rounds" / "3.safetensors").unlink()
    assert previous(weights, "D", everything) == tmp_path / "rounds" / "1.safetensors"


def test_no_network_that_has_seen_what_was_taken_back_is_begun_with(tmp_path: Path) -> None:
    """What is no longer painted is evaluated, so weights that learned it would leak."""
    grey, labels = case.phantom()
    weights = run(tmp_path, 2)
    few, more = np.s_[1, :5], np.s_[1, :9]
    for identity, window in (("few", few), ("more", more)):
        keep_round(weights, identity, [ArrayVolume(grey)], [painted_in(labels, window)], ["s"], 2, "cpu")
    back = painted_pixels(["s"], [painted_in(labels, np.s_[1, :7])])
    assert previous(weights, "back", back) == tmp_path / "rounds" / "1.safetensors"
    assert previous(weights, "other", painted_pixels(["s"], [painted_in(labels, np.s_[2, :7])])) is None
    assert previous(weights, "moved", {"t:1": back["s:1"]}) is None


def test_agreement_on_the_painted_pixels_alone(tmp_path: Path) -> None:
    grey, labels = case.phantom()
    weights = run(tmp_path, 30)
    painted = painted_in(labels, np.s_[1, 15:25, 10:30]).array
    pixels = painted_pixels(["s"], [ArrayVolume(painted)])
    assert list(pixels) == ["s:1"]
    (found,) = agreement(weights, [ArrayVolume(grey)], [ArrayVolume(painted)], [pixels], ["s"], 2, "cpu")
    assert found["painted"] == 200
    wrong = np.where(painted == 255, 255, 1 - painted).astype(np.uint8)
    (swapped,) = agreement(weights, [ArrayVolume(grey)], [ArrayVolume(wrong)], [pixels], ["s"], 2, "cpu")
    assert found["accuracy"] + swapped["accuracy"] == pytest.approx(1, abs=1e-5)
    assert found["mean_iou"] > 0.5 > swapped["mean_iou"]
