"""Losses against sums worked out by hand."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from beamseg.errors import InputError
from beamseg.layers import defaults
from beamseg.losses import (
    LOSSES,
    cross_entropy,
    focal,
    forward_corrected,
    generalized_cross_entropy,
    hard_bootstrapping,
    label_smoothing,
    loss_named,
    soft_bootstrapping,
    symmetric_cross_entropy,
)

SCHEMAS = Path(__file__).parents[1] / "workflow" / "schemas"
LOG2, LOG3 = math.log(2.0), math.log(3.0)


def two_pixels() -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities (3/4, 1/4) and (1/2, 1/2); the first pixel is class 0, the second class 1."""
    logits = torch.tensor([[LOG3, 0.0], [0.0, 0.0]]).view(1, 2, 1, 2)  # (n, classes, y, x)
    return logits, torch.tensor([[[0, 1]]], dtype=torch.uint8)


def test_cross_entropy_by_hand() -> None:
    total, count = cross_entropy(*two_pixels())
    assert count == 2
    assert total == pytest.approx(math.log(4 / 3) + LOG2, rel=1e-6)


def test_label_smoothing_by_hand() -> None:
    total, count = label_smoothing(*two_pixels(), smoothing=0.2)
    first = 0.9 * math.log(4 / 3) + 0.1 * math.log(4)
    assert count == 2
    assert total == pytest.approx(first + LOG2, rel=1e-6)


@pytest.mark.parametrize(
    ("loss", "options", "first", "second"),
    [  # the pixels have p_y = 3/4, where the network is right, and p_y = 1/2
        (generalized_cross_entropy, {"q": 1.0}, 1 / 4, 1 / 2),
        (generalized_cross_entropy, {"q": 0.5}, 2 - math.sqrt(3), 2 - math.sqrt(2)),
        (symmetric_cross_entropy, {"alpha": 1.0, "beta": 0.0}, math.log(4 / 3), LOG2),
        (
            symmetric_cross_entropy,
            {"alpha": 0.1, "beta": 1.0, "log_zero": -4.0},
            0.1 * math.log(4 / 3) + 1,
            0.1 * LOG2 + 2,
        ),
        (symmetric_cross_entropy, {"alpha": 0.0, "beta": 0.5, "log_zero": -6.0}, 0.75, 1.5),
        (soft_bootstrapping, {"beta": 1.0}, math.log(4 / 3), LOG2),
        (soft_bootstrapping, {"beta": 0.0}, 0.75 * math.log(4 / 3) + 0.25 * math.log(4), LOG2),
        (soft_bootstrapping, {"beta": 0.6}, 0.9 * math.log(4 / 3) + 0.1 * math.log(4), LOG2),
        (hard_bootstrapping, {"beta": 0.8}, math.log(4 / 3), LOG2),
        (focal, {"gamma": 2.0, "alpha": 0.25}, math.log(4 / 3) / 64, LOG2 / 16),
        (focal, {"gamma": 0.0, "alpha": 1.0}, math.log(4 / 3), LOG2),
        (focal, {"gamma": 0.5, "alpha": 2.0}, math.log(4 / 3), math.sqrt(2) * LOG2),
    ],
)
def test_losses_by_hand(loss, options, first, second) -> None:  # type: ignore[no-untyped-def]
    logits, target = two_pixels()
    found, count = loss(logits, target, **options)
    assert (count, found.item()) == (2, pytest.approx(first + second, rel=1e-5))
    for pixel, wanted in enumerate((first, second)):
        mask = torch.tensor([[[pixel == 0, pixel == 1]]])
        found, count = loss(logits, target, mask, **options)
        assert (count, found.item()) == (1, pytest.approx(wanted, rel=1e-5))


def test_hard_bootstrapping_where_the_network_disagrees() -> None:
    """p = (3/4, 1/4) and label 1: −0.8 log 1/4 − 0.2 log 3/4."""
    logits, _ = two_pixels()
    target = torch.tensor([[[1, 255]]], dtype=torch.uint8)
    found, count = hard_bootstrapping(logits, target, beta=0.8)
    assert (count, found.item()) == (1, pytest.approx(0.8 * math.log(4) + 0.2 * math.log(4 / 3), rel=1e-6))


def test_generalized_cross_entropy_nears_cross_entropy() -> None:
    found, _ = generalized_cross_entropy(*two_pixels(), q=1e-4)
    assert found.item() == pytest.approx(cross_entropy(*two_pixels())[0].item(), rel=1e-3)


def test_soft_bootstrapping_learns_through_its_own_belief() -> None:
    """At β = 0 it is the entropy, whose gradient by a logit is −p_k (log p_k + H); none of it is held constant."""
    logits, target = two_pixels()
    logits.requires_grad_()
    soft_bootstrapping(logits, target, beta=0.0)[0].backward()
    entropy = 0.75 * math.log(4 / 3) + 0.25 * math.log(4)
    assert logits.grad is not None
    assert logits.grad[0, 0, 0, 0].item() == pytest.approx(-0.75 * (math.log(3 / 4) + entropy), rel=1e-5)


def test_forward_correction_by_hand() -> None:
    # p(label 0) = 3/4 · 0.8 + 1/4 · 0.4 = 0.7 at the first pixel, p(label 1) = (0.2 + 0.6) / 2 = 0.4 at the second.
    transition = torch.tensor([[0.8, 0.2], [0.4, 0.6]])
    total, count = forward_corrected(*two_pixels(), loss_of=cross_entropy, transition=transition)
    assert count == 2
    assert total == pytest.approx(-math.log(0.7) - math.log(0.4), rel=1e-6)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_labels_without_mistakes_are_corrected_by_nothing(name: str) -> None:
    logits, target = torch.randn(2, 3, 4, 5, generator=torch.manual_seed(0)), torch.randint(3, (2, 4, 5))
    mask = torch.rand(2, 4, 5) < 0.7
    plain, corrected = (
        loss(logits, target, mask)
        for loss in (LOSSES[name], partial(forward_corrected, loss_of=LOSSES[name], transition=torch.eye(3)))
    )
    torch.testing.assert_close(corrected, plain, rtol=1e-5, atol=1e-5)


def test_the_corrected_loss_is_least_at_the_phases_not_at_the_labels() -> None:
    transition = torch.tensor([[0.9, 0.1], [0.6, 0.4]])
    logits = torch.zeros(1, 2, 1, 100, requires_grad=True)
    target = torch.zeros(1, 1, 100, dtype=torch.uint8)
    target[..., :25] = 1  # labels of a mixture of half and half: 0.5 · 0.1 + 0.5 · 0.4
    same = logits.mean(3, keepdim=True).expand_as(logits)
    forward_corrected(same, target, loss_of=cross_entropy, transition=transition)[0].backward()
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits), rtol=0, atol=1e-5)


def test_sure_predictions_of_a_phase_that_never_has_the_label_are_finite() -> None:
    logits = torch.tensor([[100.0, 0.0]]).view(1, 2, 1, 1).requires_grad_()
    total, _ = forward_corrected(
        logits, torch.ones(1, 1, 1, dtype=torch.uint8), loss_of=cross_entropy, transition=torch.eye(2)
    )
    total.backward()
    assert torch.isfinite(total)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_unlabelled_and_masked_pixels_count_nothing(name: str) -> None:
    logits, target = two_pixels()
    alone = LOSSES[name](logits[..., 1:], target[..., 1:])
    assert alone[0] > 0
    target[0, 0, 0] = 255
    found, count = LOSSES[name](logits, target)
    assert (count, found.item()) == (1, pytest.approx(alone[0].item(), rel=1e-6))
    found, count = LOSSES[name](logits, target, torch.tensor([[[True, False]]]))
    assert (count, found.item()) == (0, 0.0)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_no_gradient_from_pixels_left_out(name: str) -> None:
    logits, target = two_pixels()
    logits.requires_grad_()
    LOSSES[name](logits, target, torch.tensor([[[True, False]]]))[0].backward()
    assert logits.grad is not None
    assert logits.grad[..., 1].abs().sum() == 0
    assert logits.grad[..., 0].abs().sum() > 0


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_sure_predictions_have_finite_losses_and_gradients(name: str) -> None:
    """Probabilities of 0 and 1 to the last bit, right and wrong; γ below 1 is where a focal loss would break."""
    logits = torch.tensor([[200.0, 200.0], [-200.0, -200.0]]).view(1, 2, 1, 2).requires_grad_()
    target = torch.tensor([[[0, 1]]], dtype=torch.uint8)
    options = {"gamma": 0.5} if name == "focal" else {}
    found, _ = LOSSES[name](logits, target, **options)
    found.backward()
    assert logits.grad is not None
    assert found.isfinite()
    assert logits.grad.isfinite().all()


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(sorted(LOSSES)), st.integers(0, 2**31), st.integers(1, 3))
def test_parts_of_a_batch_add_up(name: str, seed: int, cut: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    logits = torch.randn(4, 3, 2, 2, generator=rng)
    target = torch.randint(0, 3, (4, 2, 2), generator=rng).to(torch.uint8)
    target[torch.rand(4, 2, 2, generator=rng) < 0.3] = 255
    whole, count = LOSSES[name](logits, target)
    parts = [LOSSES[name](logits[s], target[s]) for s in (slice(0, cut), slice(cut, 4))]
    assert sum(int(c) for _, c in parts) == int(count)
    assert sum(float(t) for t, _ in parts) == pytest.approx(float(whole), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("section", ["train", "self_correct"])
def test_by_name_with_the_options_of_the_schema(section: str) -> None:
    schema = yaml.safe_load((SCHEMAS / f"{section}.yaml").read_text())
    assert sorted(schema["properties"]["loss"]["enum"]) == sorted(LOSSES)
    for name, loss in LOSSES.items():
        found = loss_named({**defaults(schema), "loss": name}, section)(*two_pixels())
        assert found[0] == loss(*two_pixels())[0], "the schema's defaults are not the function's"


def test_options_reach_the_loss() -> None:
    logits, target = two_pixels()
    found, _ = loss_named({"loss": "label_smoothing", "smoothing": 0.2}, "train")(logits, target)
    assert found == label_smoothing(logits, target, smoothing=0.2)[0]
    found, _ = loss_named({"loss": "focal", "focal": {"gamma": 0.0, "alpha": 1.0}}, "train")(logits, target)
    assert found == pytest.approx(cross_entropy(logits, target)[0].item(), rel=1e-6)
    with pytest.raises(InputError, match=r"^train\.loss\n  found:    'dice'"):
        loss_named({"loss": "dice"}, "train")
