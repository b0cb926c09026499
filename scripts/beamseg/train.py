"""Stage 2: train a network on labels, here the pseudo-labels of the clusters (paper, section III-C)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from . import augment
from .checkpoint import Resume
from .crops import Crops
from .device import choose
from .losses import labelled, loss_named
from .models import build_model, save_weights
from .progress import Progress
from .training import (
    Curves,
    check_labels,
    class_rates,
    learning_rate,
    n_steps,
    seed_torch,
    strengthen,
    weak_images,
    weak_labels,
)
from .volumes import OUTSIDE, Volume


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

    Raises
    ------
    InputError
        For an unknown network or loss, labels that are no class, no labelled pixel, or a loss that diverges.

    Notes
    -----
    The last weights are kept. The paper keeps those of the least training loss (equation 7); with random crops the
    least is the luck of one batch, and as the learning rate falls to a hundredth the last weights are near it.
    """
    loss_of = loss_named(settings, "train")
    compute = choose(device)
    meta = {
        "name": model_settings["name"],
        "in_channels": model_settings["n_slices"],
        "n_classes": n_classes,
        "options": {"dropout": model_settings["dropout"]},
        "crop": settings["crop"],
        "stage": "stage2",
    }
    torch.manual_seed(seed)
    model = build_model(meta["name"], meta["in_channels"], n_classes, **meta["options"]).to(compute.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings["lr"])
    scaler = torch.amp.GradScaler(compute.device.type, enabled=compute.autocast is torch.float16)
    crops = Crops(volumes, labels, meta["in_channels"], settings["crop"], settings["batch"], seed, mem_budget_mb)
    steps = n_steps(settings, crops.epoch_slices)
    names = ["loss", *(f"rate_{c}" for c in range(n_classes))]
    record = Curves(names, settings["log_every"], steps, compute.device)

    task = [settings, meta, seed, compute.name, torch.get_num_threads(), [v.shape for v in volumes], identity]
    resume = Resume(out, task, settings["checkpoint_s"])
    start = 0
    if (state := resume.load(compute.device)) is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        scaler.load_state_dict(state["scaler"])
        record.load(state["curves"])
        start = state["step"]

    model.train()
    with resume.watching_sigterm(), Progress(steps, "steps", "train", done=start) as progress:
        for step, (grey, label) in enumerate(crops.steps(start, steps), start=start):
            check_labels(label, n_classes)
            which = augment.draw_geometry(seed, step, crops.batch)
            images, target = weak_images(grey, which, compute), weak_labels(label, which, compute)
            if settings["strong_share"]:
                inside = augment.apply_geometry(torch.from_numpy(grey != OUTSIDE).to(compute.device), which)
                images = strengthen(images, inside, settings["strong_share"], settings["photometry"], seed, step)
            lr = learning_rate(step, steps, settings["lr"])
            for group in optimizer.param_groups:
                group["lr"] = lr
            seed_torch(seed, step)
            with compute.precision():
                logits = model(images)
            total, count = loss_of(logits, target)
            optimizer.zero_grad(set_to_none=True)
            scaler.scale(total / count.clamp(min=1)).backward()
            scaler.step(optimizer)
            scaler.update()

            valid = labelled(target)
            rates = class_rates(logits.argmax(1), valid, n_classes)
            sums = torch.cat([total.double()[None], rates])
            row = record.add(step, sums, count.expand(len(sums)).double(), lr)
            progress.update(**({} if row is None else {"loss": row["loss"]}))
            if resume.due() and step + 1 < steps:
                resume.save(
                    {
                        "step": step + 1,
                        "model": model.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "scaler": scaler.state_dict(),
                        "curves": record.state(),
                    }
                )
    save_weights(out, model, meta)
    record.write(curves)
    resume.remove()
