"""What the two training stages share: schedule, seeds, the batch on its device, running rates and curves."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from . import augment
from .crops import keyed_rng
from .device import Compute, Pieces
from .distributed import Ranks
from .errors import InputError
from .label_values import SUGGESTED, UNLABELLED
from .losses import Loss, labelled, suggested, with_suggestions
from .models import load_weights
from .models.blocks import place_share
from .provenance import atomic_path


def n_steps(settings: dict[str, Any], epoch_slices: int) -> int:
    """Steps of a training: `steps` if it is not 0, else as many as `epochs` take."""
    return settings["steps"] or max(1, math.ceil(settings["epochs"] * epoch_slices / settings["batch"]))


def end_step(settings: dict[str, Any], epoch_slices: int) -> int:
    """Steps after which stage 2 ends: all of `n_steps`, or as many as the first `best_of` epochs of them take."""
    steps = n_steps(settings, epoch_slices)
    if not settings["best_of"]:
        return steps
    return min(steps, n_steps({**settings, "steps": 0, "epochs": settings["best_of"]}, epoch_slices))


def learning_rate(step: int, steps: int, peak: float) -> float:
    """A linear rise over the first 5 % of the steps, then a cosine to a hundredth of the peak."""
    rise = max(1, steps // 20)
    if step < rise:
        return peak * (step + 1) / rise
    return peak * (0.01 + 0.99 * 0.5 * (1.0 + math.cos(math.pi * (step - rise) / max(1, steps - rise))))


def seed_torch(seed: int, step: int) -> None:
    """Seed dropout by (seed, step): nothing to save, and a resumed run draws what an undisturbed one would."""
    torch.manual_seed(int(keyed_rng(seed, "torch", step).integers(2**62)))


def weak_images(grey: np.ndarray, which: np.ndarray, compute: Compute) -> torch.Tensor:
    """Crops uint16 (n, c, y, x) as turned images, float32 in 0 … 1, on the device."""
    images = augment.to_unit(torch.from_numpy(grey.astype(np.int32)).to(compute.device))
    return augment.apply_geometry(images, which).contiguous(memory_format=torch.channels_last)


def strengthen(
    images: torch.Tensor,
    inside: torch.Tensor,
    share: float,
    photometry: dict[str, Any],
    seed: int,
    step: int,
    first: int = 0,
    batch: int = 0,
) -> torch.Tensor:
    """Images with strong photometry on the first `share` of their batch.

    Images and `inside` (field of view) are (n, c, y, x), the crops from `first` on of a batch of `batch`; by default
    all. The paper's baseline of a single stage (section IV-D): half of a batch is strong, and there is no teacher.
    """
    strong = min(max(0, round(share * (batch or len(images))) - first), len(images))
    if not strong:
        return images
    drawn = augment.draw_photometry(seed, step, strong, photometry, first)
    changed = augment.apply_photometry(images[:strong], inside[:strong], drawn)
    return torch.cat([changed, images[strong:]]).contiguous(memory_format=torch.channels_last)


def weak_labels(labels: np.ndarray, which: np.ndarray, compute: Compute) -> torch.Tensor:
    """Labels uint8 (n, y, x), turned as their images, on the device."""
    return augment.apply_geometry(torch.from_numpy(labels).to(compute.device), which)


def check_labels(labels: np.ndarray, n_classes: int, suggested: bool = False) -> None:
    """Raise InputError for a label that is neither a class nor 255 (nor, if there are any, a suggested class)."""
    found = labels[labels != UNLABELLED]
    if suggested:
        found = np.where(found >= SUGGESTED, found - SUGGESTED, found)
    if found.size and found.max() >= n_classes:
        raise InputError(
            "labels",
            f"label {found.max()}",
            f"0 … {n_classes - 1}, or 255 for unlabelled",
            "mend or renumber the labels",
        )


class Curves:
    """Running means over an interval of steps, and the rows of the curves so far.

    Parameters
    ----------
    names : list of str
        What `add` is given sums of, each with its own count.
    every : int
        Steps per row.
    """

    def __init__(self, names: list[str], every: int, steps: int, device: torch.device) -> None:
        self.names, self.every, self.steps = names, every, steps
        self.sums = torch.zeros(2, len(names), dtype=torch.float64, device=device)
        self.rows: list[dict[str, float]] = []

    def add(self, step: int, sums: torch.Tensor, counts: torch.Tensor, lr: float) -> dict[str, float] | None:
        """Add a step's sums (names,) and counts (names,); at the end of an interval, its row (NaN: none)."""
        self.sums += torch.stack([sums, counts]).detach()
        if (step + 1) % self.every and step + 1 != self.steps:
            return None
        means = torch.where(self.sums[1] > 0, self.sums[0] / self.sums[1], math.nan).tolist()
        row = {"step": step + 1, **dict(zip(self.names, means, strict=True)), "lr": lr}
        self.rows.append(row)
        counted = self.sums[1, 0] > 0
        self.sums.zero_()
        if counted and not math.isfinite(row["loss"]):
            raise InputError("training", f"a loss of {row['loss']} at step {step + 1}", "a finite loss", "lower `lr`")
        return row

    def state(self) -> dict[str, Any]:
        """For the resume state."""
        return {"sums": self.sums, "rows": self.rows}

    def load(self, state: dict[str, Any]) -> None:
        """From the resume state."""
        self.sums, self.rows = state["sums"].to(self.sums.device), list(state["rows"])

    def write(self, path: str | Path) -> None:
        """The rows as CSV, atomically."""
        with atomic_path(path) as temporary:
            pd.DataFrame(self.rows).to_csv(temporary, index=False, float_format="%.6g")


def accumulate(
    pieces: list[slice],
    logits_of: Callable[[slice], torch.Tensor],
    loss_of: Loss,
    target: torch.Tensor,
    mask: torch.Tensor | None,
    count: torch.Tensor,
    scaler: torch.amp.GradScaler,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Add the gradients of a batch, piece by piece.

    The loss is divided once, by the number of pixels of the whole batch, so that neither pieces nor processes change
    the gradient.

    Parameters
    ----------
    pieces : list of slice
        Of the crops.
    logits_of : callable
        Logits of a piece, float32 (n, classes, y, x).
    loss_of : Loss
    target : Tensor, (n, y, x)
    mask : Tensor, bool, (n, y, x), or None
    count : Tensor
        Pixels of the whole batch.
    scaler : GradScaler

    Returns
    -------
    total : Tensor
        Sum of the loss.
    predicted : Tensor, int64, (n, y, x)
        Classes.
    """
    sums, classes = [], []
    for piece in pieces:
        logits = logits_of(piece)
        total, _ = loss_of(logits, target[piece], None if mask is None else mask[piece])
        scaler.scale(total / count.clamp(min=1)).backward()
        sums.append(total.detach())
        classes.append(logits.detach().argmax(1))
    return torch.stack(sums).sum(), torch.cat(classes)


class Learner:
    """A network, its optimizer, and the step that both training stages take.

    Parameters
    ----------
    model : Module
        In training mode, on the device of `compute`.
    loss_of : Loss
    batch : int
        Crops of a step, over all processes.
    lr : float
        Peak learning rate of Adam.
    steps, seed : int
    compute : Compute
    ranks : Ranks
    prior : float
        Weight of the mean loss over pixels with a suggested class, as `with_suggestions` has it.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_of: Loss,
        batch: int,
        *,
        lr: float,
        steps: int,
        seed: int,
        compute: Compute,
        ranks: Ranks,
        prior: float = 0.0,
    ) -> None:
        self.model, self.loss_of, self.batch, self.prior = model, loss_of, batch, prior
        self.lr, self.steps, self.seed, self.compute, self.ranks = lr, steps, seed, compute, ranks
        self.learning_rate = lr
        self.optimizer = torch.optim.Adam(model.parameters(), lr=lr)
        self.scaler = torch.amp.GradScaler(compute.device.type, enabled=compute.autocast is torch.float16)
        self.pieces = Pieces(batch)

    def step(
        self, step: int, images: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Learn from a batch, of which this process holds a share.

        Parameters
        ----------
        images : Tensor, float32, (n, c, y, x)
        target : Tensor, (n, y, x)
        mask : Tensor, bool, (n, y, x), optional

        Returns
        -------
        total, count : Tensor
            Sum of the loss and number of pixels, of the whole batch.
        predicted : Tensor, int64, (n, y, x)
            Classes of this share, as the network had them before the step.
        """
        self.learning_rate = learning_rate(step, self.steps, self.lr)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        count = self.ranks.sum(labelled(target, mask).sum())
        first = self.ranks.share(self.batch).start
        loss_of = self.loss_of
        if self.prior:
            weight = self.prior * count / self.ranks.sum(suggested(target).sum()).clamp(min=1)
            loss_of = partial(with_suggestions, loss_of=loss_of, weight=weight)

        def logits_of(piece: slice) -> torch.Tensor:
            place_share(self.model, self.batch, first + piece.start)
            seed_torch(self.seed, step)
            with self.compute.precision():
                return self.model(images[piece])

        def learn(pieces: list[slice]) -> tuple[torch.Tensor, torch.Tensor]:
            self.optimizer.zero_grad(set_to_none=True)
            return accumulate(pieces, logits_of, loss_of, target, mask, count, self.scaler)

        total, predicted = self.pieces.run(len(images), learn)
        self.ranks.sum_gradients(self.model)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return self.ranks.sum(total), count, predicted

    def state(self) -> dict[str, Any]:
        """For the resume state."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """From the resume state."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])


def warm_start(model: nn.Module, meta: dict[str, Any], start: str | Path | None) -> None:
    """Give a network the parameters of earlier weights (`start`), if those are of the same network.

    The head is taken over too, so the classes must be the same.
    """
    if start is None:
        return
    earlier, found = load_weights(start)
    same = ("name", "in_channels", "n_classes", "options")
    if any(found[key] != meta[key] for key in same):
        print("start_from: the previous round trained another network; starting from scratch")
        return
    model.load_state_dict(earlier.state_dict())
    print("start_from: the weights of the previous round")


def class_rates(labels: torch.Tensor, valid: torch.Tensor, n_classes: int) -> torch.Tensor:
    """Pixels of each class among the valid ones, float64 (classes,)."""
    return torch.bincount(labels[valid], minlength=n_classes).double()
