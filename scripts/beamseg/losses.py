"""Losses over labelled pixels: each returns a sum and a count, so that parts of a batch add up before one division."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from .errors import InputError

UNLABELLED = 255


def labelled(target: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """Pixels that count: label other than 255 and, where a mask is given, inside it; bool (n, y, x)."""
    valid = target != UNLABELLED
    return valid if mask is None else valid & mask


def cross_entropy(
    logits: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None = None, smoothing: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
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
    index = torch.where(valid, target.long(), 0)
    log_probability = F.log_softmax(logits, dim=1)
    loss = -log_probability.gather(1, index[:, None])[:, 0]
    if smoothing:
        loss = (1.0 - smoothing) * loss - smoothing * log_probability.mean(dim=1)
    return (loss * valid).sum(), valid.sum()


def label_smoothing(
    logits: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None = None, smoothing: float = 0.1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy against smoothed labels, 1 − s + s/K for the label and s/K for the others (paper, Table II)."""
    return cross_entropy(logits, target, mask, smoothing)


Loss = Callable[..., tuple[torch.Tensor, torch.Tensor]]
LOSSES: dict[str, Loss] = {"cross_entropy": cross_entropy, "label_smoothing": label_smoothing}


def loss_named(settings: dict[str, Any], section: str) -> Loss:
    """The loss that a section of the configuration names (`loss`), with its options filled in.

    Raises
    ------
    InputError
        If there is no loss of that name.
    """
    name = settings["loss"]
    if name not in LOSSES:
        raise InputError(f"{section}.loss", repr(name), f"one of {', '.join(LOSSES)}", "choose one of them")
    return partial(LOSSES[name], smoothing=settings["smoothing"]) if name == "label_smoothing" else LOSSES[name]
