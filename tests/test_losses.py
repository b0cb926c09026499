"""Losses against sums worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from beamseg.errors import InputError
from beamseg.losses import LOSSES, cross_entropy, label_smoothing, loss_named

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


def test_unlabelled_and_masked_pixels_count_nothing() -> None:
    logits, target = two_pixels()
    target[0, 0, 0] = 255
    total, count = cross_entropy(logits, target)
    assert (count, total.item()) == (1, pytest.approx(LOG2, rel=1e-6))
    total, count = cross_entropy(logits, target, torch.tensor([[[True, False]]]))
    assert (count, total.item()) == (0, 0.0)


def test_no_gradient_from_pixels_left_out() -> None:
    logits, target = two_pixels()
    logits.requires_grad_()
    cross_entropy(logits, target, torch.tensor([[[True, False]]]))[0].backward()
    assert logits.grad is not None
    assert logits.grad[..., 1].abs().sum() == 0
    assert logits.grad[..., 0].abs().sum() > 0


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


def test_by_name() -> None:
    logits, target = two_pixels()
    total, _ = loss_named({"loss": "label_smoothing", "smoothing": 0.2}, "train")(logits, target)
    assert total == label_smoothing(logits, target, smoothing=0.2)[0]
    with pytest.raises(InputError, match=r"^train\.loss\n  found:    'dice'"):
        loss_named({"loss": "dice"}, "train")
