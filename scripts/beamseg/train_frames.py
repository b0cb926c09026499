"""Training on frames: supervised, with cross-consistency, with a frozen encoder, or again with pseudo-labels.

Models A to F of the nanowire report. Every random choice is a function of (seed, phase, step, index).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from .checkpoint import Resume
from .crops import keyed_rng
from .device import Pieces, choose, room_for
from .errors import InputError
from .frame_batches import Item, Task, batch_of, label_of, mean_iou, others, subset
from .losses import dice_cross_entropy, softmax_mse
from .models import save_weights
from .perturbations import PERTURBATIONS, Share
from .progress import Progress
from .provenance import atomic_path

POWER = 0.9
ONE = "a frame"
REMEDY = "lower `frames.size`, end what else runs on the GPU, or set `device: cpu`"


def learning_rate(settings: dict[str, Any], steps: int) -> np.ndarray:
    """Learning rate of every step, (steps,).

    `polynomial`: lr0 (1 − t/T)^0.9. `as_printed`: lr(t + 1) = lr(t) (1 − (t/T)^0.9), the formula in section 5 of the
    report, which multiplies what it should set.
    """
    t = np.arange(steps) / steps
    if settings["schedule"] == "polynomial":
        return settings["lr"] * (1 - t) ** POWER
    return settings["lr"] * np.concatenate([[1.0], np.cumprod(1 - t[:-1] ** POWER)])


def consistency_weight(step: int, steps: int, settings: dict[str, Any]) -> float:
    """Weight of the consistency, exp(−5 (1 − t)²) of the full one; t goes from 0 to 1 over `ramp` of all steps."""
    rise = settings["ramp"] * steps
    t = min(1.0, step / rise) if rise > 0 else 1.0
    return float(settings["consistency"] * math.exp(-5 * (1 - t) ** 2))


@room_for(ONE, REMEDY)
def train_frames(
    labelled: Sequence[Item],
    validation: Sequence[Item],
    unlabelled: Sequence[Item],
    out: str | Path,
    curves: str | Path,
    *,
    settings: dict[str, Any],
    size: int,
    grey_to_class: dict[int, int],
    stage3: str,
    seed: int,
    device: str = "auto",
    identity: str = "",
) -> None:
    """Train; write the weights of the best epoch and the curves.

    Parameters
    ----------
    labelled, validation, unlabelled : sequence of Item
        With masks, with masks, without. The best epoch has the highest mean IoU on `validation`; if there is none the
        last epoch is kept.
    out, curves : path
        Weights (safetensors); CSV of phase, epoch, loss, consistency, weight, validation (mean IoU), lr.
    settings : dict
        Section `train_frames`.
    size : int
        Longer side of what the network sees.
    grey_to_class : dict
        Grey value in the masks -> class.
    stage3 : str
        none, or pseudo_labeling: train anew on `labelled` and on `pseudo_frames` unlabelled frames, with labels that
        the first network gives them.

    Raises
    ------
    InputError
        If there is no labelled frame, no unlabelled one where they are needed, the loss diverges, or a frame does not
        fit the device.
    """
    if not labelled:
        raise InputError("labels.path", "no labelled frame for training", "one at least", "label frames")
    needs_more = settings["objective"] == "cross_consistency" or stage3 == "pseudo_labeling"
    if needs_more and not unlabelled:
        raise InputError(
            "path",
            "no frame without a label, but for those between the parts of the split",
            "some to learn from",
            "give more frames, set `frames.hidden` to hide some labels, or take `nanowires_a` or `nanowires_d`",
        )
    task = Task(settings, size, grey_to_class, seed, choose(device))
    first = ["supervised"] if settings["pretrain"] or stage3 == "pseudo_labeling" else []
    last = {"pseudo_labeling": "pseudo_labeling"}.get(stage3, settings["objective"])
    names = [settings, stage3, size, seed, task.compute.name, torch.get_num_threads(), identity]
    resume = Resume(out, names, settings["checkpoint_s"])
    state = resume.load(task.compute.device) or {"phase": 0, "rows": [], "before": None}
    rows: list[dict[str, Any]] = list(state["rows"])
    for number, phase in enumerate([*first, last]):
        if number < state["phase"]:
            continue
        torch.manual_seed(int(keyed_rng(seed, "torch", number).integers(2**62)))
        model = task.build()
        before = None
        if state["before"] is not None:
            before = task.build()
            before.load_state_dict(state["before"])
            before.requires_grad_(False).eval()
        items = list(labelled)
        label = partial(label_of, task, None)
        frozen: nn.Module | None = None
        if phase == "pseudo_labeling" and before is not None:
            items += subset(unlabelled, settings["pseudo_frames"], seed)
            label = partial(label_of, task, before)
        elif before is not None:
            frozen = part_of(model, "encoder")
            frozen.load_state_dict(part_of(before, "encoder").state_dict())
            frozen.requires_grad_(False)
        consistent = phase == "cross_consistency"
        best = fit(
            *(model, frozen, task, number, phase, items, label, validation),
            unlabelled if consistent else [],
            *(rows, resume, state),
        )
        state = {"phase": number + 1, "rows": rows, "before": best}
    final = task.build()
    final.load_state_dict(state["before"])
    save_weights(out, final, {**task.meta, "size": size, "stage": last})
    with atomic_path(curves) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False, float_format="%.6g")
    resume.remove()


def fit(
    model: nn.Module,
    frozen: nn.Module | None,
    task: Task,
    number: int,
    phase: str,
    items: list[Item],
    label: Callable[[Item, torch.Tensor], np.ndarray],
    validation: Sequence[Item],
    unlabelled: Sequence[Item],
    rows: list[dict[str, Any]],
    resume: Resume,
    state: dict[str, Any],
) -> dict[str, torch.Tensor]:
    """One phase; the parameters of its best epoch. `rows` gets a row per epoch, `state` is what `resume` found."""
    settings, device = task.settings, task.compute.device
    auxiliary = nn.ModuleDict()
    if unlabelled:
        for name in settings["perturbations"]:
            auxiliary[name] = part_of(task.build(), "decoder")
    trained = [p for p in [*model.parameters(), *auxiliary.parameters()] if p.requires_grad]
    optimizer = torch.optim.SGD(trained, settings["lr"], settings["momentum"])
    scaler = torch.amp.GradScaler(device.type, enabled=task.compute.autocast is torch.float16)
    room = Pieces(settings["batch"], ONE, REMEDY)
    per_epoch = math.ceil(len(items) / settings["batch"])
    steps = per_epoch * settings["epochs"]
    rates = learning_rate(settings, steps)
    best, best_score, start = copied(model), -1.0, 0
    if (inside := state.get("inside")) is not None:
        model.load_state_dict(inside["model"])
        auxiliary.load_state_dict(inside["auxiliary"])
        optimizer.load_state_dict(inside["optimizer"])
        scaler.load_state_dict(inside["scaler"])
        best, best_score, start = inside["best"], inside["best_score"], inside["epoch"]
    with resume.watching_sigterm(), Progress(steps, "steps", phase, done=start * per_epoch) as progress:
        for epoch in range(start, settings["epochs"]):
            model.train()
            if frozen is not None:
                frozen.eval()
            order = keyed_rng(task.seed, "slices", 1, number, epoch).permutation(len(items))
            sums = np.zeros(3)
            for index in range(per_epoch):
                step = epoch * per_epoch + index
                chosen = [items[i] for i in order[index * settings["batch"] : (index + 1) * settings["batch"]]]
                for group in optimizer.param_groups:
                    group["lr"] = float(rates[step])
                images, targets = batch_of(chosen, label, task, (number, step))
                more = others(unlabelled, task, number, step) if auxiliary else images[:0]
                weight = consistency_weight(step, steps, settings) if auxiliary else 0.0

                def learn(
                    pieces: list[slice],
                    images: torch.Tensor = images,
                    targets: torch.Tensor = targets,
                    more: torch.Tensor = more,
                    weight: float = weight,
                    step: int = step,
                ) -> list[float]:
                    optimizer.zero_grad(set_to_none=True)
                    supervised = learn_labels(model, images, targets, task, pieces, scaler)
                    key = (number, step)
                    apart = learn_consistency(model, auxiliary, more, task, pieces, scaler, weight, key)
                    return [supervised, apart, weight]

                sums += room.run(max(len(images), len(more)), learn)
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(trained, 10.0)
                scaler.step(optimizer)
                scaler.update()
                progress.update()
            score = mean_iou(model, validation, task) if validation else float(epoch)
            loss_mean, apart_mean, weight_mean = sums / per_epoch
            row = {"phase": phase, "epoch": epoch + 1, "loss": loss_mean, "consistency": apart_mean}
            row |= {"weight": weight_mean, "validation": score if validation else math.nan, "lr": float(rates[step])}
            rows.append(row)
            if not math.isfinite(loss_mean + apart_mean):
                raise InputError("training", f"a loss of {loss_mean}", "a finite loss", "lower `train_frames.lr`")
            if score > best_score:
                best, best_score = copied(model), score
            if resume.due() and epoch + 1 < settings["epochs"]:
                parts: dict[str, Any] = {"model": model.state_dict(), "auxiliary": auxiliary.state_dict()}
                parts |= {"optimizer": optimizer.state_dict(), "scaler": scaler.state_dict()}
                parts |= {"best": best, "best_score": best_score}
                kept = {"phase": number, "rows": rows, "before": state["before"]}
                resume.save({**kept, "inside": {**parts, "epoch": epoch + 1}})
    return best


def learn_labels(
    model: nn.Module,
    images: torch.Tensor,
    targets: torch.Tensor,
    task: Task,
    pieces: list[slice],
    scaler: torch.amp.GradScaler,
) -> float:
    """Add the gradient of Dice and cross-entropy, and return their sum.

    Dice is one ratio over the batch: of several pieces first the logits are computed, then the loss and its gradient by
    all of them, and by that the gradients of the parameters, piece by piece.
    """

    def logits_of(piece: slice) -> torch.Tensor:
        with task.compute.precision():
            return model(images[piece]).float()

    def loss_of(logits: torch.Tensor) -> torch.Tensor:
        total, count = dice_cross_entropy(logits, targets)
        return total / count.clamp(min=1)

    pieces = [piece for piece in pieces if piece.start < len(images)]
    if len(pieces) == 1:
        loss = loss_of(logits_of(pieces[0]))
        scaler.scale(loss).backward()
        return float(loss.detach())
    with torch.no_grad():
        logits = torch.cat([logits_of(piece) for piece in pieces])
    loss = loss_of(logits.requires_grad_())
    (slope,) = torch.autograd.grad(scaler.scale(loss), logits)
    for piece in pieces:
        logits_of(piece).backward(slope[piece])
    return float(loss.detach())


def learn_consistency(
    model: Any,
    auxiliary: nn.ModuleDict,
    images: torch.Tensor,
    task: Task,
    pieces: list[slice],
    scaler: torch.amp.GradScaler,
    weight: float,
    key: tuple[int, int],
) -> float:
    """Add `weight` times the gradient of the consistency, and return the consistency; 0 without auxiliary decoders.

    The mean over the auxiliary decoders of their softmax's distance from the main decoder's, which has no gradient.
    Features alone that come last, the encoder's own output, are perturbed; those of skip connections are not. `key` is
    (phase, step); pieces of a batch meet the draws of the whole.
    """
    apart = 0.0
    for piece in pieces if auxiliary else []:
        share = Share(piece.start, len(images))
        with task.compute.precision():
            features = model.encode(images[piece])
            with torch.no_grad():
                probability = model.decode([x.detach() for x in features]).softmax(dim=1)
        found = torch.zeros((), device=images.device)
        for index, (name, decoder) in enumerate(auxiliary.items()):
            torch.manual_seed(int(keyed_rng(task.seed, "torch", *key, index).integers(2**62)))

            def from_features(
                z: torch.Tensor, decoder: Any = decoder, features: list[torch.Tensor] = features
            ) -> torch.Tensor:
                return decoder.decode([*features[:-1], z])

            with task.compute.precision():
                perturbed = PERTURBATIONS[name](features[-1].float(), probability, from_features, share)
                logits = from_features(perturbed)
            total, count = softmax_mse(logits.float(), probability)
            found = found + total / (count * len(images) / len(probability)) / len(auxiliary)
        scaler.scale(weight * found).backward()
        apart += float(found.detach())
    return apart


def part_of(model: Any, part: str) -> nn.Module:
    """A network with its encoder or its decoder alone; the parts are the network's own, not copies."""
    shell = copy.copy(model)
    shell._modules = dict(model._modules)
    if part == "decoder":
        for name in model.encoder_parts:
            shell._modules.pop(name)
        return shell
    first = model.encoder_parts[0]  # of the PSPNet the ResNet, without its pyramid
    return nn.ModuleDict({first: getattr(model, first)})


def copied(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters as they are now."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
