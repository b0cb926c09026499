"""Stage 2 from a few labelled pixels: an embedding learns by contrast, then a classifier on it (Li et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from . import augment, contrastive
from .checkpoint import Resume
from .crops import Crops, keyed_rng, painted_places
from .device import Compute, Pieces, choose
from .label_values import SUGGESTED, UNLABELLED
from .losses import Result, labelled, loss_named, suggested, with_suggestions
from .models import Embedded, build_model, model_options, save_weights
from .models.blocks import place_share
from .progress import Progress
from .training import (
    Curves,
    accumulate,
    check_labels,
    class_rates,
    learning_rate,
    n_steps,
    seed_torch,
    warm_start,
    weak_images,
    weak_labels,
)
from .volumes import OUTSIDE, Volume

LOSSES = ("supervised", "self_supervised")
Measured = dict[str, Result]
"""Sums and counts of what the curves show."""
WHOLE = (slice(0, None),)
"""A batch in one piece."""


def train_contrastive(
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
    start_from: str | Path | None = None,
) -> None:
    """Train an embedding by contrast, freeze it, train a 1×1 classifier on it; write weights and curves.

    Parameters
    ----------
    volumes, labels, out, seed, device, mem_budget_mb, identity, start_from
        As for `train.train`; the weights have the same form, so that nothing downstream knows the difference.
    curves : path
        CSV: step, loss, supervised_loss and self_supervised_loss (empty while the classifier is trained), rate_<class>
        (empty while the embedding is), lr.
    settings, model_settings : dict
        Sections `train` (with `train.contrastive`) and `model`.

    Raises
    ------
    InputError
        As for `train.train`, and where a single crop does not fit the device.

    Notes
    -----
    L = L1 + L2 (equation 7) on samples of pixels of crops around painted ones; the classifier is trained by
    `train.loss`, in which unpainted pixels have no weight. Only the annotated slices are seen, as in the paper.
    """
    own = settings["contrastive"]
    loss_of = loss_named(settings, "train")
    compute = choose(device)
    meta = {
        "name": model_settings["name"],
        "in_channels": model_settings["n_slices"],
        "n_classes": n_classes,
        "options": model_options(model_settings, own["embedding"]),
        "crop": settings["crop"],
        "stage": "stage2",
    }
    torch.manual_seed(seed)
    model = build_model(meta["name"], meta["in_channels"], n_classes, **meta["options"]).to(compute.device)
    assert isinstance(model, Embedded)
    warm_start(model, meta, start_from)
    anchors = painted_places(labels, seed)
    place = (meta["in_channels"], settings["crop"], settings["batch"], seed, mem_budget_mb)
    crops = Crops(volumes, labels, *place, anchors=anchors)
    embedding_steps = n_steps(settings, crops.epoch_slices)
    steps = embedding_steps + own["classifier_steps"]
    body_optimizer = torch.optim.Adam(model.body.parameters(), lr=settings["lr"])
    head_optimizer = torch.optim.Adam(model.head.parameters(), lr=own["classifier_lr"])
    scaler = torch.amp.GradScaler(compute.device.type, enabled=compute.autocast is torch.float16)
    names = ["loss", *(f"{name}_loss" for name in LOSSES), *(f"rate_{c}" for c in range(n_classes))]
    record = Curves(names, settings["log_every"], steps, compute.device)

    task = [settings, meta, seed, compute.name, torch.get_num_threads(), [v.shape for v in volumes], identity]
    resume = Resume(out, task, settings["checkpoint_s"])
    first = 0
    if (state := resume.load(compute.device)) is not None:
        model.load_state_dict(state["model"])
        body_optimizer.load_state_dict(state["body_optimizer"])
        head_optimizer.load_state_dict(state["head_optimizer"])
        scaler.load_state_dict(state["scaler"])
        record.load(state["curves"])
        first = state["step"]

    pieces = Pieces(crops.batch)

    def embed(
        step: int,
        images: torch.Tensor,
        inside: torch.Tensor,
        target: torch.Tensor,
        source: np.ndarray,
        parts: list[slice],
    ) -> Measured:
        model.zero_grad(set_to_none=True)
        seed_torch(seed, step)
        found = contrast(model.body.train(), images, inside, target, own, seed, step, compute, parts, source)
        loss = sum((total / count.clamp(min=1) for total, count in found.values()), torch.zeros(()))
        if loss.requires_grad:  # no pixel may have had a partner
            scaler.scale(loss).backward()
        return {**found, "loss": (loss, torch.ones(()))}

    def classify(images: torch.Tensor, target: torch.Tensor, parts: list[slice]) -> Measured:
        model.zero_grad(set_to_none=True)
        model.body.eval()
        painted = target < SUGGESTED
        count = painted.sum()
        weight = settings["prior"] * count / suggested(target).sum().clamp(min=1)
        beside = partial(with_suggestions, loss_of=loss_of, weight=weight) if settings["prior"] else loss_of

        def logits_of(part: slice) -> torch.Tensor:
            with torch.no_grad(), compute.precision():
                embedded = model.body(images[part])
            return model.head(embedded.float())

        total, classes = accumulate(parts, logits_of, beside, target, painted, count, scaler)
        rates = class_rates(classes, labelled(target), n_classes)
        return {"loss": (total, count), **{f"rate_{c}": (rate, count) for c, rate in enumerate(rates)}}

    with resume.watching_sigterm(), Progress(steps, "steps", "train", done=first) as progress:
        for step, (grey, label) in enumerate(crops.steps(first, steps), start=first):
            check_labels(label, n_classes, settings["prior"] > 0)
            which = augment.draw_geometry(seed, step, crops.batch)
            images, target = weak_images(grey, which, compute), weak_labels(label, which, compute)
            inside = augment.apply_geometry(torch.from_numpy(grey != OUTSIDE).to(compute.device), which)
            if step < embedding_steps:
                optimizer = body_optimizer
                lr = learning_rate(step, embedding_steps, settings["lr"])
                source = augment.apply_geometry(torch.from_numpy(crops.sources(step)), which).numpy()
                measured = pieces.run(len(images), partial(embed, step, images, inside, target, source))
            else:
                optimizer = head_optimizer
                lr = learning_rate(step - embedding_steps, own["classifier_steps"], own["classifier_lr"])
                measured = pieces.run(len(images), partial(classify, images, target))
            for group in optimizer.param_groups:
                group["lr"] = lr
            if any(parameter.grad is not None for parameter in model.parameters()):
                scaler.step(optimizer)
                scaler.update()

            pairs = [measured.get(name, (torch.zeros(()), torch.zeros(()))) for name in names]
            sums, counts = (
                torch.stack([value.detach().to(compute.device, torch.float64) for value in values])
                for values in zip(*pairs, strict=True)
            )
            row = record.add(step, sums, counts, lr)
            progress.update(**({} if row is None else {"loss": row["loss"]}))
            if resume.due() and step + 1 < steps:
                resume.save(
                    {
                        "step": step + 1,
                        "model": model.state_dict(),
                        "body_optimizer": body_optimizer.state_dict(),
                        "head_optimizer": head_optimizer.state_dict(),
                        "scaler": scaler.state_dict(),
                        "curves": record.state(),
                    }
                )
    save_weights(out, model, meta)
    record.write(curves)
    resume.remove()


def contrast(
    body: nn.Module,
    images: torch.Tensor,
    inside: torch.Tensor,
    target: torch.Tensor,
    settings: dict[str, Any],
    seed: int,
    step: int,
    compute: Compute,
    parts: Sequence[slice] = WHOLE,
    source: np.ndarray | None = None,
) -> Measured:
    """Sum and count of each loss that `settings` names, over samples of the pixels of a batch.

    `source` says which pixel of the scan each pixel of the crops is, see `contrastive.draw_partners`.

    In several `parts` of the crops, what the sums were computed from is not kept but computed again, a part at a time,
    for the backward pass (gradient caching, Gao et al. 2021); the result is the same up to floating point.
    """
    rng = keyed_rng(seed, "pixels", step)
    how = (settings["temperature"], settings["form"])
    partners: list[np.ndarray] = []
    pixels: list[np.ndarray] = []
    if "supervised" in settings["losses"]:
        painted = target.masked_fill(target >= SUGGESTED, UNLABELLED).cpu().numpy()
        wanted = (settings["pixels"], settings["partners"], rng, settings["anchors"], source)
        partners = [*contrastive.draw_partners(painted, *wanted)]
    if "self_supervised" in settings["losses"]:
        middle = inside[:, inside.shape[1] // 2].cpu().numpy()
        pixels = contrastive.draw_pixels(middle, settings["pixels"], rng)
    embedded = embeddings(body, images, [*partners, *pixels], compute, parts)
    found = {}
    if "supervised" in settings["losses"]:
        anchors, positives, negatives = embedded[:3]
        found["supervised_loss"] = contrastive.supervised(anchors, positives, negatives, *how)
    if "self_supervised" in settings["losses"]:
        drawn_changes = contrastive.draw_transform(seed, step, len(images), settings["transform"])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        changed = contrastive.transform(images, inside, drawn_changes, generator)
        move = rng.integers(settings["transform"]["move"] + 1, size=2)
        changed = torch.roll(changed, tuple(move), (2, 3)).contiguous(memory_format=torch.channels_last)
        moved = [contrastive.moved(each, move, changed.shape[2:]) for each in pixels]
        again = embeddings(body, changed, moved, compute, parts)
        # Slices do not see each other, so the matrices of all need not be held together.
        size = len(images[parts[0]])
        views = [[each for view in both for each in view.split(size)] for both in (embedded[len(partners) :], again)]
        compare: Callable[..., Result] = contrastive.self_supervised
        if len(parts) > 1:
            compare = partial(checkpoint, compare, use_reentrant=False)
        losses = [compare(*pair, *how) for pair in zip(*views, strict=True)]
        none = images.new_zeros(())
        found["self_supervised_loss"] = sum((n for n, _ in losses), none), sum((n for _, n in losses), none)
    return found


def embeddings(
    body: nn.Module, images: torch.Tensor, pixels: Sequence[np.ndarray], compute: Compute, parts: Sequence[slice]
) -> list[torch.Tensor]:
    """Embeddings (…, d) of pixels, given as arrays of indices into the flat (n, y, x), of images (n, c, y, x).

    Of several parts of the images only the embeddings of these pixels are kept, so a loss can compare those of all.
    """

    def embed(part: torch.Tensor, start: int) -> torch.Tensor:
        place_share(body, len(images), start)
        with compute.precision():
            return body(part).float()

    if len(parts) == 1:
        embedded = embed(images, 0)
        return [contrastive.at(embedded, each) for each in pixels]

    wanted = np.unique(np.concatenate([np.empty(0, np.intp), *map(np.ravel, pixels)]))
    area = images[0, 0].numel()

    def sample(part: torch.Tensor, start: int) -> torch.Tensor:
        first, last = np.searchsorted(wanted, (start * area, (start + len(part)) * area))
        return contrastive.at(embed(part, start), wanted[first:last] - start * area)

    found = []
    random_of = [images.device] if images.is_cuda else []
    for part in parts:
        # Dropout is drawn for the whole batch, so each part begins with the same random state.
        with torch.random.fork_rng(random_of, enabled=part is not parts[-1]):
            found.append(checkpoint(sample, images[part], part.start, use_reentrant=False))
    rows = torch.cat(found)
    return [rows[torch.from_numpy(np.searchsorted(wanted, each)).to(rows.device)] for each in pixels]
