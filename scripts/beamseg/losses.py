"""Losses over labelled pixels: each returns a sum and a count, so that parts of a batch add up before one division.

Those of the paper's Table II. All take logits float32 (n, classes, y, x), target uint8 or int64 (n, y, x) with 255 for
unlabelled, and an optional mask bool (n, y, x), False where a pixel is left out; p is softmax(logits), y the label.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from .errors import InputError
from .label_values import SUGGESTED, UNLABELLED

Result = tuple[torch.Tensor, torch.Tensor]
"""float32 sum over the pixels that count, and their number."""


def suggested(target: torch.Tensor) -> torch.Tensor:
    """Pixels with a suggested class, bool (n, y, x)."""
    return (target >= SUGGESTED) & (target != UNLABELLED)


def with_suggestions(
    logits: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None = None, *, loss_of: Loss, weight: torch.Tensor
) -> Result:
    """A loss over painted pixels, and `weight` times the same over suggested ones, as a sum and a count.

    `target` may hold suggestions; the count is that of the painted pixels. So that the mean over suggestions counts
    `prior` however many are painted, `weight` is prior · painted pixels / suggested pixels, those of the whole batch.
    """
    painted = target.masked_fill(target >= SUGGESTED, UNLABELLED)
    total, count = loss_of(logits, painted, mask)
    hints = torch.where(suggested(target), target - SUGGESTED, UNLABELLED).to(target.dtype)
    return total + weight * loss_of(logits, hints)[0], count


def forward_corrected(
    logits: torch.Tensor,
    target: torch.Tensor,
    mask: torch.Tensor | None = None,
    *,
    loss_of: Loss,
    transition: torch.Tensor,
) -> Result:
    """A loss between the labels and what the predicted phases would be labelled, forward correction.

    p(label) = Σ_phase p(phase) · transition[phase, label] (Patrini et al. 2017, section 4.2), float32 (classes,
    classes) with rows that sum to 1. The network then learns the phases, where without it learns the labels with their
    mistakes.
    """
    of_labels = torch.einsum("nkyx,kj->njyx", logits.softmax(1), transition)
    return loss_of(of_labels.clamp(min=1e-8).log(), target, mask)


def labelled(target: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Pixels that count: label other than 255 and, where a mask is given, inside it; bool (n, y, x)."""
    valid = target != UNLABELLED
    return valid if mask is None else valid & mask


def cross_entropy(
    logits: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None = None, smoothing: float = 0.0
) -> Result:
    """Cross-entropy (equation 6), with a mask the loss over confident pixels (equation 9) before its division.

    Parameters
    ----------
    logits : Tensor, float32, (n, classes, y, x)
    target : Tensor, uint8 or int64, (n, y, x)
        Class per pixel; 255 is unlabelled and counts nothing.
    mask : Tensor, bool, (n, y, x), optional
        Further pixels to leave out where False.
    smoothing : float
        Share of the target spread evenly over all classes (Szegedy et al. 2016).

    Returns
    -------
    sum, count : Tensor
        float32 sum over the pixels that count, and their number.
    """
    valid = labelled(target, mask)
    log_probability, at_label = log_probabilities(logits, target, valid)
    loss = -at_label
    if smoothing:
        loss = (1.0 - smoothing) * loss - smoothing * log_probability.mean(dim=1)
    return total(loss, valid)


def label_smoothing(
    logits: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None = None, smoothing: float = 0.1
) -> Result:
    """Cross-entropy against smoothed labels, 1 − s + s/K for the label and s/K for the others (paper, Table II)."""
    return cross_entropy(logits, target, mask, smoothing)


def generalized_cross_entropy(
    logits: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None = None, q: float = 0.7
) -> Result:
    """(1 − p_y^q) / q (Zhang and Sabuncu 2018): cross-entropy for q → 0, mean absolute error for q = 1."""
    valid = labelled(target, mask)
    _, at_label = log_probabilities(logits, target, valid)
    return total(-torch.expm1(q * at_label) / q, valid)


def symmetric_cross_entropy(
    logits: torch.Tensor,
    target: torch.Tensor,
    mask: torch.Tensor | None = None,
    alpha: float = 0.1,
    beta: float = 1.0,
    log_zero: float = -4.0,
) -> Result:
    """α CE + β RCE (Wang et al. 2019); RCE = −Σ_k p_k log t_k = −A (1 − p_y), as log 0 is A, log 1 is 0."""
    valid = labelled(target, mask)
    _, at_label = log_probabilities(logits, target, valid)
    return total(-alpha * at_label + beta * log_zero * torch.expm1(at_label), valid)


def soft_bootstrapping(
    logits: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None = None, beta: float = 0.95
) -> Result:
    """−Σ_k (β t_k + (1 − β) p_k) log p_k (Reed et al. 2015): the label, and the network's own belief."""
    valid = labelled(target, mask)
    log_probability, at_label = log_probabilities(logits, target, valid)
    own = (log_probability.exp() * log_probability).sum(dim=1)
    return total(-beta * at_label - (1.0 - beta) * own, valid)


def hard_bootstrapping(
    logits: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None = None, beta: float = 0.8
) -> Result:
    """−β log p_y − (1 − β) max_k log p_k (Reed et al. 2015): the label, and the network's own choice."""
    valid = labelled(target, mask)
    log_probability, at_label = log_probabilities(logits, target, valid)
    return total(-beta * at_label - (1.0 - beta) * log_probability.amax(dim=1), valid)


def focal(
    logits: torch.Tensor,
    target: torch.Tensor,
    mask: torch.Tensor | None = None,
    gamma: float = 2.0,
    alpha: float = 0.25,
) -> Result:
    """−α (1 − p_y)^γ log p_y (Lin et al. 2017, equation 5); α is one for all classes, since none is the foreground."""
    valid = labelled(target, mask)
    _, at_label = log_probabilities(logits, target, valid)
    # The power's slope is infinite at 0 where γ < 1; 1e-7 is one step of float32 below a probability of 1.
    missing = (-torch.expm1(at_label)).clamp(min=1e-7)
    return total(-alpha * missing**gamma * at_label, valid)


def dice_cross_entropy(logits: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None = None) -> Result:
    """Cross-entropy plus 1 − the mean Dice of the classes, from logits (nanowire report, section 3.1).

    Dice is one ratio over the batch, not a sum over its pixels; it enters the sum as that ratio times the count, so the
    parts of a batch that is computed in pieces each have their own. A class that neither the target nor the prediction
    has counts as 1.
    """
    valid = labelled(target, mask)
    log_probability, at_label = log_probabilities(logits, target, valid)
    probability = log_probability.exp() * valid[:, None]
    one_hot = F.one_hot(torch.where(valid, target.long(), 0), logits.shape[1]).movedim(-1, 1) * valid[:, None]
    overlap, size = ((probability * one_hot).sum((0, 2, 3)), (probability + one_hot).sum((0, 2, 3)))
    dice = ((2 * overlap + 1) / (size + 1)).mean()
    value, count = total(-at_label, valid)
    return value + (1 - dice) * count, count


def softmax_mse(logits: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None = None) -> Result:
    """Mean squared difference of softmax(logits) from the probabilities `target` (n, classes, y, x), over the classes.

    The consistency of Ouali et al. (2020), equation 2. The target has no gradient; its softmax was taken once.
    """
    squared = (logits.softmax(dim=1) - target.detach()).square().mean(dim=1)
    valid = torch.ones_like(squared, dtype=torch.bool) if mask is None else mask
    return total(squared, valid)


def log_probabilities(
    logits: torch.Tensor, target: torch.Tensor, valid: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """log p (n, classes, y, x), and of it that of the label (n, y, x), of class 0 where a pixel is not valid."""
    index = torch.where(valid, target.long(), 0)
    log_probability = F.log_softmax(logits, dim=1)
    return log_probability, log_probability.gather(1, index[:, None])[:, 0]


def total(loss: torch.Tensor, valid: torch.Tensor) -> Result:
    """Sum over the valid pixels, and their number."""
    return (loss * valid).sum(), valid.sum()


Loss = Callable[..., Result]
LOSSES: dict[str, Loss] = {
    "cross_entropy": cross_entropy,
    "label_smoothing": label_smoothing,
    "generalized_cross_entropy": generalized_cross_entropy,
    "symmetric_cross_entropy": symmetric_cross_entropy,
    "soft_bootstrapping": soft_bootstrapping,
    "hard_bootstrapping": hard_bootstrapping,
    "focal": focal,
}


def loss_named(settings: dict[str, Any], section: str) -> Loss:
    """The loss that a section of the configuration names (`loss`), with its options filled in.

    Options of label smoothing are the key `smoothing`, those of any other loss the section of its name, if it has one.

    Raises
    ------
    InputError
        If there is no loss of that name.
    """
    name = settings["loss"]
    if name not in LOSSES:
        raise InputError(f"{section}.loss", repr(name), f"one of {', '.join(LOSSES)}", "choose one of them")
    options = {"smoothing": settings["smoothing"]} if name == "label_smoothing" else settings.get(name, {})
    return partial(LOSSES[name], **options)
