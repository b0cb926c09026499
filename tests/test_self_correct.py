"""Stage 3: what the student learns from, the teacher's pace, the watch, the verdict, resuming."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import training_case as case
from beamseg.device import choose
from beamseg.models import load_weights
from beamseg.provenance import read_json
from beamseg.self_correct import Confidence, anchored, follow, judge
from beamseg.volumes import ArrayVolume
from beamseg.watch import Watch, class_ious, class_recalls, implied_rates, local_spread, mean_iou, within_margin

FIXED = {"kind": "fixed", "threshold": 0.8, "quantile": 0.5, "align": False}


@pytest.fixture(scope="module")
def stage2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained until it tells the two classes apart, so that there is something to lose."""
    return case.run_train(tmp_path_factory.mktemp("stage2"), steps=40, crop=32, checkpoint_s=60.0)


def probabilities(*first_class: float) -> torch.Tensor:
    """One row of pixels of two classes."""
    p = torch.tensor(first_class)
    return torch.stack([p, 1 - p])[None, :, None, :]


def test_one_threshold_for_all() -> None:
    inside = torch.tensor([[[True, True, True, False]]])
    classes, mask = Confidence(torch.tensor([0.5, 0.5]), FIXED).select(probabilities(0.85, 0.75, 0.1, 0.99), inside)
    assert classes.flatten().tolist() == [0, 0, 1, 0]
    assert mask.flatten().tolist() == [True, False, True, False]


def test_a_class_has_the_quantile_of_its_own_confidence_as_threshold() -> None:
    """Class 1 is faint: no pixel of it passes 0.8, half of them pass their own median."""
    sure, faint = torch.linspace(0.9, 0.999, 100), 1 - torch.linspace(0.51, 0.7, 100)
    probability = probabilities(*sure.tolist(), *faint.tolist())
    inside = torch.ones(1, 1, 200, dtype=torch.bool)
    for kind, wanted in (("fixed", (1.0, 0.0)), ("class", (1.0, 0.5))):
        _, mask = Confidence(torch.tensor([0.5, 0.5]), {**FIXED, "kind": kind}).select(probability, inside)
        kept = mask[0, 0, :100].float().mean().item(), mask[0, 0, 100:].float().mean().item()
        assert kept == pytest.approx(wanted, abs=0.03)


def test_alignment_holds_the_rates_of_stage_2() -> None:
    """A teacher that drifts to class 0 everywhere is pulled back by as much as it drifted."""
    chosen = Confidence(torch.tensor([0.5, 0.5]), {**FIXED, "align": True})
    inside = torch.ones(1, 1, 2, dtype=torch.bool)
    assert torch.equal(chosen.select(probabilities(0.6, 0.4), inside)[0].flatten(), torch.tensor([0, 1]))
    for _ in range(200):
        classes, _ = chosen.select(probabilities(0.9, 0.7), inside)
    assert classes.flatten().tolist() == [0, 1]


def test_the_anchor_lets_the_surer_of_teacher_and_stage_2_decide() -> None:
    """Two classes, p = 1 / (1 + exp(-(w a + (1 - w) t))) for the log odds t of the teacher and a of stage 2."""
    teacher, stage2 = (torch.tensor([[[x]], [[0.0]]])[None] for x in (2.0, -3.0))
    for weight, odds in ((0.0, 2.0), (0.5, -0.5), (1.0, -3.0)):
        expected = 1 / (1 + np.exp(-odds))
        assert anchored(teacher, stage2, weight)[0, 0].item() == pytest.approx(expected, rel=1e-6)


def test_an_anchor_of_one_learns_from_stage_2_alone(stage2: Path, tmp_path: Path) -> None:
    """With the weight 1 the teacher's pace cannot matter; with 0 it does."""

    def student_curve(name: str, anchor: float, ema: float) -> list[float]:
        (tmp_path / name).mkdir()
        case.run_self_correct(tmp_path / name, stage2, anchor=anchor, ema=ema, lr=0.05)
        return pd.read_csv(tmp_path / name / "self_correct.csv")["loss"].tolist()

    assert student_curve("a", 1.0, 0.0) == student_curve("b", 1.0, 0.9)
    assert student_curve("c", 0.0, 0.0) != student_curve("d", 0.0, 0.9)


def test_the_teacher_follows_by_equation_10() -> None:
    teacher, student = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    teacher.weight.data.fill_(1.0)
    student.weight.data.fill_(3.0)
    follow(teacher, student, 0.9)
    follow(teacher, student, 0.9)
    assert teacher.weight.item() == pytest.approx(1.38, rel=1e-6)


def test_mean_iou_counts_a_lost_class_as_nothing() -> None:
    a, b = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 1])
    assert mean_iou(a, b, 3, [0, 1]) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert mean_iou(a, b, 3, [0, 1, 2]) == pytest.approx((1 / 2 + 2 / 3) / 3)


def test_local_spread_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("beamseg.watch.gaussian_filter", lambda image, sigma: image)
    monkeypatch.setattr("beamseg.watch.TILE", 2)
    unit = np.array([[1, 1, 6, 6], [3, 3, 8, 8]]) / 10  # two tiles of 2 x 2
    grey = np.round(unit * 65535).astype(np.uint16)
    right = np.array([[0, 0, 0, 0], [1, 1, 1, 1]], dtype=np.uint8)
    assert local_spread(grey, right) == pytest.approx((0.0, 0.08), abs=1e-5)
    assert local_spread(grey, np.zeros_like(right)) == pytest.approx((0.08, 0.08), abs=1e-5)
    lost = np.array([[0, 0, 0, 0], [1, 1, 0, 1]], dtype=np.uint8)  # one of the two pixels given up: {6, 6, 8}, {8}
    assert local_spread(grey, lost) == pytest.approx((0.08 / 3, 0.08), abs=1e-5)
    grey[:, 3] = 0  # outside, whatever its label
    assert local_spread(grey, right) == pytest.approx((0.0, 0.06), abs=1e-5)


def test_local_spread_does_not_see_slow_shading_but_lost_pieces() -> None:
    y, x = np.mgrid[:64, :64]
    pieces = ((y // 4 + x // 4) % 4 == 0).astype(np.uint8)
    grey = np.round(20000 + 200.0 * x + 20000.0 * pieces).astype(np.uint16)
    within, total = local_spread(grey, pieces)
    by_level = (grey > 30000).astype(np.uint8)  # what a threshold makes of the shading
    assert within < local_spread(grey, by_level)[0]
    assert local_spread(grey, np.zeros_like(pieces))[0] == pytest.approx(total)


@pytest.fixture
def watch(stage2: Path) -> Watch:
    model, meta = load_weights(stage2)
    settings = case.section("self_correct")
    watch = Watch.of(model, [ArrayVolume(case.phantom()[0])], meta, settings, 0, choose("cpu"))
    watch.start = {"rates": [0.9, 0.099, 0.001, 0.0004], "agreement": 1.0, "consistency": 0.8, "unexplained": 0.2}
    watch.start |= {"labelled": 0.9, "rates_off": 0.05}
    return watch


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({}, None),
        ({"rates": [0.95, 0.05, 0.001, 0.0]}, None),
        ({"rates": [0.98, 0.02, 0.0, 0.0]}, "cluster 1 fell from 9.9% to 2.0% of the pixels"),
        ({"rates": [0.9, 0.1, 0.0, 0.0]}, "cluster 2 fell from 0.1% to 0.0% of the pixels"),
        ({"rates": [0.6, 0.4, 0.0, 0.0]}, "cluster 1 grew from 9.9% to 40.0% of the pixels"),
        ({"agreement": 0.5}, "only 50% of the pixels agree with stage 2"),
        ({"class_agreement": [0.9, 0.9, 0.7, 0.9]}, "cluster 2 has an IoU of 0.70 with that of stage 2"),
        ({"class_agreement": [0.9, 0.9, 0.9, 0.0]}, None),
        (
            {"unexplained": 0.23},
            "labels leave 23.0% of the local contrast unexplained, those of stage 2 20.0%",
        ),
        ({"rates_off": 0.052}, None),
        ({"rates_off": 0.054}, "shares of classes are 5.4% off those that grey levels imply, stage 2's 5.0%"),
        ({"labelled": 0.89}, "mean IoU 0.890 on the labelled pixels is below that of stage 2, 0.900"),
    ],
)
def test_the_watch_says_what_is_wrong(watch: Watch, change: dict[str, object], wanted: str | None) -> None:
    found = {
        "rates": [0.9, 0.099, 0.001, 0.0004],
        "agreement": 0.9,
        "class_agreement": [0.9, 0.9, 0.8, 0.9],
        "consistency": 0.85,
        "unexplained": 0.205,
        "labelled": 0.9,
        **change,
    }
    assert watch.failure(found) == wanted


def test_shares_as_near_as_the_mixture_itself_is_right_are_not_questioned(watch: Watch) -> None:
    watch.start["rates_off"] = 0.01
    found = {"rates": watch.start["rates"], "agreement": 0.9, "class_agreement": [0.9] * 4, "unexplained": 0.2}
    assert watch.failure({**found, "labelled": 0.9, "rates_off": 0.039}) is None
    assert watch.failure({**found, "labelled": 0.9, "rates_off": 0.041}) is not None


def test_the_watch_speaks_of_classes_where_the_user_gave_them(watch: Watch) -> None:
    watch.word = "class"
    found = {"rates": [0.98, 0.02, 0.0, 0.0], "agreement": 0.9}
    assert watch.failure(found) == "class 1 fell from 9.9% to 2.0% of the pixels"


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({}, None),
        ({"labelled_recall": [0.79, 0.56, 1.0, 1.0]}, None),
        (
            {"labelled_recall": [0.9, 0.5, 1.0, 1.0]},
            "of the painted pixels of class 1 50% are found, stage 2 found 70%",
        ),
        ({"unexplained": 0.2}, None),
        ({"unexplained": 0.201}, "labels leave 20.1% of the local contrast unexplained, those of stage 2 20.0%"),
        ({"agreement": 0.5}, "only 50% of the pixels agree with stage 2"),
    ],
)
def test_where_pixels_are_painted_they_say_whether_a_class_is_kept(
    watch: Watch, change: dict[str, object], wanted: str | None
) -> None:
    """Neither shares nor agreement by class do, nor pixels that stage 2 learned by heart."""
    watch.painted = True
    watch.start["labelled_recall"] = [0.9, 0.7, 0.0, 1.0]
    found = {
        "rates": [0.99, 0.005, 0.004, 0.001],
        "agreement": 0.9,
        "class_agreement": [0.9, 0.1, 0.1, 0.1],
        "unexplained": 0.19,
        "labelled": 0.8,
        "labelled_recall": [0.9, 0.6, 0.0, 1.0],
        **change,
    }
    assert watch.failure(found) == wanted


def test_recall_by_class() -> None:
    found, given = np.array([0, 1, 1, 2, 2], np.uint8), np.array([0, 0, 1, 1, 1], np.uint8)
    assert class_recalls(found, given, 3) == [1 / 2, 1 / 3, 1.0]


def test_without_a_gain_stage_2_stays_and_nothing_has_failed(watch: Watch) -> None:
    found = {"rates": watch.start["rates"], "agreement": 0.9, "class_agreement": [0.9] * 4, "unexplained": 0.2}
    words = "self-consistency 0.805 gains less than 0.01 over that of stage 2, 0.800"
    last = {**found, "labelled": 0.9, "consistency": 0.805}
    assert watch.failure(last) is None
    assert watch.no_gain({**last, "consistency": 0.815}) is None
    assert watch.no_gain(last) == words
    verdict = judge(watch, {}, last)
    assert (verdict["use"], verdict["reason"], verdict["harmless"]) == ("stage2", words, True)


def test_grey_levels_imply_the_shares_of_phases_that_overlap() -> None:
    """A rare phase 1.5 σ beside a common one, and a third far off; cuts in the middle give the rare one too much."""
    rng = np.random.default_rng(0)
    truth = rng.choice(3, 200_000, p=[0.6, 0.1, 0.3])
    grey = (np.array([20_000, 23_000, 50_000])[truth] + 2_000 * rng.standard_normal(len(truth))).astype(np.uint16)
    labels = np.digitize(grey, [21_500, 36_500]).astype(np.uint8)
    cut = np.bincount(labels) / len(labels)
    assert cut[1] > 0.2
    implied = implied_rates(grey, labels, 3)
    assert implied == pytest.approx([0.6, 0.1, 0.3], abs=0.01)
    # Whatever the labels it begins with, here shares a third off, and in another order.
    swapped = np.array([2, 0, 1], np.uint8)[np.digitize(grey, [20_000, 36_500])]
    assert implied_rates(grey, swapped, 3) == pytest.approx([0.1, 0.3, 0.6], abs=0.01)
    assert implied_rates(grey, labels, 4) == pytest.approx([0.6, 0.1, 0.3, 0], abs=0.01)


def test_the_shares_that_grey_levels_imply_are_measured_of_clusters_alone(stage2: Path) -> None:
    model, meta = load_weights(stage2)
    grey, _ = case.phantom()
    arguments = (model, [ArrayVolume(grey)], meta, case.section("self_correct"), 0, choose("cpu"))
    start = Watch.of(*arguments).start
    assert 0 <= start["rates_off"] < 0.1
    assert "rates_off" not in Watch.of(*arguments, label_source="slices").start
    nothing = (model, [ArrayVolume(np.zeros_like(grey))], *arguments[2:])
    assert "rates_off" not in Watch.of(*nothing).start


def test_agreement_by_class() -> None:
    a, b = np.array([0, 0, 1, 1, 1], np.uint8), np.array([0, 1, 1, 1, 0], np.uint8)
    assert class_ious(a, b, 3) == [1 / 3, 2 / 4, 1.0]


def test_the_watch_measures_the_user_s_labels(stage2: Path) -> None:
    """Mean IoU of what the network says, whole windows, on the labelled pixels alone."""
    model, meta = load_weights(stage2)
    grey, truth = case.phantom()
    labels = np.full_like(truth, 255)
    labels[2, :20] = truth[2, :20]
    settings, volumes = case.section("self_correct"), [ArrayVolume(grey)]
    how = (meta, settings, 0, choose("cpu"))
    watch = Watch.of(model, volumes, *how, [ArrayVolume(labels)], [(0, 2)])
    edge = min(256, *grey.shape[1:])
    assert watch.given.shape == (8, edge, edge)
    taught = watch.given != 255
    said = np.stack(watch._labels(model, watch.examples))
    iou = [
        ((said == c) & (watch.given == c)).sum() / (((said == c) | (watch.given == c)) & taught).sum()
        for c in np.unique(watch.given[taught])
    ]
    assert 0 < taught.mean() < 1
    assert watch.start["labelled"] == pytest.approx(np.mean(iou), abs=1e-5)
    recalls = [(said == c)[watch.given == c].mean() for c in range(len(iou))]
    assert watch.start["labelled_recall"] == pytest.approx(recalls, abs=1e-5)
    assert not watch.painted
    assert Watch.of(model, volumes, *how, [ArrayVolume(labels)], [(0, 2)], label_source="pixels").painted
    assert not Watch.of(model, volumes, *how, label_source="pixels").painted  # a scan that has no labels of its own
    assert "labelled" not in Watch.of(model, volumes, *how).start


def test_a_collapsed_teacher_hands_on_stage_2(watch: Watch) -> None:
    last = {"rates": [1.0, 0.0, 0.0, 0.0], "agreement": 0.9, "consistency": 1.0}
    verdict = judge(watch, {}, last)
    assert verdict["use"] == "stage2"
    assert verdict["reason"] == "self-correction failed the watch: cluster 1 fell from 9.9% to 0.0% of the pixels"
    assert verdict["watch"]["best"] is None
    best = {"rates": [0.9, 0.099, 0.001, 0.0], "agreement": 0.9, "consistency": 0.9, "step": 50, "weights": {}}
    verdict = judge(watch, best, last)
    assert verdict["use"] == "stage3"
    assert "weights" not in verdict["watch"]["best"]


def test_what_is_handed_on_lies_between_stage_2_and_the_teacher(stage2: Path, tmp_path: Path) -> None:
    for share in (0.25, 1.0):
        (tmp_path / f"{share}").mkdir()
        case.run_self_correct(tmp_path / f"{share}", stage2, steps=2, log_every=2, ema=0.5, blend=share)
    losses = [pd.read_csv(tmp_path / f"{share}" / "self_correct.csv")["loss"].tolist() for share in (0.25, 1.0)]
    assert losses[0] == losses[1]
    start, mixed, teacher = (
        load_weights(path)[0].state_dict()
        for path in (stage2, *(tmp_path / f"{share}" / "stage3.safetensors" for share in (0.25, 1.0)))
    )
    assert any(not torch.equal(start[name], teacher[name]) for name in start)
    for name, weight in mixed.items():
        torch.testing.assert_close(weight, 0.75 * start[name] + 0.25 * teacher[name])


def test_stage_3_reads_no_labels_and_leaves_its_verdict(stage2: Path, tmp_path: Path) -> None:
    verdict = case.run_self_correct(tmp_path, stage2)
    assert read_json(tmp_path / "verdict.json") == verdict
    assert verdict["use"] in ("stage2", "stage3")
    curves = pd.read_csv(tmp_path / "self_correct.csv")
    assert list(curves["step"]) == [2, 4, 6, 8]
    assert {"loss", "kept", "rate_0", "rate_1", "agreement", "consistency"} < set(curves)
    assert curves["kept"].between(0, 1).all()
    assert load_weights(tmp_path / "stage3.safetensors")[1]["stage"] == "stage3"
    assert not list(tmp_path.glob(".*"))


def test_labelled_pixels_are_learned_with_their_labels_and_are_in_every_batch(stage2: Path, tmp_path: Path) -> None:
    labels = np.full((6, 40, 40), 255, np.uint8)
    labels[4] = 1  # against what stage 2 says
    case.run_self_correct(tmp_path, stage2, labels=labels, steps=2, confidence={**FIXED, "threshold": 1.01})
    curves = pd.read_csv(tmp_path / "self_correct.csv")
    # The teacher is sure of nothing, so what is learned is the labelled crop, one of the two.
    assert curves["rate_1"].tolist() == [1.0]
    assert curves["kept"].between(0.5, 1).all()


def test_of_a_few_painted_pixels_every_labelled_crop_holds_one(stage2: Path, tmp_path: Path) -> None:
    labels = np.full((6, 40, 40), 255, np.uint8)
    labels[4, 18:22, 1] = 1  # at the left border, where a crop of 32 pixels at random reaches two times in nine
    case.run_self_correct(
        tmp_path, stage2, labels=labels, label_source="pixels", log_every=1, confidence={**FIXED, "threshold": 1.01}
    )
    curves = pd.read_csv(tmp_path / "self_correct.csv")
    assert len(curves) == 8
    assert (curves["kept"] > 0).all()
    assert (curves["rate_1"] == 1).all()


def test_a_student_driven_wild_does_not_become_the_product(stage2: Path, tmp_path: Path) -> None:
    """A teacher that copies a student with an absurd learning rate fails the watch, and the verdict says so."""
    verdict = case.run_self_correct(tmp_path, stage2, lr=30.0, ema=0.0, steps=6)
    assert min(verdict["watch"]["start"]["rates"]) > 0.2
    assert verdict["use"] == "stage2"
    assert verdict["reason"].startswith("self-correction failed the watch: ")
    bits = [load_weights(path)[0].state_dict() for path in (stage2, tmp_path / "stage3.safetensors")]
    assert not all(torch.equal(bits[0][name], bits[1][name]) for name in bits[0])


def test_sigkill_anywhere_gives_the_same_bits(stage2: Path, tmp_path: Path) -> None:
    once, again = tmp_path / "once", tmp_path / "again"
    case.run_self_correct(once, stage2)
    again.mkdir()
    path = os.pathsep.join(map(str, [Path(case.__file__).parents[1] / "scripts", os.environ.get("PYTHONPATH", "")]))
    command = [sys.executable, str(Path(case.__file__)), "self_correct", str(again), "28", str(stage2)]
    ended = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, check=False)
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
    assert (again / ".stage3.resume.pt").exists()
    case.run_self_correct(again, stage2)
    for name in ("stage3.safetensors", "verdict.json", "self_correct.csv"):
        assert (again / name).read_bytes() == (once / name).read_bytes()
    assert np.isfinite(pd.read_csv(once / "self_correct.csv")["loss"]).all()


def test_pixels_near_the_crops_border_teach_nothing() -> None:
    inside = torch.ones(2, 12, 12, dtype=torch.bool)
    inside[1, 5, 5] = False
    kept = within_margin(inside, 2)
    assert kept[0].sum() == 64
    assert kept[1].sum() == 63
    assert not kept[:, :2].any()
    assert not kept[:, :, -2:].any()
    assert within_margin(inside, 100)[0].sum() == 36, "a quarter of the crop at most"
    assert within_margin(inside, 0).equal(inside)
