"""Batches of frames with their masks, or with what a teacher sees, and how well a network meets the masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from . import augment
from .contact_angle import CLASSES
from .crops import keyed_rng
from .device import Compute
from .errors import InputError
from .frame_input import prepared, resized_mask
from .frames import Frames, read_mask
from .label_values import UNLABELLED
from .metrics import contingency, scores
from .models import build_model

PHOTOMETRY = {
    **{"probability": 0.5, "gamma": 0.4, "jitter": 0.1, "clahe": 0.0},
    **{"brightness": 0.1, "contrast": 0.2, "shading": 0.3},
}


@dataclass(frozen=True)
class Item:
    """A frame, and its mask where it has one."""

    frames: Frames
    name: str
    mask: Path | None = None


@dataclass(frozen=True)
class Task:
    """What all phases of a training share."""

    settings: dict[str, Any]
    size: int
    grey_to_class: dict[int, int]
    seed: int
    compute: Compute

    @property
    def meta(self) -> dict[str, Any]:
        """Of the weights file."""
        options = {"width": self.settings["width"]}
        return {"name": self.settings["network"], "in_channels": 1, "n_classes": len(CLASSES), "options": options}

    def build(self) -> nn.Module:
        """A network with new weights."""
        meta = self.meta
        model = build_model(meta["name"], 1, meta["n_classes"], **meta["options"])
        return model.to(self.compute.device)


def subset(items: Sequence[Item], n: int, seed: int) -> list[Item]:
    """`n` items at most, drawn by the seed, in order."""
    chosen = keyed_rng(seed, "slices", 2).permutation(len(items))[:n]
    return [items[i] for i in sorted(chosen)]


def batch_of(
    items: list[Item], label: Callable[[Item, torch.Tensor], np.ndarray], task: Task, key: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images float32 (n, 1, edge, edge) and labels uint8 (n, edge, edge), turned, in other light.

    A square takes the longest side of all, so that frames can be turned; what it has beyond a frame is the frame
    mirrored, without a label.
    """
    found = [prepared(item.frames.read(item.name), task.size) for item in items]
    edge = max(max(image.shape) for image in found)
    labels = torch.full((len(items), edge, edge), UNLABELLED, dtype=torch.uint8)
    squares = []
    for place, (item, image) in enumerate(zip(items, found, strict=True)):
        height, width = image.shape[-2:]
        squares.append(np.pad(image.numpy(), ((0, 0), (0, edge - height), (0, edge - width)), mode="symmetric"))
        labels[place, :height, :width] = torch.from_numpy(label(item, image))
    images = torch.from_numpy(np.stack(squares))
    inside = torch.ones(images.shape, dtype=torch.bool)
    step = key[0] * 1_000_000 + key[1]
    which = augment.draw_geometry(task.seed, step, len(items))
    device = task.compute.device
    images, inside, labels = (augment.apply_geometry(x.to(device), which) for x in (images, inside, labels))
    drawn = augment.draw_photometry(task.seed, step, len(items), PHOTOMETRY)
    images = augment.apply_photometry(images, inside, drawn)
    return images.contiguous(memory_format=torch.channels_last), labels


def others(unlabelled: Sequence[Item], task: Task, number: int, step: int) -> torch.Tensor:
    """The unlabelled images of a step."""
    rng = keyed_rng(task.seed, "slices", 3, number, step)
    chosen = [unlabelled[i] for i in rng.integers(len(unlabelled), size=task.settings["batch"])]
    nothing = np.uint8(UNLABELLED)
    return batch_of(chosen, lambda _, image: np.full(image.shape[-2:], nothing), task, (number + 10, step))[0]


def label_of(task: Task, teacher: nn.Module | None, item: Item, image: torch.Tensor) -> np.ndarray:
    """The mask of an item, or what the teacher sees on a frame without one."""
    return mask_of(task, item, image) if item.mask or teacher is None else predicted(teacher, task, image)


def mask_of(task: Task, item: Item, image: torch.Tensor) -> np.ndarray:
    """The mask of an item at the size of its prepared image."""
    assert item.mask is not None
    mask = read_mask(item.mask, task.grey_to_class, len(CLASSES))
    if mask.shape != item.frames.read(item.name).shape:
        raise InputError(item.mask, f"a mask of {mask.shape}", "the size of its frame", "export the mask again")
    return resized_mask(mask, (image.shape[-2], image.shape[-1]))


@torch.no_grad()
def predicted(model: nn.Module, task: Task, image: torch.Tensor) -> np.ndarray:
    """Classes uint8 (y, x) of a prepared image."""
    model.eval()
    with task.compute.precision():
        logits = model(image[None].to(task.compute.device))
    return logits[0].argmax(0).to(torch.uint8).cpu().numpy()


def mean_iou(model: nn.Module, items: Sequence[Item], task: Task) -> float:
    """Mean IoU over all classes, background too, at the network's size."""
    n = len(CLASSES)
    counts = np.zeros((n, n), np.int64)
    left_out = np.zeros(n, np.int64)
    for item in items:
        image = prepared(item.frames.read(item.name), task.size)
        counts += contingency(predicted(model, task, image), mask_of(task, item, image))[:n, :n]
    return float(scores(counts, left_out, [False] * n)["mean_iou"] or 0.0)
