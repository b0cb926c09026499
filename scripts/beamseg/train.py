"""Stage 2: train a network on labels, here the pseudo-labels of the clusters (paper, section III-C)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import augment
from .checkpoint import Resume
from .clusters import rows_in_words
from .crops import Crops, painted_places
from .device import choose
from .distributed import join
from .label_values import SUGGESTED
from .losses import forward_corrected, labelled, loss_named
from .models import build_model, model_options, save_weights
from .progress import Progress
from .training import (
    Curves,
    Learner,
    check_labels,
    class_rates,
    end_step,
    n_steps,
    strengthen,
    warm_start,
    weak_images,
    weak_labels,
)
from .transition import Transition, label_pairs
from .volumes import OUTSIDE, Volume

AROUND_LABELS = 2 / 3
"""Of the crops of labelled slices, those around a pixel of a class that is drawn first, as nnU-Net oversamples."""


def train(
    volumes: Sequence[Volume],
    labels: Sequence[Volume],
    out: str | Path,
    curves: str | Path,
    *,
    settings: dict[str, Any],
    model_settings: dict[str, Any],
    n_classes: int,
    seed: int,
    device: str = "auto",
    mem_budget_mb: float = 4000,
    identity: str = "",
    labelled_slices: Sequence[tuple[int, int]] = (),
    sparse: bool = False,
    start_from: str | Path | None = None,
    transition: np.ndarray | None = None,
) -> None:
    """Train on labels; write the weights and the curves.

    Parameters
    ----------
    volumes, labels : sequence of Volume
        uint16 grey levels (0 outside) and uint8 labels (255 unlabelled) of the same shapes.
    out, curves : path
        Weights (safetensors) and curves (CSV: step, loss, rate_<class> among the predictions, lr).
    settings, model_settings : dict
        Sections `train` and `model` of the configuration.
    n_classes : int
    seed : int
    device : str
        auto, cpu or cuda.
    mem_budget_mb : float
        Volumes that fit are held in memory, else crops are read from their files.
    identity : str
        Digest of the inputs; a resume state of other inputs is not used.
    labelled_slices : sequence of (volume, z)
        Slices that crops are drawn from; empty means all.
    sparse : bool
        Whether little is painted: crops are then drawn around painted pixels, every class as often; else two thirds of
        those of labelled slices are, so that a class of few pixels is learned in time.
    start_from : path, optional
        Weights to begin with, of the same network.
    transition : ndarray, float, (n_classes, n_classes), optional
        How often a pixel of each phase bears each label; the network then learns the phases (`forward_corrected`).

    Raises
    ------
    InputError
        For an unknown network or loss, labels that are no class, no labelled pixel, or a loss that diverges.

    Notes
    -----
    The last weights are kept, or with `best_of` those of the least training loss (equation 7) of its first epochs, as
    the paper does: of the mean over `log_every` steps, as the loss of one batch of random crops is luck.
    """
    loss_of = loss_named(settings, "train")
    compute = choose(device)
    ranks = join(compute.device)
    mine = ranks.share(settings["batch"])
    meta = {
        "name": model_settings["name"],
        "in_channels": model_settings["n_slices"],
        "n_classes": n_classes,
        "options": model_options(model_settings),
        "crop": settings["crop"],
        "stage": "stage2",
    }
    torch.manual_seed(seed)
    model = build_model(meta["name"], meta["in_channels"], n_classes, **meta["options"]).to(compute.device)
    warm_start(model, meta, start_from)
    anchors = painted_places(labels, seed) if sparse or labelled_slices else []
    place = (meta["in_channels"], settings["crop"], settings["batch"], seed, mem_budget_mb, mine)
    around = 1.0 if sparse else AROUND_LABELS
    crops = Crops(volumes, labels, *place, labelled=labelled_slices, anchors=anchors, anchored=around)
    steps, end = n_steps(settings, crops.epoch_slices), end_step(settings, crops.epoch_slices)
    learner = Learner(
        model,
        loss_of,
        crops.batch,
        lr=settings["lr"],
        steps=steps,
        seed=seed,
        compute=compute,
        ranks=ranks,
        prior=settings["prior"],
    )
    names = ["loss", *(f"rate_{c}" for c in range(n_classes))]
    record = Curves(names, settings["log_every"], end, compute.device)
    least: dict[str, Any] = {}

    correction = None if transition is None else Transition(transition, steps, compute.device)

    task = [settings, meta, seed, compute.name, torch.get_num_threads(), [v.shape for v in volumes], identity]
    resume = Resume(out, [*task, ranks.size], settings["checkpoint_s"], ranks)
    start = 0
    if (state := resume.load(compute.device)) is not None:
        learner.load(state["learner"])
        record.load(state["curves"])
        least = state["least"]
        if correction is not None:
            correction.counts = state["transition"]
        start = state["step"]

    model.train()
    with resume.watching_sigterm(), Progress(end, "steps", "train", done=start) as progress:
        for step, (grey, label) in enumerate(crops.steps(start, end), start=start):
            check_labels(label, n_classes, settings["prior"] > 0)
            which = augment.draw_geometry(seed, step, len(grey), mine.start)
            images, target = weak_images(grey, which, compute), weak_labels(label, which, compute)
            inside = augment.apply_geometry(torch.from_numpy(grey != OUTSIDE).to(compute.device), which)
            if settings["piecewise_affine"]["scale"]:
                warp = augment.draw_warp(seed, step, len(grey), settings["piecewise_affine"], mine.start)
                images, inside = augment.apply_warp(images, warp), augment.apply_warp(inside, warp, nearest=True)
                images = images.contiguous(memory_format=torch.channels_last)
                target = augment.apply_warp(target[:, None], warp, nearest=True)[:, 0]
            if settings["strong_share"]:
                share, photometry = settings["strong_share"], settings["photometry"]
                images = strengthen(images, inside, share, photometry, seed, step, mine.start, crops.batch)
            painted = target < SUGGESTED if settings["prior"] else None
            if correction is not None:
                learner.loss_of = partial(forward_corrected, loss_of=loss_of, transition=correction.at(step))
            total, count, predicted = learner.step(step, images, target, painted)
            if correction is not None:
                correction.add(ranks.sum(label_pairs(predicted, target, n_classes)))

            rates = ranks.sum(class_rates(predicted, labelled(target), n_classes))
            sums = torch.cat([total.double()[None], rates])
            row = record.add(step, sums, count.expand(len(sums)).double(), learner.learning_rate)
            if settings["best_of"] and row is not None and row["loss"] <= least.get("loss", math.inf):
                least = {"loss": row["loss"], "weights": {key: v.clone() for key, v in model.state_dict().items()}}
            progress.update(**({} if row is None else {"loss": row["loss"]}))
            if resume.due() and step + 1 < end:
                state = {"learner": learner.state(), "curves": record.state(), "least": least}
                state["transition"] = None if correction is None else correction.counts
                resume.save({"step": step + 1, **state})
    if least:
        model.load_state_dict(least["weights"])
    if ranks.first:
        if correction is not None:
            print("train.forward_correction: the same at the end, of the voxels that the network takes for each phase")
            print(rows_in_words(correction.measured().cpu().numpy()))
        save_weights(out, model, meta)
        record.write(curves)
        resume.remove()
