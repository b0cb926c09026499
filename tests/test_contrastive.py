"""Few painted pixels: both losses as the paper prints them, whom they compare, and what changes no structure."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import training_case as case
from beamseg import contrastive
from beamseg.crops import Crops, painted_places
from beamseg.device import choose
from beamseg.errors import InputError
from beamseg.label_values import SUGGESTED
from beamseg.losses import cross_entropy, with_suggestions
from beamseg.models import build_model, load_weights
from beamseg.train_contrastive import contrast, train_contrastive
from beamseg.training_labels import suggest
from beamseg.volumes import ArrayVolume

X, Y, D = [1.0, 0.0], [0.0, 2.0], [3.0, 3.0]
"""Cosines: of X and Y 0, of either and D 1/√2, whatever their lengths."""
HALF = math.sqrt(0.5)
TABLE_1 = {"probability": 0.5, "noise": [0.01, 0.06], "shift": 0.01, "blur": [0.5, 1.5]}


def tensor(*rows: Any) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32)


def test_equation_4_by_hand() -> None:
    # One anchor X, a positive D, a negative Y: N_P = 2, cosines 1/√2 and 0.
    total, count = contrastive.supervised(tensor(X), tensor([D]), tensor([Y]))
    expected = -1 / 2 * math.log(math.exp(HALF) / (math.exp(HALF) + 1))
    assert (float(total), int(count)) == (pytest.approx(expected), 1)
    # Two positives: the denominator is over all four partners, the divisor N_P = 4.
    positives, negatives = tensor([D, X]), tensor([Y, [-1.0, 0.0]])
    below = math.exp(HALF) + math.exp(1) + 1 + math.exp(-1)
    expected = -1 / 4 * (math.log(math.exp(HALF) / below) + math.log(math.exp(1) / below))
    assert float(contrastive.supervised(tensor(X), positives, negatives)[0]) == pytest.approx(expected)
    usual, _ = contrastive.supervised(tensor(X), positives, negatives, form="usual")
    assert float(usual) == pytest.approx(2 * expected)
    below = math.exp(HALF / 0.5) + 1
    cold, _ = contrastive.supervised(tensor(X), tensor([D]), tensor([Y]), temperature=0.5)
    assert float(cold) == pytest.approx(-1 / 2 * math.log(math.exp(HALF / 0.5) / below))


def test_equation_6_by_hand() -> None:
    # Pixels X, Y, D of one slice; X is unchanged, Y turned to D, D turned to X.
    embedded, changed = tensor([X, Y, D]), tensor([X, D, X])
    terms = [
        math.log(math.exp(1) / (math.exp(0) + math.exp(HALF))),
        math.log(math.exp(HALF) / (math.exp(0) + math.exp(HALF))),
        math.log(math.exp(HALF) / (math.exp(HALF) + math.exp(HALF))),
    ]
    total, count = contrastive.self_supervised(embedded, changed)
    assert (float(total), int(count)) == (pytest.approx(-sum(terms)), 3)
    # The usual form: the pair itself, and the others of both views.
    below = math.exp(0) + math.exp(HALF) + math.exp(1) + math.exp(HALF) + math.exp(1)
    usual, _ = contrastive.self_supervised(embedded, changed, form="usual")
    others = math.exp(0) + math.exp(HALF) + (math.exp(0) + math.exp(HALF) + math.exp(0))
    third = 2 * math.exp(HALF) + (math.exp(HALF) + math.exp(1) + math.exp(HALF))
    expected = -(math.log(math.exp(1) / below) + math.log(math.exp(HALF) / others) + math.log(math.exp(HALF) / third))
    assert float(usual) == pytest.approx(expected, rel=1e-5)


def test_slices_do_not_see_each_other() -> None:
    a, b = torch.randn(2, 1, 5, 4), torch.randn(2, 1, 5, 4)
    together, _ = contrastive.self_supervised(torch.cat([*a], 0), torch.cat([*b], 0))
    alone = sum(float(contrastive.self_supervised(x, y)[0]) for x, y in zip(a, b, strict=True))
    assert float(together) == pytest.approx(alone, rel=1e-5)


def test_partners_are_of_the_right_kind() -> None:
    labels = np.full((3, 4, 5), 255, np.uint8)
    labels[0, 0] = [0, 0, 0, 1, 1]
    labels[2, 3] = [2, 2, 1, 255, 0]
    anchors, positives, negatives = contrastive.draw_partners(labels, 100, 20, np.random.default_rng(0))
    flat = labels.ravel()
    assert sorted(anchors) == sorted(np.flatnonzero(flat != 255))
    assert positives.shape == negatives.shape == (9, 10)
    assert (flat[positives] == flat[anchors][:, None]).all()
    assert (flat[negatives] != flat[anchors][:, None]).all()
    assert (flat[negatives] != 255).all()
    assert (positives != anchors[:, None]).all()
    for own in anchors:
        drawn = [contrastive.draw_partners(labels, 100, 40, np.random.default_rng(s)) for s in range(20)]
        at = {tuple(np.flatnonzero(a == own)) for a, _, _ in drawn}
        row = at.pop()[0]
        same = set(np.flatnonzero(flat == flat[own])) - {own}
        others = set(np.flatnonzero((flat != flat[own]) & (flat != 255)))
        assert set(np.concatenate([p[row] for _, p, _ in drawn])) == same
        assert set(np.concatenate([n[row] for _, _, n in drawn])) == others
    assert len(contrastive.draw_partners(labels, 4, 20, np.random.default_rng(0))[0]) == 4


@pytest.mark.parametrize("how", ["balanced", "uniform"])
def test_no_partner_is_the_anchors_own_pixel_in_another_crop(how: str) -> None:
    """Four crops of two places, of which each pixel lies in two, and class 2 on one pixel of the scan alone."""
    source = np.arange(2 * 3 * 4).reshape(2, 3, 4)[[0, 1, 0, 1]]
    labels = (source % 2).astype(np.uint8)
    labels[source == 7] = 2
    for seed in range(20):
        rng = np.random.default_rng(seed)
        anchors, positives, negatives = contrastive.draw_partners(labels, 100, 20, rng, how, source)
        origin, of = source.ravel(), labels.ravel()
        assert (origin[positives] != origin[anchors][:, None]).all()
        assert (of[positives] == of[anchors][:, None]).all()
        assert (of[negatives] != of[anchors][:, None]).all()
        assert set(of[anchors]) == {0, 1}
        assert 2 in of[negatives]


def test_uniform_anchors_and_partners_come_as_they_are_painted() -> None:
    labels = np.zeros((1, 30, 40), np.uint8)
    labels[0, :2], labels[0, 2, :10] = 1, 2
    rng = np.random.default_rng(0)
    anchors, _, negatives = contrastive.draw_partners(labels, 600, 20, rng, "uniform")
    own = labels.ravel()[anchors]
    assert np.bincount(own) == pytest.approx([555, 40, 5], abs=20)
    assert len(np.unique(anchors)) == 600
    of_first = np.bincount(labels.ravel()[negatives[own == 0]].ravel(), minlength=3)
    assert of_first[0] == 0
    assert of_first[2] / of_first.sum() == pytest.approx(10 / 90, abs=0.02)


@pytest.mark.parametrize("painted", [[], [0, 0, 0], [0, 1]])
def test_nobody_to_compare_with(painted: list[int]) -> None:
    labels = np.full((1, 2, 4), 255, np.uint8)
    labels[0, 0, : len(painted)] = painted
    drawn = contrastive.draw_partners(labels, 10, 20, np.random.default_rng(0))
    assert [part.shape for part in drawn] == [(0,), (0, 10), (0, 10)]
    total, count = contrastive.supervised(*(contrastive.at(torch.ones(1, 3, 2, 4), part) for part in drawn))
    assert float(total) == 0
    assert int(count) == 0


def test_a_single_pixel_of_a_class_is_a_negative_only() -> None:
    labels = np.array([[[0, 0, 1]]], np.uint8)
    anchors, _, negatives = contrastive.draw_partners(labels, 10, 20, np.random.default_rng(0))
    assert sorted(anchors) == [0, 1]
    assert set(negatives.ravel()) == {2}


def test_embeddings_at_pixels() -> None:
    embedded = torch.randn(2, 5, 3, 4).contiguous(memory_format=torch.channels_last)
    found = contrastive.at(embedded, np.array([[0, 13], [23, 5]]))
    assert torch.equal(found, torch.stack([torch.stack([embedded[0, :, 0, 0], embedded[1, :, 0, 1]]),
                                           torch.stack([embedded[1, :, 2, 3], embedded[0, :, 1, 1]])]))  # fmt: skip


def test_sampled_pixels_lie_inside_each_slice() -> None:
    inside = np.zeros((3, 6, 6), bool)
    inside[0, :2], inside[2, 3:] = True, True
    (pixels,) = contrastive.draw_pixels(inside, 8, np.random.default_rng(0))
    assert pixels.shape == (2, 8)
    assert inside.ravel()[pixels].all()
    assert len(np.unique(pixels)) == 16
    assert (pixels // 36 == [[0], [2]]).all()
    # Slices that have fewer give what they have, and the others do not suffer from it.
    few, more = contrastive.draw_pixels(inside, 14, np.random.default_rng(0))
    assert set(few[0]) == set(np.flatnonzero(inside[0]))
    assert (few.shape, more.shape) == ((1, 12), (1, 14))
    assert contrastive.draw_pixels(inside[1:2], 8, np.random.default_rng(0)) == []


class Recorder(torch.nn.Module):
    """A network that returns its input three times over, and keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[torch.Tensor] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.given.append(images)
        return torch.cat([images, 1 - images, images**2], dim=1)


def contrasted(
    body: torch.nn.Module, inside: torch.Tensor, pixels: int, suggested: bool = False, **changes: Any
) -> dict[str, Any]:
    """What a step of two classes, painted in the first two rows of every crop, measures of random images."""
    images = torch.rand(inside.shape, generator=torch.Generator().manual_seed(0)) * inside
    target = torch.full((len(images), *images.shape[2:]), 255, dtype=torch.uint8)
    target[:, 0], target[:, 1] = 0, 1
    if suggested:
        target[:, 2], target[:, 3] = SUGGESTED, SUGGESTED + 1
    settings = {**case.section("train")["contrastive"], "pixels": pixels, **changes}
    return contrast(body, images, inside, target, settings, 0, 0, choose("cpu"))


def test_the_second_view_is_the_transformed_one() -> None:
    inside = torch.ones(2, 1, 12, 12, dtype=torch.bool)
    inside[..., :3] = False
    body = Recorder()
    in_place = case.section("train")["contrastive"]["transform"] | {"move": 0}
    losses = contrasted(body, inside, 50, transform=in_place)
    first, second = body.given
    assert not second[..., :3].any()
    assert (first[..., 3:] - second[..., 3:]).abs().mean((1, 2, 3)).min() > 0.005
    same = contrasted(Recorder(), inside, 50, transform=STILL)
    assert float(losses["self_supervised_loss"][0]) > float(same["self_supervised_loss"][0])


STILL = {"probability": 0.0, "noise": [0.0, 0.0], "shift": 0.0, "blur": [0.5, 1.5], "move": 0}


def test_pixels_are_found_again_where_the_second_view_has_moved() -> None:
    """A network that sees one pixel at a time embeds it the same wherever it lies."""
    inside = torch.ones(2, 1, 12, 14, dtype=torch.bool)
    body = Recorder()
    moved = contrasted(body, inside, 50, transform=STILL | {"move": 5})["self_supervised_loss"]
    first, second = body.given
    assert not torch.equal(first, second)
    assert float(moved[0]) == pytest.approx(
        float(contrasted(Recorder(), inside, 50, transform=STILL)["self_supervised_loss"][0]), rel=1e-6
    )


def test_where_pixels_lie_in_an_image_rolled() -> None:
    images = np.arange(2 * 3 * 5).reshape(2, 3, 5)
    pixels, move = np.array([[0, 13], [29, 17]]), np.array([2, 4])
    rolled = np.roll(images, move, (1, 2))
    assert np.array_equal(rolled.ravel()[contrastive.moved(pixels, move, (3, 5))], pixels)


def test_a_rare_class_is_compared_as_often() -> None:
    labels = np.zeros((1, 30, 40), np.uint8)
    labels[0, :2], labels[0, 2, :10] = 1, 2
    anchors, _, negatives = contrastive.draw_partners(labels, 100, 20, np.random.default_rng(0))
    own = labels.ravel()[anchors]
    assert np.bincount(own).tolist() == [45, 45, 10]
    assert len(np.unique(anchors)) == 100
    of_first = np.bincount(labels.ravel()[negatives[own == 0]].ravel())
    assert of_first[0] == 0
    assert 0.4 < of_first[2] / of_first.sum() < 0.6


def test_what_clusters_suggest_is_compared_with_nobody() -> None:
    inside = torch.ones(2, 1, 12, 12, dtype=torch.bool)
    plain = contrasted(Recorder(), inside, 50, losses=["supervised"])
    suggested = contrasted(Recorder(), inside, 50, suggested=True, losses=["supervised"])
    assert int(plain["supervised_loss"][1]) == int(suggested["supervised_loss"][1]) == 48
    assert float(plain["supervised_loss"][0]) == float(suggested["supervised_loss"][0])


def test_a_crop_at_the_edge_of_the_field_of_view_takes_no_pixel_from_the_others() -> None:
    inside = torch.ones(4, 1, 12, 12, dtype=torch.bool)
    inside[0] = False
    inside[0, 0, 0, :2] = True
    total, count = contrasted(Recorder(), inside, 50)["self_supervised_loss"]
    assert int(count) == 2 + 3 * 50
    alone = contrasted(Recorder(), inside[1:], 50)["self_supervised_loss"]
    assert float(total / count) == pytest.approx(float(alone[0] / alone[1]), rel=0.1)
    total, count = contrasted(Recorder(), torch.zeros_like(inside), 50)["self_supervised_loss"]
    assert (float(total), int(count)) == (0, 0)


def test_a_blur_does_not_darken_the_edge_of_the_field_of_view() -> None:
    inside = torch.zeros(2, 1, 24, 24, dtype=torch.bool)
    inside[..., 6:20, 5:] = True
    drawn = {"noise": np.zeros(2), "shift": np.zeros(2), "blur": np.array([1.5, 0.5])}
    images = 0.5 * inside
    out = contrastive.transform(images, inside, drawn, torch.Generator().manual_seed(0))
    assert torch.allclose(out, images, atol=1e-5)
    # And it still blurs: a step inside the field of view is no step any more.
    images[..., 12:] *= 1.5
    out = contrastive.transform(images, inside, drawn, torch.Generator().manual_seed(0))
    assert 0.5 < float(out[0, 0, 10, 11]) < float(out[0, 0, 10, 12]) < 0.75


def test_table_1_ranges() -> None:
    drawn = contrastive.draw_transform(0, 0, 400, TABLE_1)
    assert drawn["noise"].min() >= 0.01
    assert drawn["noise"].max() <= 0.06
    assert np.ptp(drawn["noise"]) > 0.04
    for name, least, most in (("shift", -0.01, 0.01), ("blur", 0.5, 1.5)):
        used = drawn[name][drawn[name] != 0]
        assert 150 < len(used) < 250
        assert used.min() >= least
        assert used.max() <= most
        assert np.ptp(used) > 0.9 * (most - least)
    both = (drawn["shift"] != 0) & (drawn["blur"] != 0)  # each by itself: a quarter of the crops, 100 ± 9
    assert 60 < both.sum() < 140


def test_the_transformation_keeps_places_and_the_outside() -> None:
    images = torch.zeros(2, 1, 21, 21)
    images[:, :, 10, 10] = 1.0
    inside = torch.ones(2, 1, 21, 21, dtype=torch.bool)
    inside[..., :3] = False
    drawn = {"noise": np.zeros(2), "shift": np.array([0.01, 0.0]), "blur": np.array([0.0, 1.0])}
    out = contrastive.transform(images, inside, drawn, torch.Generator().manual_seed(0))
    assert torch.allclose(out[0], (images[0] + 0.01) * inside[0])
    peak = (1 / sum(math.exp(-0.5 * d * d) for d in range(-3, 4))) ** 2
    assert float(out[1, 0, 10, 10]) == pytest.approx(peak, rel=1e-5)
    assert float(out[1].sum()) == pytest.approx(1.0, rel=1e-5)
    assert int(out[1].argmax()) == 10 * 21 + 10
    drawn["noise"] = np.array([0.05, 0.05])
    noisy = contrastive.transform(torch.zeros(2, 1, 64, 64), torch.ones(2, 1, 64, 64), {**drawn, "blur": np.zeros(2)},
                                  torch.Generator().manual_seed(0))  # fmt: skip
    assert float(noisy[1].std()) == pytest.approx(0.05, rel=0.05)


def test_crops_hold_a_painted_pixel_and_every_class_as_often() -> None:
    labels = np.full((5, 40, 50), 255, np.uint8)
    labels[3, 5:25, 5:25] = 0
    labels[3, 39, 49] = 1
    grey = np.full((5, 40, 50), 9, np.uint16)
    places = painted_places([ArrayVolume(labels)], seed=0)
    assert [len(p) for p in places] == [400, 1]
    assert places[1].tolist() == [[0, 3, 39, 49]]
    crops = Crops([ArrayVolume(grey)], [ArrayVolume(labels)], 1, 16, 8, 0, 100, anchors=places)
    assert crops.epoch_slices == 1
    held = [crops.crop(step, index)[1] for step in range(10) for index in range(8)]
    assert all((crop != 255).any() for crop in held)
    assert 20 < sum((crop == 1).any() for crop in held) < 60


def test_crops_say_which_pixels_they_show() -> None:
    """Of two volumes whose voxels are their own numbers, smaller than the crop along x, so reflected there."""
    grey = [np.arange(n).reshape(s).astype(np.uint16) for n, s in ((5 * 20 * 13, (5, 20, 13)), (600, (2, 20, 15)))]
    labels = [np.full(volume.shape, 255, np.uint8) for volume in grey]
    labels[0][3, 2:9, 4], labels[1][1, 18, 3:9] = 0, 1
    pair = [[ArrayVolume(array) for array in arrays] for arrays in (grey, labels)]
    crops = Crops(*pair, 1, 16, 6, 0, 100, anchors=painted_places(pair[1], 0))
    everything = np.concatenate([volume.ravel() for volume in grey])
    for step in range(4):
        np.testing.assert_array_equal(everything[crops.sources(step)], crops.step(step)[0][:, 0])


@pytest.mark.parametrize("name", ["unet", "segformer", "deeplabv3_plus"])
def test_any_network_carries_the_embedding(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build_model(name, 1, 3, embedding=16).eval()
    image = torch.rand(1, 1, 33, 40)
    with torch.no_grad():
        assert model.body(image).shape == (1, 16, 33, 40)
        assert torch.equal(model(image), model.head(model.body(image)))
    assert model.head.weight.shape == (3, 16, 1, 1)


def test_widths_are_of_the_u_nets_alone() -> None:
    small = build_model("unet", 1, 2, widths=[16, 32, 64, 128])
    assert small.stride == 8
    assert sum(p.numel() for p in small.parameters()) < 0.6e6
    with pytest.raises(InputError, match=r"model\.widths"):
        build_model("segformer", 1, 2, widths=[16, 32])


def test_two_phases_one_file(tmp_path: Path) -> None:
    model, meta = load_weights(case.run_contrastive(tmp_path))
    assert meta["options"] == {"dropout": 0.0, "embedding": 16, "widths": [8, 16]}
    assert model(torch.rand(1, 1, 16, 16)).shape == (1, 2, 16, 16)
    curves = pd.read_csv(tmp_path / "train.csv")
    assert list(curves["step"]) == [2, 4, 6, 8, 10]
    embeds = curves["step"] <= 6
    assert curves.loc[embeds, ["supervised_loss", "self_supervised_loss"]].notna().all(axis=None)
    assert curves.loc[~embeds, ["supervised_loss", "self_supervised_loss"]].isna().all(axis=None)
    sums = curves["supervised_loss"] + curves["self_supervised_loss"]
    assert curves.loc[embeds, "loss"].to_numpy() == pytest.approx(sums[embeds].to_numpy(), rel=0.2)
    assert (curves["rate_0"] + curves["rate_1"])[~embeds].to_numpy() == pytest.approx(1.0, abs=1e-5)


def test_the_classifier_leaves_the_embedding_as_it_is(tmp_path: Path) -> None:
    short, long = (tmp_path / name for name in ("short", "long"))
    states = []
    for folder, steps in ((short, 1), (long, 5)):
        folder.mkdir()
        states.append(load_weights(case.run_contrastive(folder, steps=4, classifier_steps=steps))[0].state_dict())
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]) == name.startswith("body."), name


def test_it_learns(tmp_path: Path) -> None:
    model, _ = load_weights(
        case.run_contrastive(tmp_path, steps=40, classifier_steps=40, crop=32, batch=4, checkpoint_s=60.0)
    )
    grey, labels = case.phantom()
    with torch.no_grad():
        found = model(torch.from_numpy(grey[4].astype(np.float32) / 65535)[None, None]).argmax(1)[0].numpy()
    valid = labels[4] != 255
    assert (found == labels[4])[valid].mean() > 0.85


def test_sigkill_in_either_phase_gives_the_same_bits(tmp_path: Path) -> None:
    once, again = tmp_path / "once", tmp_path / "again"
    once.mkdir(), again.mkdir()
    how: dict[str, Any] = {"mem_budget_mb": 0, "classifier_steps": 14}
    expected = case.run_contrastive(once, **how)
    path = os.pathsep.join(map(str, [Path(case.__file__).parents[1] / "scripts", os.environ.get("PYTHONPATH", "")]))
    # Two reads a step, five steps ahead at most: after 1 to 6 steps, which embed, and 5 to 10 more, which classify.
    for reads in ("13", "21"):
        command = [sys.executable, str(Path(case.__file__)), "contrastive", str(again), reads]
        ended = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, check=False)
        assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
        assert (again / ".stage2.resume.pt").exists()
        assert not (again / "stage2.safetensors").exists()
    assert case.run_contrastive(again, **how).read_bytes() == expected.read_bytes()
    assert (again / "train.csv").read_bytes() == (once / "train.csv").read_bytes()
    assert not (again / ".stage2.resume.pt").exists()


def test_a_round_begins_with_the_weights_of_the_one_before(tmp_path: Path) -> None:
    earlier, later = tmp_path / "earlier", tmp_path / "later"
    earlier.mkdir(), later.mkdir()
    start = case.run_contrastive(earlier)
    still = case.run_contrastive(later, start_from=start, steps=1, classifier_steps=0, lr=1e-30)
    states = [load_weights(path)[0].state_dict() for path in (start, still)]
    assert all(torch.equal(states[1][name], value) for name, value in states[0].items())


def test_suggestions_count_beside_the_painted_pixels() -> None:
    logits = torch.randn(1, 3, 2, 4)
    target = torch.full((1, 2, 4), 255, dtype=torch.uint8)
    target[0, 0, :2] = torch.tensor([0, 2])
    target[0, 1] = SUGGESTED + torch.tensor([1, 1, 0, 2], dtype=torch.uint8)
    log_p = logits.log_softmax(1)[0]
    painted = -(log_p[0, 0, 0] + log_p[2, 0, 1]) / 2
    suggested = -(log_p[1, 1, 0] + log_p[1, 1, 1] + log_p[0, 1, 2] + log_p[2, 1, 3]) / 4
    for prior in (0.0, 0.1):
        weight = torch.tensor(prior * 2 / 4)
        total, count = with_suggestions(logits, target, loss_of=cross_entropy, weight=weight)
        assert int(count) == 2
        assert float(total / count) == pytest.approx(float(painted + prior * suggested), rel=1e-5)


def test_a_cluster_suggests_the_class_that_is_painted_on_it() -> None:
    clusters = np.zeros((1, 4, 30), np.uint8)
    clusters[0, 1], clusters[0, 2], clusters[0, 3] = 1, 2, 255
    painted = np.full((1, 4, 30), 255, np.uint8)
    painted[0, 0, :20], painted[0, 1, :2] = 0, 1  # class 1 is painted less, and still owns its cluster
    painted[0, 2, :10], painted[0, 2, 10:11] = 0, 1  # cluster 2: a third of either class's paint
    (volume,), said = suggest([ArrayVolume(painted)], [ArrayVolume(clusters)])
    found = volume.read(0, 1)
    assert (found[painted != 255] == painted[painted != 255]).all()
    assert (found[0, 0, 20:] == SUGGESTED).all()
    assert (found[0, 1, 2:] == SUGGESTED + 1).all()
    assert (found[0, 2:, 11:] == 255).all()
    assert said == "where nothing is painted: cluster 0 class 0, cluster 1 class 1"
    assert [len(p) for p in painted_places([volume], 0)] == [30, 3]


def test_training_with_suggestions(tmp_path: Path) -> None:
    grey, labels = case.phantom()
    painted = np.full_like(labels, 255)
    painted[2, 10:30:3, 10:30:2] = labels[2, 10:30:3, 10:30:2]
    (volume,), _ = suggest([ArrayVolume(painted)], [ArrayVolume(labels)])
    settings = case.section("train", crop=16, steps=2, prior=0.5)
    settings["contrastive"] = {**settings["contrastive"], "classifier_steps": 2, "pixels": 32}
    out = tmp_path / "stage2.safetensors", tmp_path / "train.csv"
    how: dict[str, Any] = {"model_settings": {"name": "unet", "n_slices": 1, "dropout": 0.0, "widths": [8, 16]}}
    how |= {"settings": settings, "n_classes": 2, "seed": 3, "device": "cpu"}
    train_contrastive([ArrayVolume(grey)], [volume], *out, **how)
    case.train([ArrayVolume(grey)], [volume], *out, sparse=True, **how)
    with pytest.raises(InputError, match=r"label 12[89]"):
        case.train([ArrayVolume(grey)], [volume], *out, sparse=True, **{**how, "settings": {**settings, "prior": 0}})
