"""Rounds of training: each begins with the one before, and what it gained is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import training_case as case
from beamseg.models import load_weights
from beamseg.provenance import file_digest, read_json
from beamseg.rounds import agreement, described, keep_round, previous
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
    assert previous(weights, "one") is None
    first = keep_round(weights, "one", [grey], [labels], 2, "cpu")
    assert first["before"] is None
    kept = file_digest(weights)
    # Tried again, it is the same round and begins with none.
    assert previous(weights, "one") is None
    assert keep_round(weights, "one", [grey], [labels], 2, "cpu") == first
    start = previous(weights, "two")
    assert start == tmp_path / "rounds" / "1.safetensors"
    assert file_digest(start) == kept

    run(tmp_path, 1, lr=1e-12, start_from=start)
    assert "the weights of the previous round" in capsys.readouterr().out
    for name, value in load_weights(start)[0].state_dict().items():
        assert torch.allclose(value, load_weights(weights)[0].state_dict()[name], atol=1e-9)
    second = keep_round(weights, "two", [grey], [labels], 2, "cpu")
    assert (second["round"], second["weights"]) == (2, "2.safetensors")
    assert second["before"] == first["after"]
    assert read_json(tmp_path / "rounds" / "rounds.json")["rounds"] == [first, second]
    assert "by the round before" in described(second)

    run(tmp_path, 1, widths=[8, 8], start_from=start)
    assert "another network" in capsys.readouterr().out


def test_agreement_on_the_painted_pixels_alone(tmp_path: Path) -> None:
    grey, labels = case.phantom()
    weights = run(tmp_path, 30)
    painted = np.full_like(labels, 255)
    painted[1, 15:25, 10:30] = labels[1, 15:25, 10:30]
    found = agreement(weights, [ArrayVolume(grey)], [ArrayVolume(painted)], 2, "cpu")
    assert found["painted"] == 200
    wrong = np.where(painted == 255, 255, 1 - painted).astype(np.uint8)
    swapped = agreement(weights, [ArrayVolume(grey)], [ArrayVolume(wrong)], 2, "cpu")
    assert found["accuracy"] + swapped["accuracy"] == pytest.approx(1, abs=1e-5)
    assert found["mean_iou"] > 0.5 > swapped["mean_iou"]
