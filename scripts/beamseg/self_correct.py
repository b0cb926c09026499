"""Stage 3: the Unbiased Teacher, without labels (paper, section III-D) or with the user's (Liu et al. 2021)."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import augment
from .checkpoint import Resume
from .crops import Crops, labelled_slices, painted_places
from .device import Compute, Pieces, choose
from .distributed import Ranks, join
from .label_values import UNLABELLED
from .losses import loss_named
from .models import load_weights, save_weights
from .progress import Progress
from .provenance import file_digest, write_json
from .training import Curves, Learner, class_rates, n_steps, weak_images, weak_labels
from .volumes import OUTSIDE, Volume
from .watch import Watch, within_margin

BINS = 256
MEMORY = 0.95
"""Decay per step of the running confidence histograms and of the running mean prediction: about 20 steps."""


class Confidence:
    """Which of the teacher's pixels the student learns from (equation 8), and their classes.

    Parameters
    ----------
    prior : Tensor, float32, (classes,)
        Mean prediction of stage 2, to which the teacher's running mean is aligned.
    settings : dict
        `kind` fixed: one `threshold` for all classes, the paper's. `kind` class: a class's threshold is the running
        `quantile` of the confidence of its pixels, at most `threshold`, so that a faint class is not masked away.
        `align`: multiply the probabilities by prior / running mean (Berthelot et al. 2020).
    ranks : Ranks
        The running mean and the quantile are those of the whole batch, over all processes.
    """

    def __init__(self, prior: torch.Tensor, settings: dict[str, Any], ranks: Ranks | None = None) -> None:
        self.settings, self.prior, self.ranks = settings, prior, ranks or Ranks()
        self.mean = prior.clone()
        self.histogram = torch.zeros(len(prior), BINS, dtype=torch.float64, device=prior.device)

    def select(self, probability: torch.Tensor, inside: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Classes int64 (n, y, x) and the mask bool (n, y, x) for probabilities (n, classes, y, x)."""
        if self.settings["align"]:
            pixels = self.ranks.sum(inside.sum()).clamp(min=1)
            batch_mean = self.ranks.sum((probability * inside[:, None]).sum((0, 2, 3))) / pixels
            self.mean = MEMORY * self.mean + (1.0 - MEMORY) * batch_mean
            probability = probability * (self.prior / self.mean.clamp(min=1e-6))[:, None, None]
            probability = probability / probability.sum(1, keepdim=True)
        confidence, classes = probability.max(1)
        return classes, inside & (confidence >= self.thresholds(confidence, classes, inside)[classes])

    def thresholds(self, confidence: torch.Tensor, classes: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
        """Threshold per class, float32 (classes,), with this batch counted in."""
        highest = torch.full_like(self.prior, self.settings["threshold"])
        if self.settings["kind"] == "fixed":
            return highest
        bins = (confidence * BINS).long().clamp(max=BINS - 1)
        counts = self.ranks.sum(torch.bincount((classes * BINS + bins)[inside], minlength=self.histogram.numel()))
        self.histogram = MEMORY * self.histogram + (1.0 - MEMORY) * counts.view_as(self.histogram)
        share = self.histogram.cumsum(1) / self.histogram.sum(1, keepdim=True).clamp(min=1e-9)
        quantile = (share < self.settings["quantile"]).sum(1) / BINS
        return torch.minimum(quantile.to(highest.dtype), highest)

    def state(self) -> dict[str, torch.Tensor]:
        """For the resume state."""
        return {"prior": self.prior, "mean": self.mean, "histogram": self.histogram}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """From the resume state."""
        self.prior, self.mean, self.histogram = state["prior"], state["mean"], state["histogram"]


def anchored(teacher: torch.Tensor, stage2: torch.Tensor, weight: float) -> torch.Tensor:
    """Class probabilities (n, classes, y, x) between the teacher's and stage 2's, in the logarithm.

    p ∝ teacher^(1 − weight) · stage2^weight, from the logits of both. Where stage 2 is sure, at the edges of phases
    that differ clearly, the teacher cannot move them; where it is not, the teacher decides. A teacher alone moves
    edges a little with each strong view, feeds that back, and thickens what is thin. Not in the paper.
    """
    return torch.lerp(teacher.float().log_softmax(1), stage2.float().log_softmax(1), weight).softmax(1)


@torch.no_grad()
def blend(network: nn.Module, stage2: nn.Module, teacher: nn.Module, share: float) -> None:
    """Set the weights of `network` between those of stage 2 and, with `share`, the teacher's.

    On the way from a network's weights to those that it was tuned to, most of what tuning gains comes early, and most
    of what it loses late (Wortsman et al., Robust fine-tuning of zero-shot models, CVPR 2022). Not in the paper.
    """
    for mixed, old, new in zip(network.parameters(), stage2.parameters(), teacher.parameters(), strict=True):
        torch.lerp(old, new, share, out=mixed)


@torch.no_grad()
def follow(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """The teacher's weights as the exponential moving average of the student's (equation 10)."""
    for old, new in zip(teacher.parameters(), student.parameters(), strict=True):
        old.lerp_(new, 1.0 - momentum)


def self_correct(
    volumes: Sequence[Volume],
    start: str | Path,
    out: str | Path,
    curves: str | Path,
    verdict: str | Path,
    *,
    settings: dict[str, Any],
    seed: int,
    device: str = "auto",
    mem_budget_mb: float = 4000,
    identity: str = "",
    labels: Sequence[Volume] | None = None,
    label_source: str = "clusters",
) -> dict[str, Any]:
    """Train a student on a teacher's confident predictions; write the best network, the curves and the verdict.

    Parameters
    ----------
    volumes : sequence of Volume
        uint16 grey levels, 0 outside.
    start : path
        Weights of stage 2: student and teacher both begin with them.
    out, curves, verdict : path
        Weights of stage 3; CSV (step, loss, kept: the share of confident pixels, rate_<class> among them, agreement,
        consistency and unexplained contrast on the watch crops, with labels the mean IoU there, lr); JSON (returned).
    settings : dict
        Section `self_correct` of the configuration.
    seed, device, mem_budget_mb, identity
        As for `train`.
    labels : sequence of Volume, optional
        What the user labelled, uint8, 255 elsewhere; never pseudo-labels. Labelled slices are a share of every batch
        (`labelled_share`), and a labelled pixel is learned with its label, not the teacher's.
    label_source : str
        What stage 2 learned. `clusters`: grey levels imply the shares of classes. `pixels`: crops of labelled slices
        are drawn around what is painted, and the watch asks there for every class (see `Watch`).

    Returns
    -------
    dict
        `use`: stage3, or stage2 if no network passed the watch; `reason` in words; `harmless` where the last network
        was refused for want of a gain alone; `watch`: what was measured of
        stage 2 (`start`), of the network kept (`best`, null if none) and of the last (`last`).

    Notes
    -----
    The teacher sees a weak view, the student the same crop in the same geometry after strong photometry. What the
    student learns is the teacher's prediction, drawn towards stage 2's by `anchor` (see `anchored`). There is no loss
    on the pseudo-labels of stage 1 (the paper's first change); with the user's labels there is one, as in the Unbiased
    Teacher of Liu et al., where labelled images are in every batch. Unsure pixels are masked (equation 8) and the loss
    is divided by the number of those left (equation 9). What is watched and handed on is no teacher but a network
    between it and stage 2 (see `blend`).
    """
    loss_of = loss_named(settings, "self_correct")
    compute = choose(device)
    ranks = join(compute.device)
    mine = ranks.share(settings["batch"])
    teacher, meta = load_weights(start, compute.device)
    teacher.requires_grad_(False)
    stage2, handed_on = copy.deepcopy(teacher), copy.deepcopy(teacher)
    student = copy.deepcopy(teacher).requires_grad_(True).train()
    n_classes = meta["n_classes"]
    labelled = [] if labels is None else labelled_slices(labels, n_classes)
    anchors = painted_places(labels, seed) if labels is not None and label_source == "pixels" else []
    place = (meta["in_channels"], meta["crop"], settings["batch"], seed, mem_budget_mb, mine)
    crops = Crops(
        volumes, labels, *place, labelled=labelled, labelled_share=settings["labelled_share"], anchors=anchors
    )
    steps = n_steps(settings, crops.epoch_slices)
    learner = Learner(
        student, loss_of, crops.batch, lr=settings["lr"], steps=steps, seed=seed, compute=compute, ranks=ranks
    )
    pieces = Pieces(crops.batch)
    taught = (crops.labels, labelled, anchors, label_source)
    watch = Watch.of(teacher, crops.volumes, meta, settings, seed, compute, *taught)
    merit = "labelled" if labelled and not watch.painted else "consistency"
    confidence = Confidence(watch.mean_probability(teacher), settings["confidence"], ranks)
    names = ["loss", "kept", *(f"rate_{c}" for c in range(n_classes))]
    record = Curves(names, settings["log_every"], steps, compute.device)
    best: dict[str, Any] = {}

    task = [settings, meta, file_digest(start), seed, compute.name, torch.get_num_threads(), identity]
    resume = Resume(out, [*task, [v.shape for v in volumes], ranks.size], settings["checkpoint_s"], ranks)
    first = 0
    if (state := resume.load(compute.device)) is not None:
        learner.load(state["learner"])
        teacher.load_state_dict(state["teacher"])
        confidence.load(state["confidence"])
        record.load(state["curves"])
        best, first = state["best"], state["step"]

    found = watch.start
    with resume.watching_sigterm(), Progress(steps, "steps", "self_correct", done=first) as progress:
        for step, (grey, label) in enumerate(crops.steps(first, steps), start=first):
            which = augment.draw_geometry(seed, step, len(grey), mine.start)
            weak = weak_images(grey, which, compute)
            everywhere = augment.apply_geometry(torch.from_numpy(grey != OUTSIDE).to(compute.device), which)
            inside = within_margin(everywhere[:, meta["in_channels"] // 2], settings["margin"])
            predicted = predict(teacher, stage2, weak, settings["anchor"], pieces, compute)
            classes, mask = confidence.select(predicted, inside)
            given = weak_labels(label, which, compute)
            known = given != UNLABELLED
            classes, mask, inside = torch.where(known, given.long(), classes), mask | known, inside | known
            drawn = augment.draw_photometry(seed, step, len(grey), settings["photometry"], mine.start)
            strong = augment.apply_photometry(weak, everywhere, drawn).contiguous(memory_format=torch.channels_last)
            total, count, _ = learner.step(step, strong, classes, mask)
            follow(teacher, student, settings["ema"])

            rates = ranks.sum(class_rates(classes, mask, n_classes))
            sums = torch.cat([torch.stack([total, count]).double(), rates])
            counts = count.expand(len(sums)).double().clone()
            counts[1] = ranks.sum(inside.sum())
            row = record.add(step, sums, counts, learner.learning_rate)
            notes: dict[str, float] = {}
            if row is not None:
                blend(handed_on, stage2, teacher, settings["blend"])
                found = watch.measure(handed_on)
                row |= {
                    key: found[key] for key in ("agreement", "consistency", "unexplained", "labelled") if key in found
                }
                passes = watch.failure(found) is None and watch.no_gain(found) is None
                if passes and found[merit] >= best.get(merit, -math.inf):
                    weights = {name: value.clone() for name, value in handed_on.state_dict().items()}
                    best = {**found, "step": step + 1, "weights": weights}
                notes = {"loss": row["loss"], "consistency": found["consistency"]}
            progress.update(**notes)
            if resume.due() and step + 1 < steps:
                resume.save(
                    {
                        "step": step + 1,
                        "learner": learner.state(),
                        "teacher": teacher.state_dict(),
                        "confidence": confidence.state(),
                        "curves": record.state(),
                        "best": best,
                    }
                )
    result = judge(watch, best, found)
    if best:
        handed_on.load_state_dict(best["weights"])
    if ranks.first:
        save_weights(out, handed_on, {**meta, "stage": "stage3"})
        record.write(curves)
        write_json(verdict, result)
        resume.remove()
    return result


@torch.no_grad()
def predict(
    teacher: nn.Module, stage2: nn.Module, images: torch.Tensor, anchor: float, pieces: Pieces, compute: Compute
) -> torch.Tensor:
    """What the student is to learn: class probabilities, float32 (n, classes, y, x), of images (n, c, y, x)."""

    def of(piece: slice) -> torch.Tensor:
        with compute.precision():
            logits = teacher(images[piece])
            return anchored(logits, stage2(images[piece]), anchor) if anchor else logits.softmax(1)

    return pieces.run(len(images), lambda some: torch.cat([of(piece) for piece in some]))


def judge(watch: Watch, best: dict[str, Any], last: dict[str, Any]) -> dict[str, Any]:
    """The verdict: which stage to use, and why."""
    kept = {key: value for key, value in best.items() if key != "weights"} or None
    measured = {"start": watch.start, "best": kept, "last": last}
    if kept is None:
        if why := watch.failure(last):
            return {"use": "stage2", "reason": f"self-correction failed the watch: {why}", "watch": measured}
        why = watch.no_gain(last) or "no network on the way passed the watch"
        return {"use": "stage2", "reason": why, "harmless": True, "watch": measured}
    taught = f"mean IoU {kept['labelled']:.3f} on the labelled pixels, " if "labelled" in kept else ""
    reason = (
        f"{taught}self-consistency {kept['consistency']:.3f} against {watch.start['consistency']:.3f} of stage 2, "
        f"every class kept, {kept['agreement']:.0%} of the pixels unchanged (step {kept['step']})"
    )
    return {"use": "stage3", "reason": reason, "watch": measured}
