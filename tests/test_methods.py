"""methods.md: it says what was done and not more, with the numbers that were used."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest

from beamseg.layers import defaults, load_schema
from beamseg.methods import CITATIONS, LABELERS, write_methods
from beamseg.models import MODELS, REFERENCE_MODELS
from beamseg.palette import class_table, word_for

BASEDIR = Path(__file__).parents[1]
PLAN = {"range": [0.25, 1.5], "clipped": {"low": 0.001, "high": 0.02}, "bits": 16}
BUNDLE: dict[str, Any] = {
    "stage": "stage3",
    "reason": "every class kept",
    "class_table": [{"id": 0, "name": "pores", "clusters": [0]}, {"id": 1, "name": "rock", "clusters": [1, 2]}],
    "scans": [{"name": "a", "shape": [8, 9, 10], "dtype": "uint16", "voxel_size_um": [2.0, 0.65, 0.65]}],
    "settings": {"corrections": None},
    "versions": {"beamseg": "0.1.0", "snakemake": "9.27.1", "torch": "2.13.0"},
}


def page(tmp_path: Path, bundle: dict[str, Any] | None = None, **sections: Any) -> str:
    settings = defaults(load_schema(BASEDIR / "workflow" / "schemas"))
    settings = copy.deepcopy({key: settings[key] for key in SECTIONS})
    for key, value in sections.items():
        settings[key] = {**settings[key], **value} if isinstance(value, dict) else value
    write_methods(tmp_path / "methods.md", "rocks", {**BUNDLE, **(bundle or {})}, PLAN, settings)
    return (tmp_path / "methods.md").read_text()


def test_the_least_loss_is_told_where_it_chose_the_weights(tmp_path: Path) -> None:
    assert "least training loss" not in page(tmp_path)
    assert "the least training loss of the first 200 epochs" in page(tmp_path, train={"epochs": 1000, "best_of": 200})


SECTIONS = (
    *("seed", "plan", "pseudo_label", "label_source", "model", "train", "stage3", "self_correct", "segment"),
    *("refine", "refine_mpp", "refine_scm"),
)


def test_the_numbers_are_those_that_were_used(tmp_path: Path) -> None:
    text = page(tmp_path, train={"steps": 123, "lr": 0.002, "crop": 64}, self_correct={"ema": 0.97}, seed=7)
    for words in (
        "between 0.25 and 1.5 of the scan (0.10 % of the voxels in the field of view lay below, 2.00 % above)",
        "trained for 123 steps",
        "crops of 64 × 64 pixels",
        "learning rate 0.002",
        "factor 0.97",
        "seed 7",
        "| a | 8 × 9 × 10 | uint16 | 2 × 0.65 × 0.65 |",
        "| 1 | rock | 1, 2 |",
        "| `train.steps` | 123 |",
        "torch 2.13.0",
    ):
        assert words in text, words


def test_what_was_not_done_is_not_said(tmp_path: Path) -> None:
    text = page(tmp_path, stage3="none", refine=[])
    sentences = text.split("## Scans")[0]
    assert "Stage 3" not in sentences
    assert "refined" not in sentences
    assert CITATIONS["unbiased_teacher"] not in text
    assert "Labels were refined" in page(tmp_path, refine=["mpp"])


def test_a_refused_stage_3_is_said(tmp_path: Path) -> None:
    text = page(tmp_path, {"stage": "stage2", "reason": "class 1 fell to 0"})
    assert "It failed the watch against lost classes, and stage 2 was used in its place (class 1 fell to 0)" in text


def test_corrections_and_labels_by_hand_are_said(tmp_path: Path) -> None:
    corrections = {"shading": "drift", "rings": "none", "denoise": "median"}
    text = page(tmp_path, {"settings": {"corrections": corrections}}, label_source="slices")
    assert "Before, shading (drift), noise (median) were corrected." in text
    assert "given by hand (slices)" in text
    assert "k-means" not in text.split("## Scans")[0]


def test_every_number_in_brackets_is_a_reference_and_all_are_used(tmp_path: Path) -> None:
    text = page(tmp_path)
    body, references = text.split("## References")
    used = {
        int(n) for group in re.findall(r"\[(\d+(?:, \d+)*)\]", body.split("## Scans")[0]) for n in group.split(", ")
    }
    assert used == {int(n) for n in re.findall(r"^(\d+)\. ", references, flags=re.MULTILINE)}


@pytest.mark.parametrize("name", sorted(MODELS | REFERENCE_MODELS))
def test_every_network_has_its_citation(name: str) -> None:
    assert name.removesuffix("_noskip") in CITATIONS
    assert set(LABELERS) <= set(CITATIONS)


def test_painted_pixels_are_described_as_such(tmp_path: Path) -> None:
    text = page(tmp_path, label_source="pixels", stage3="none", refine=[], train={"objective": "contrastive"})
    assert "Labels to train on were given by hand (pixels), 4 classes." in text
    assert (
        "to embed each pixel in 16 dimensions, with the contrastive losses (supervised, self_supervised) of [3]" in text
    )
    assert "3. Li, C. et al. Toward few pixel annotations" in text
    assert "label smoothing" not in text.split("## Parameters")[0]
    assert "Self-Correcting" not in text


@pytest.mark.parametrize("source", ["slices", "pixels", "bundle"])
def test_classes_of_labels_are_not_called_clusters(tmp_path: Path, source: str) -> None:
    assert "| id | name | clusters |" in page(tmp_path)
    table = class_table(2, {"mitochondrion": {"clusters": [1]}}, word=word_for(source))
    text = page(tmp_path, {"class_table": table}, label_source=source)
    assert "| id | name | classes of the labels |" in text
    assert "| 0 | class 0 | 0 |\n| 1 | mitochondrion | 1 |" in text
    assert "cluster" not in text.split("## Parameters")[0]


def test_voxels_left_out_of_the_training_are_said(tmp_path: Path) -> None:
    words = "voxels of a cluster that lies in grey between two others, each on a tenth of the 5 × 5 pixels around"
    assert words not in page(tmp_path)
    assert words in page(tmp_path, train={"partial_volume_px": 2})
