"""Evaluation: hand-counted volumes, windows against the whole, the product, and what a user may get wrong."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import tifffile
import yaml

from beamseg.changes import describe
from beamseg.count import Counts, count, counted, windows
from beamseg.errors import InputError
from beamseg.evaluate import evaluate
from beamseg.labels import open_user_labels
from beamseg.metrics_table import stage_table
from beamseg.palette import CLASS
from beamseg.product import choose_product, lost_classes
from beamseg.provenance import read_json
from beamseg.volumes import ArrayVolume

NAMES = ("pseudo_labels", "stage2", "stage3", "mpp", "scm")
SHAPE = (20, 24, 30)
K = 4


def phantom(seed: int = 0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Labels of five stages with ever less noise, 255 outside a cylinder, and the truth."""
    rng = np.random.default_rng(seed)
    truth = (np.arange(SHAPE[2]) // 8 + np.zeros(SHAPE, int)).astype(np.uint8) % K
    y, x = np.mgrid[: SHAPE[1], : SHAPE[2]]
    outside = (y - 12) ** 2 + (x - 15) ** 2 > 14**2
    stages = {}
    for name, noise in zip(NAMES, (0.4, 0.3, 0.2, 0.15, 0.1), strict=True):
        labels = np.where(rng.random(SHAPE) < noise, rng.integers(0, K, SHAPE), truth).astype(np.uint8)
        labels[:, outside] = 255
        stages[name] = labels
    return stages, truth


def run(tmp_path: Path, stages: dict[str, np.ndarray], **options: Any) -> dict[str, Any]:
    """Evaluate arrays; the settings are `options.settings` over the defaults."""
    settings = {"truth_map": {}, "truth_names": {}, "background": [0]} | options.pop("settings", {})
    for name in ("truth", "training_labels", "confidence"):
        if isinstance(options.get(name), np.ndarray):
            options[name] = ArrayVolume(options[name])
    return evaluate(
        {name: ArrayVolume(labels) for name, labels in stages.items()},
        n_clusters=options.pop("n_clusters", K),
        settings=settings,
        out_json=tmp_path / "metrics.json",
        out_csv=tmp_path / "metrics.csv",
        **options,
    )


def test_numbers_by_hand(tmp_path: Path) -> None:
    # One slice of 2 × 5. Outside the field of view: the last column.
    truth = np.array([[[0, 1, 1, 2, 2], [0, 0, 1, 2, 1]]], np.uint8)
    pseudo = np.array([[[2, 0, 0, 1, 255], [2, 0, 0, 0, 255]]], np.uint8)
    stage2 = np.array([[[2, 0, 0, 1, 255], [2, 2, 0, 255, 255]]], np.uint8)
    result = run(tmp_path, {"pseudo_labels": pseudo, "stage2": stage2}, truth=truth, n_clusters=3)
    assert result["matching"]["map"] == {"cluster 0": "class 1", "cluster 1": "class 2", "cluster 2": "background"}
    assert result["matching"]["method"] == "hungarian"
    first, second = result["stages"]["pseudo_labels"], result["stages"]["stage2"]
    # Foreground: three of class 1, two of class 2; class 1 right thrice, class 2 once.
    assert first["accuracy"] == pytest.approx(4 / 5)
    assert first["classes"]["class 1"] == {"iou": 3 / 5, "dice": 6 / 8, "voxels": 3, "predicted": 5}
    assert first["classes"]["class 2"]["iou"] == pytest.approx(1 / 2)
    assert first["classes"]["background"]["iou"] == pytest.approx(2 / 3)
    assert first["mean_iou"] == pytest.approx((3 / 5 + 1 / 2) / 2)
    # The voxel that stage 2 left unlabelled is an error of class 2, not an exclusion.
    assert second["accuracy"] == pytest.approx(4 / 5)
    assert second["classes"]["class 2"] == {"iou": 1 / 2, "dice": 2 / 3, "voxels": 2, "predicted": 1}
    assert second["unlabelled"] == pytest.approx(1 / 8)
    assert result["excluded"] == {"outside_field_of_view": 2, "truth_unlabelled": 0, "trained_on": 0, "held_out": 0}
    assert result["profile"]["disputed"] == [0.25]


def test_windows_in_any_budget_equal_the_whole(tmp_path: Path) -> None:
    stages, truth = phantom()
    confidence = np.random.default_rng(1).integers(0, 256, SHAPE).astype(np.uint8)
    whole = run(tmp_path, stages, truth=truth, confidence=confidence)
    for budget in (1e-4, 3e-3, 0.2):
        assert run(tmp_path, stages, truth=truth, confidence=confidence, mem_budget_mb=budget) == whole


def test_parts_add_up_to_the_whole(tmp_path: Path) -> None:
    stages, truth = phantom()
    confidence = np.random.default_rng(1).integers(0, 256, SHAPE).astype(np.uint8)
    options = {
        "truth": truth,
        "confidence": confidence,
        "training_labels": np.where(truth == 1, 1, 255).astype(np.uint8),
    }
    whole = run(tmp_path, stages, **options)
    volumes = {name: ArrayVolume(labels) for name, labels in stages.items()}
    against = {name: ArrayVolume(values) for name, values in options.items()}
    to_class = np.append(np.arange(K), np.full(256 - K, 255)).astype(np.uint8)
    for name, slabs in {"a": [(0, 8)], "b": [(8, 20)], "none": []}.items():
        count(volumes, to_class, **against, slabs=slabs).save(tmp_path / name)
    assert run(tmp_path, stages, **options, parts=[tmp_path / name for name in ("b", "none", "a")]) == whole
    assert run(tmp_path, stages, **options, parts=[tmp_path / "a"]) != whole


@pytest.mark.parametrize("edge", [8, 200], ids=["two by two", "all in one table"])
def test_a_window_is_counted_pair_by_pair(edge: int) -> None:
    rng = np.random.default_rng(2)
    labels = [rng.choice([0, 1, 2, 255], (edge, edge)).astype(np.uint8) for _ in range(3)]
    truth, confidence = (rng.choice(values, (edge, edge)).astype(np.uint8) for values in ([3, 200, 253], range(256)))
    found = counted(labels, truth, confidence, 3)
    images, held = [*labels, truth], [*[[0, 1, 2, 255]] * 3, [3, 200, 253]]
    for (i, j), table in found.pairs.items():
        assert found.values[j].tolist() == held[j]
        wanted = [[np.sum((images[i] == a) & (images[j] == b)) for b in held[j]] for a in held[i]]
        assert table.tolist() == wanted
    assert sorted(found.pairs) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    for label, sums in zip(labels, found.confidence, strict=True):
        assert sums.tolist() == [confidence[label == value].sum() for value in (0, 1, 2, 255)]


@pytest.mark.parametrize("budget", [1e-5, 1e-3, 0.1, 100])
def test_windows_cover_every_voxel_once_within_the_budget(budget: float) -> None:
    seen = np.zeros(SHAPE, int)
    for z0, z1, rows in windows(SHAPE, 34, budget, [(0, 8), (8, SHAPE[0])]):
        seen[z0:z1, rows] += 1
        assert seen[z0:z1, rows].size * 34 <= max(budget * 2**20, 34 * SHAPE[2])
    assert (seen == 1).all()


def test_the_json_keeps_what_is_returned_and_the_table_reads_it(tmp_path: Path) -> None:
    stages, truth = phantom()
    result = run(tmp_path, stages, truth=truth)
    stored = read_json(tmp_path / "metrics.json")
    assert stored == result
    table = stage_table(stored)
    assert [line.split("  ")[0].strip() for line in table.splitlines()[2:7]] == [
        "pseudo-labels",
        "stage 2",
        "stage 3",
        "MPP",
        "SCM *",
    ]
    assert table.splitlines()[-1].startswith("* the product is SCM: the last stage")


def test_noise_falls_so_every_stage_gains(tmp_path: Path) -> None:
    stages, truth = phantom()
    result = run(tmp_path, stages, truth=truth)
    ious = [result["stages"][name]["mean_iou"] for name in NAMES]
    assert ious == sorted(ious)
    assert all(result["best_map"][n]["mean_iou"] == pytest.approx(result["stages"][n]["mean_iou"]) for n in NAMES)


def test_the_best_map_of_a_stage_shows_a_swap_that_the_common_map_counts_as_errors(tmp_path: Path) -> None:
    stages, truth = phantom()
    swapped = np.array([0, 2, 1, 3] + [255] * 252, np.uint8)[stages["stage2"]]
    result = run(tmp_path, {"pseudo_labels": stages["pseudo_labels"], "stage2": swapped}, truth=truth)
    assert result["best_map"]["stage2"]["accuracy"] > result["stages"]["stage2"]["accuracy"] + 0.3
    assert result["best_map"]["stage2"]["map"]["cluster 1"] == "class 2"


def test_a_truth_with_fewer_classes_than_clusters(tmp_path: Path) -> None:
    stages, truth = phantom()
    mapped = np.array([0, 1, 1, 255], np.uint8)[truth]
    result = run(tmp_path, stages, truth=mapped, settings={"truth_names": {"1": "yarn"}})
    assert mapped.max() == 255  # not touched
    assert [entry["name"] for entry in result["truth"]] == ["background", "yarn"]
    inside = stages["pseudo_labels"] != 255
    assert result["excluded"]["truth_unlabelled"] == int((inside & (truth == 3)).sum())
    assert result["truth"][1]["voxels"] == int((inside & ((truth == 1) | (truth == 2))).sum())
    assert result["matching"]["method"] == "many to one"
    assert result["matching"]["map"]["cluster 2"] == "yarn"


def test_truth_on_some_slices_is_measured_there(tmp_path: Path) -> None:
    stages, truth = phantom()
    some = np.full_like(truth, 255)
    some[[2, 17]] = truth[[2, 17]]
    result = run(tmp_path, stages, truth=some, out_truth=tmp_path / "truth.npz")
    only = {name: labels[[2, 17]] for name, labels in stages.items()}
    alone = run(tmp_path, only, truth=truth[[2, 17]])
    for name in NAMES:
        assert result["stages"][name]["classes"] == alone["stages"][name]["classes"]
    assert result["slices"]["shown"] in (2, 17)
    with np.load(tmp_path / "truth.npz") as kept:
        place = kept["z"].tolist().index(result["slices"]["shown"])
        assert np.array_equal(kept["truth"][place], some[result["slices"]["shown"]])


def test_training_labels_are_left_out_and_counted(tmp_path: Path) -> None:
    stages, truth = phantom()
    labels = np.full_like(truth, 255)
    labels[5] = truth[5]
    result = run(tmp_path, stages, truth=truth, training_labels=labels)
    inside = stages["pseudo_labels"] != 255
    assert result["excluded"]["trained_on"] == int(inside[5].sum())
    rest = [z for z in range(SHAPE[0]) if z != 5]
    alone = run(tmp_path, {name: array[rest] for name, array in stages.items()}, truth=truth[rest])
    assert result["stages"]["scm"]["classes"] == alone["stages"]["scm"]["classes"]


@pytest.mark.parametrize("seed", [0, 1, 6])
def test_training_validation_and_test_are_disjoint(tmp_path: Path, seed: int) -> None:
    """Folds of the few-pixel paper: one slice of a pair is trained on, one validates, and the others are the test."""
    stages, truth = phantom()
    tifffile.imwrite(tmp_path / "labels.tif", truth, photometric="minisblack")
    section = {"dataset": None, "unlabelled": None, "slices": None, "pool": 10, "rate": 0.25}
    labels = open_user_labels(section, tmp_path / "labels.tif", SHAPE, seed=seed)
    (trained,) = labels.slices
    assert labels.held_out[0] == trained
    assert len(set(labels.held_out)) == 2
    whole = run(tmp_path, stages, truth=truth, training_labels=labels, out_truth=tmp_path / "truth.npz")
    rest = [z for z in range(SHAPE[0]) if z not in labels.held_out]
    alone = run(tmp_path, {name: array[rest] for name, array in stages.items()}, truth=truth[rest])
    for name in NAMES:
        assert whole["stages"][name]["confusion"] == alone["stages"][name]["confusion"]
    inside = stages["scm"] != 255
    painted = int((inside & (labels.read(0, SHAPE[0]) != 255)).sum())
    assert 0 < painted < inside[trained].sum()
    left_out = {"trained_on": painted, "held_out": int(inside[labels.held_out].sum()) - painted, "truth_unlabelled": 0}
    assert whole["excluded"] == {"outside_field_of_view": int((~inside).sum()), **left_out}
    assert whole["slices"]["shown"] in rest
    with np.load(tmp_path / "truth.npz") as kept:
        assert [kept["left_out"][i].all() for i, z in enumerate(kept["z"])] == [z in labels.held_out for z in kept["z"]]
    seen = {z for s in range(5) for z in open_user_labels(section, tmp_path / "labels.tif", SHAPE, seed=s).held_out}
    assert len(seen) == 10  # no slice is in two folds


def test_classes_merge_clusters_and_match_the_truth_by_name(tmp_path: Path) -> None:
    stages, truth = phantom()
    classes = {"solid": {"clusters": [1, 2]}, "rim": {"clusters": [3]}}
    merged = np.array([0, 1, 1, 3] + [255] * 252, np.uint8)
    settings = {"truth_names": {"1": "solid", "3": "rim"}}
    result = run(tmp_path, stages, truth=merged[truth], classes=classes, settings=settings)
    assert result["matching"]["method"] == "names, then many to one"
    assert result["matching"]["map"] == {"cluster 0": "background", "solid": "solid", "rim": "rim"}
    inside = stages["scm"] != 255
    a, b = merged[stages["scm"]] == 1, merged[truth] == 1
    expected = (a & b & inside).sum() / ((a | b) & inside).sum()
    assert result["stages"]["scm"]["classes"]["solid"]["iou"] == pytest.approx(expected)


def test_a_truth_of_other_numbers_is_said_to_be(tmp_path: Path) -> None:
    stages, truth = phantom()
    assert run(tmp_path, stages, truth=truth, word=CLASS, classes={})["warnings"] == []
    (warning,) = run(tmp_path, stages, truth=truth + 1, word=CLASS, classes={})["warnings"]
    assert warning.startswith("the truth holds the values 1, 2, 3, 4, the network's classes are 0, 1, 2, 3;")


def test_a_class_absent_from_the_truth_has_null_and_no_part_in_the_mean(tmp_path: Path) -> None:
    stages, truth = phantom()
    result = run(tmp_path, stages, truth=truth, settings={"truth_names": {"7": "pyrite"}})
    scm = result["stages"]["scm"]
    assert scm["classes"]["pyrite"] == {"iou": None, "dice": None, "voxels": 0, "predicted": 0}
    others = [scm["classes"][f"class {k}"]["iou"] for k in (1, 2, 3)]
    assert scm["mean_iou"] == pytest.approx(np.mean(others))


def test_without_truth_fractions_agreement_and_confidence(tmp_path: Path) -> None:
    stages, _ = phantom()
    confidence = np.full(SHAPE, 51, np.uint8)
    confidence[stages["scm"] == 2] = 255
    result = run(tmp_path, stages, confidence=confidence)
    inside = stages["pseudo_labels"] != 255
    scm = result["stages"]["scm"]
    assert scm["fractions"]["cluster 2"] == pytest.approx((stages["scm"][inside] == 2).mean())
    assert sum(scm["fractions"].values()) == pytest.approx(1)
    assert scm["confidence"] == pytest.approx({f"cluster {k}": 1 if k == 2 else 0.2 for k in range(4)})
    assert "confidence" not in result["stages"]["pseudo_labels"]
    equal = {tuple(pair["stages"]): pair["equal"] for pair in result["agreement"]}
    assert equal["stage2", "scm"] == pytest.approx((stages["stage2"][inside] == stages["scm"][inside]).mean())
    assert len(equal) == 10
    assert "accuracy" not in scm
    assert "same as pseudo-labels" in stage_table(result)


def test_slices_in_dispute_are_those_where_stages_differ_and_lie_apart(tmp_path: Path) -> None:
    labels = np.zeros((40, 8, 8), np.uint8)
    other = labels.copy()
    other[10], other[11], other[30, :4] = 1, 1, 1
    result = run(tmp_path, {"pseudo_labels": labels, "stage2": other}, n_clusters=2)
    assert result["slices"]["disputed"] == [10, 30]
    assert result["profile"]["disputed"][30] == 0.5


def test_csv_has_a_row_per_stage_and_class(tmp_path: Path) -> None:
    stages, truth = phantom()
    result = run(tmp_path, stages, truth=truth)
    with open(tmp_path / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5 * (1 + 4 + 4)
    whole = next(row for row in rows if row["stage"] == "mpp" and row["class"] == "all")
    assert float(whole["accuracy"]) == pytest.approx(result["stages"]["mpp"]["accuracy"])
    assert {row["stage"] for row in rows if row["product"] == "1"} == {"scm"}


@pytest.mark.parametrize(
    ("names", "verdict", "refinement", "stage", "says"),
    [
        (NAMES, {"use": "stage3"}, None, "scm", "last stage"),
        (NAMES[:3], {"use": "stage3"}, None, "stage3", "last stage"),
        (NAMES[:3], {"use": "stage2", "reason": "class 2 vanished."}, None, "stage2", "class 2 vanished"),
        (NAMES, {"use": "stage2", "reason": "class 2 vanished."}, None, "scm", "refinement works on it: class 2"),
        (NAMES, None, {"scm": {"erased": [3]}}, "mpp", "SCM took away more than half of cluster 3"),
        (NAMES, None, {"scm": {"erased": [3]}, "mpp": {"erased": [1]}}, "stage3", "MPP took away"),
        (
            NAMES,
            {"use": "stage2", "reason": "r"},
            {"scm": {"erased": [3]}, "mpp": {"erased": [1]}},
            "stage2",
            "MPP took",
        ),
        (NAMES, None, {"mpp": {"erased": [1]}}, "scm", "last stage"),
        (("pseudo_labels",), None, None, "pseudo_labels", "last stage"),
    ],
)
def test_the_product_and_why(names: Any, verdict: Any, refinement: Any, stage: str, says: str) -> None:
    product = choose_product(list(names), verdict, refinement, {1: "cluster 1", 3: "cluster 3"})
    assert product["stage"] == stage
    assert says in product["reason"]
    assert product["fallback"] == ("last stage" not in says)


def test_a_truth_of_another_shape_is_refused(tmp_path: Path) -> None:
    stages, truth = phantom()
    with pytest.raises(InputError) as caught:
        run(tmp_path, stages, truth=truth[:, :, :-1])
    assert caught.value.where == "truth"
    assert caught.value.found == "shape (20, 24, 29) (z, y, x)"


def test_a_truth_without_labels_is_refused(tmp_path: Path) -> None:
    stages, truth = phantom()
    with pytest.raises(InputError, match="no labelled voxel inside the field of view\n"):
        run(tmp_path, stages, truth=np.full_like(truth, 255))


def test_counts_add_in_any_order() -> None:
    stages, truth = phantom()
    orders = (range(SHAPE[0]), reversed(range(SHAPE[0])))
    found = []
    for order in orders:
        counts = Counts(list(NAMES), SHAPE, K)
        for z in order:
            labels = [stages[name][z] for name in NAMES]
            counts.add(z, counted(labels, truth[z], None, K))
        found.append(counts)
    assert np.array_equal(found[0].truth["scm"], found[1].truth["scm"])
    assert np.array_equal(found[0].disputed, found[1].disputed)
    assert np.array_equal(found[0].pairs["stage2", "mpp"], found[1].pairs["stage2", "mpp"])


def test_a_colour_mask_names_its_classes_by_colour_until_the_user_does(tmp_path: Path) -> None:
    stages, values = phantom()
    truth = ArrayVolume(values)
    truth.mapping, truth.warnings = {0: "#0000ff", 3: "#ffff00"}, ["one colour is rare"]  # type: ignore[attr-defined]
    result = run(tmp_path, stages, truth=truth, settings={"truth_names": {"3": "pyrite"}})
    assert [entry["name"] for entry in result["truth"]] == ["background #0000ff", "class 1", "class 2", "pyrite"]
    assert result["warnings"] == ["one colour is rare"]


def test_the_schema_fills_what_evaluate_reads() -> None:
    schema = yaml.safe_load((Path(__file__).parents[1] / "workflow" / "schemas" / "evaluate.yaml").read_text())
    settings = {key: entry["default"] for key, entry in schema["properties"].items()}
    assert settings["background"] == [0]
    assert settings["truth_map"] == settings["truth_names"] == {}
    jsonschema.validate({"truth_map": {2: 1, "3": None, "rest": 0}, "truth_names": {"1": "yarn"}}, schema)
    with pytest.raises(jsonschema.ValidationError, match="others"):
        jsonschema.validate({"truth_map": {"others": 1}}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"truth_map": {"2": "yarn"}}, schema)


def test_a_class_that_nearly_vanishes_is_named_and_a_rare_one_is_not() -> None:
    fractions: dict[str, dict[str, float | None]] = {
        "pseudo_labels": {"a": 0.9, "b": 0.0981, "thin": 0.001, "c": 0.0009, "d": None},
        "stage2": {"a": 0.999, "b": 0.0, "thin": 0.001, "c": 0.0, "d": 0.0},
        "mpp": {"a": 0.97, "b": 0.03, "thin": 0.0, "c": 0.0, "d": 0.0},
    }
    assert lost_classes(fractions) == {"stage2": ["b"], "mpp": ["thin"]}


def test_a_class_that_lost_what_was_false_in_it_is_not_called_lost(tmp_path: Path) -> None:
    truth = np.zeros((1, 10, 10), np.uint8)
    truth[0, 0] = 1
    truth[0, 1, :2] = 2
    first = truth.copy()
    first[0, 2:5] = 2  # 32 voxels for 2
    mended, gone = truth.copy(), truth.copy()
    gone[0, 1] = 0
    labels = {"pseudo_labels": first, "stage2": mended, "stage3": gone}
    result = run(tmp_path, labels, truth=truth, n_clusters=3)
    assert result["lost_classes"] == {"stage2": [], "stage3": ["cluster 2"]}
    assert result["product"]["reason"].endswith("it has lost cluster 2")
    # Without a truth nobody knows; of two clusters of one phase the one too many has gone.
    assert run(tmp_path, labels, n_clusters=3)["lost_classes"] == {"stage2": ["cluster 2"], "stage3": ["cluster 2"]}
    split = np.where(truth == 2, 0, truth)
    split[0, 5:8] = 2
    result = run(tmp_path, {"pseudo_labels": split, "stage2": split % 2}, truth=truth % 2, n_clusters=3)
    assert result["matching"]["map"]["cluster 2"] == result["matching"]["map"]["cluster 0"]
    assert result["lost_classes"] == {"stage2": ["cluster 2"]}


def test_a_network_of_the_user_s_classes_is_measured_by_their_numbers(tmp_path: Path) -> None:
    truth = np.array([[[0, 0, 0, 1, 1, 1]]], np.uint8)
    wrong = 1 - truth  # matching by overlap would call it perfect
    result = run(tmp_path, {"stage2": wrong}, truth=truth, n_clusters=2, word=CLASS)
    assert result["matching"]["method"] == result["best_map"]["stage2"]["method"] == "numbers"
    assert result["matching"]["map"] == {"class 0": "background", "class 1": "class 1"}
    assert result["stages"]["stage2"]["mean_iou"] == 0


@pytest.mark.parametrize(
    ("names", "shift", "classes", "called"),
    [
        ({}, 0, {}, ["class 0", "class 1"]),
        ({0: "matrix", 1: "cell"}, 0, {}, ["matrix", "cell"]),
        ({"1": "cell"}, 0, None, ["class 0", "cell"]),
        # The user's own name counts, here too where the truth has others.
        ({0: "matrix", 1: "cell"}, 0, {"mine": {"clusters": [1]}}, ["class 0", "mine"]),
        # Another numbering, more values than classes, or one name for both: names of the truth stay the truth's.
        ({1: "matrix", 2: "cell"}, 1, {}, ["class 0", "class 1"]),
        ({1: "cell"}, 1, {}, ["class 0", "class 1"]),
        ({1: "cell", 2: "other"}, 0, {}, ["class 0", "class 1"]),
        ({0: "cell", 1: "cell"}, 0, {}, ["class 0", "class 1"]),
        ({0: "class 1"}, 0, {}, ["class 0", "class 1"]),
    ],
)
def test_a_class_takes_the_name_of_the_value_that_is_its_number(
    tmp_path: Path, names: Any, shift: int, classes: Any, called: list[str]
) -> None:
    truth = np.array([[[0, 0, 0, 1, 1, 1]]], np.uint8)
    settings = {"truth_names": names}
    result = run(
        tmp_path,
        {"stage2": truth, "mpp": truth},
        truth=truth + np.uint8(shift),
        n_clusters=2,
        word=CLASS,
        classes=classes,
        settings=settings,
    )
    assert [row["name"] for row in result["classes"]] == called
    assert list(result["stages"]["mpp"]["fractions"]) == called
    assert result["word"] == "class"
    assert bool(result["warnings"]) == bool(shift)
    # Clusters are matched by overlap, and stay clusters.
    clusters = run(tmp_path, {"stage2": truth}, truth=truth, n_clusters=2, settings=settings)
    assert [row["name"] for row in clusters["classes"]] == ["cluster 0", "cluster 1"]


def test_what_refinement_did_is_said_of_classes_by_name(tmp_path: Path) -> None:
    stages = {name: labels for name, labels in phantom()[0].items() if name != "pseudo_labels"}
    change = describe(np.diag([90, 90, 90, 2]) + np.eye(4, k=-1, dtype=int) * 8, 0.5, "refine_scm")
    assert change["warnings"] == ["refine_scm took 80.0% of class 3 away and added 0.0%"]
    for classes, name in (({}, "class 3"), ({"rim": {"clusters": [3]}}, "rim")):
        result = run(tmp_path, stages, refinement={"scm": change}, word=CLASS, classes=classes)
        assert result["product"]["reason"] == f"SCM took away more than half of {name}"
        assert result["refinement"]["scm"]["warnings"] == [f"refine_scm took 80.0% of {name} away and added 0.0%"]


def test_a_lost_class_of_the_labels_is_not_a_cluster_too_many(tmp_path: Path) -> None:
    labels = np.array([[[0, 0, 0, 1, 1, 1]]], np.uint8)
    stages = {"stage2": labels, "mpp": np.zeros_like(labels)}
    assert "were these clusters too many?" in stage_table(run(tmp_path, stages, n_clusters=2))
    table = stage_table(run(tmp_path, stages, n_clusters=2, word=CLASS))
    assert table.startswith("WARNING: the product has lost class 1; is enough of each labelled?")
    assert "cluster" not in table
