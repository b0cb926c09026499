"""Stage 2 from a few labelled pixels: an embedding learns by contrast, then a classifier on it (Li et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import augment, contrastive
from .checkpoint import Resume
from .crops import Crops, keyed_rng, painted_places
from .device import Compute, choose, room_for
from .losses import SUGGESTED, UNLABELLED, labelled, loss_named, with_suggestions
from .models import Embedded, build_model, model_options, save_weights
from .progress import Progress
from .training import (
    Curves,
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
        As for `train.train`, and where a batch does not fit the device.

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

    # Partners are drawn from all crops of a batch, so its pieces would not have the same loss.
    room = room_for("a step of contrastive training", "lower `train.batch` or `train.crop`, or take a larger GPU")
    with resume.watching_sigterm(), room, Progress(steps, "steps", "train", done=first) as progress:
        for step, (grey, label) in enumerate(crops.steps(first, steps), start=first):
            check_labels(label, n_classes, settings["prior"] > 0)
            which = augment.draw_geometry(seed, step, crops.batch)
            images, target = weak_images(grey, which, compute), weak_labels(label, which, compute)
            inside = augment.apply_geometry(torch.from_numpy(grey != OUTSIDE).to(compute.device), which)
            seed_torch(seed, step)
            if step < embedding_steps:
                optimizer = body_optimizer
                lr = learning_rate(step, embedding_steps, settings["lr"])
                measured = contrast(model.body.train(), images, inside, target, own, seed, step, compute)
                loss = sum((total / count.clamp(min=1) for total, count in measured.values()), torch.zeros(()))
                measured["loss"] = loss, torch.ones(())
            else:
                optimizer = head_optimizer
                lr = learning_rate(step - embedding_steps, own["classifier_steps"], own["classifier_lr"])
                with torch.no_grad(), compute.precision():
                    embedded = model.body.eval()(images)
                logits = model.head(embedded.float())
                total, count = with_suggestions(logits, target, loss_of=loss_of, weight=settings["prior"])
                loss = total / count.clamp(min=1)
                rates = class_rates(logits.argmax(1), labelled(target), n_classes)
                measured = {"loss": (total, count), **{f"rate_{c}": (rate, count) for c, rate in enumerate(rates)}}
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.zero_grad(set_to_none=True)
            if loss.requires_grad:  # no pixel may have had a partner
                scaler.scale(loss).backward()
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
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Sum and count of each loss that `settings` names, over samples of the pixels of a batch."""
    rng = keyed_rng(seed, "pixels", step)
    how = (settings["temperature"], settings["form"])
    with compute.precision():
        embedded = body(images).float()
    found = {}
    if "supervised" in settings["losses"]:
        painted = target.masked_fill(target >= SUGGESTED, UNLABELLED)
        drawn = contrastive.draw_partners(painted.cpu().numpy(), settings["pixels"], settings["partners"], rng)
        anchors, positives, negatives = (contrastive.at(embedded, p) for p in drawn)
        found["supervised_loss"] = contrastive.supervised(anchors, positives, negatives, *how)
    if "self_supervised" in settings["losses"]:
        middle = inside[:, inside.shape[1] // 2].cpu().numpy()
        pixels = contrastive.draw_pixels(middle, settings["pixels"], rng)
        drawn_changes = contrastive.draw_transform(seed, step, len(images), settings["transform"])
        generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
        changed = contrastive.transform(images, inside, drawn_changes, generator)
        with compute.precision():
            again = body(changed.contiguous(memory_format=torch.channels_last)).float()
        pairs = [(contrastive.at(embedded, own), contrastive.at(again, own)) for own in pixels]
        parts = [contrastive.self_supervised(*pair, *how) for pair in pairs]
        none = embedded.new_zeros(())
        found["self_supervised_loss"] = sum((n for n, _ in parts), none), sum((n for _, n in parts), none)
    return found
