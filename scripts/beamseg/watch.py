"""The watch against collapse of stage 3: fixed crops, looked at without labels, and a verdict in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from . import augment
from .crops import Crops
from .device import Compute
from .training import weak_images
from .volumes import OUTSIDE, Volume

FORWARD_BATCH = 16


def mean_iou(a: torch.Tensor, b: torch.Tensor, n_classes: int, classes: Sequence[int]) -> float:
    """Mean over `classes` of the intersection over union of two label maps; a class in neither counts 0."""
    counts = torch.bincount(a * n_classes + b, minlength=n_classes**2).view(n_classes, n_classes).double()
    both = counts.diagonal()
    either = counts.sum(0) + counts.sum(1) - both
    return float((both / either.clamp(min=1))[list(classes)].mean())


@dataclass
class Watch:
    """Fixed crops of the training volumes, a weak and a strong view of each.

    What it measures of a network, none of it with labels: `rates`, each class's share of the pixels in the field of
    view; `agreement`, the share of pixels labelled as stage 2 labels them; `consistency`, the mean over classes of the
    IoU between the labels of the weak and the strong view. A network that gives up a class loses its share of the
    consistency, so the measure does not reward collapse.
    """

    images: torch.Tensor
    strong: torch.Tensor
    inside: torch.Tensor
    compute: Compute
    n_classes: int
    settings: dict[str, Any]
    start_labels: torch.Tensor
    start: dict[str, Any]

    @classmethod
    def of(
        cls,
        model: nn.Module,
        volumes: Sequence[Volume],
        meta: dict[str, Any],
        settings: dict[str, Any],
        seed: int,
        compute: Compute,
    ) -> Watch:
        """Choose the crops and measure stage 2 on them; `settings` is the section `self_correct`."""
        count = settings["watch"]["crops"]
        crops = Crops(volumes, None, meta["in_channels"], meta["crop"], count, seed + 1, 0.0)
        grey, _ = crops.step(0)
        images = weak_images(grey, np.zeros(count, dtype=int), compute)
        everywhere = torch.from_numpy(grey != OUTSIDE).to(compute.device)
        drawn = augment.draw_photometry(seed + 1, 0, count, settings["photometry"])
        strong = augment.apply_photometry(images, everywhere, drawn).contiguous(memory_format=torch.channels_last)
        inside = everywhere[:, meta["in_channels"] // 2]
        watch = cls(images, strong, inside, compute, meta["n_classes"], settings["watch"], torch.empty(0), {})
        watch.start_labels = watch._labels(model, images)
        watch.start = watch.measure(model)
        return watch

    @torch.inference_mode()
    def _probabilities(self, model: nn.Module, images: torch.Tensor) -> torch.Tensor:
        """Class probabilities of the pixels in the field of view, float32 (pixels, classes)."""
        pieces = []
        for first in range(0, len(images), FORWARD_BATCH):
            with self.compute.precision():
                logits = model(images[first : first + FORWARD_BATCH])
            pieces.append(logits.softmax(1).movedim(1, -1)[self.inside[first : first + FORWARD_BATCH]])
        return torch.cat(pieces)

    def _labels(self, model: nn.Module, images: torch.Tensor) -> torch.Tensor:
        return self._probabilities(model, images).argmax(1)

    def mean_probability(self, model: nn.Module) -> torch.Tensor:
        """Mean class probabilities over the weak views, float32 (classes,)."""
        return self._probabilities(model, self.images).mean(0).clone()

    def measure(self, model: nn.Module) -> dict[str, Any]:
        """Rates, agreement with stage 2 and self-consistency of a network in evaluation mode."""
        labels = self._labels(model, self.images)
        rates = torch.bincount(labels, minlength=self.n_classes).double() / max(1, len(labels))
        known = self.start.get("rates", rates.tolist())
        classes = [c for c, rate in enumerate(known) if rate >= self.settings["least_rate"]]
        strong = self._labels(model, self.strong)
        return {
            "rates": [round(rate, 6) for rate in rates.tolist()],
            "agreement": round(float((labels == self.start_labels).double().mean()), 6),
            "consistency": round(mean_iou(labels, strong, self.n_classes, classes), 6),
        }

    def failure(self, found: dict[str, Any]) -> str | None:
        """Why a measured network must not be used, in words, or None."""
        limit = self.settings["rate_ratio"]
        for c, (now, before) in enumerate(zip(found["rates"], self.start["rates"], strict=True)):
            if before >= self.settings["least_rate"] and now * limit < before:
                return f"class {c} fell from {before:.1%} to {now:.1%} of the pixels"
            if max(before, self.settings["least_rate"]) * limit < now:
                return f"class {c} grew from {before:.1%} to {now:.1%} of the pixels"
        if found["agreement"] < self.settings["agreement"]:
            return f"only {found['agreement']:.0%} of the pixels agree with stage 2"
        if found["consistency"] < self.start["consistency"]:
            return (
                f"self-consistency {found['consistency']:.3f} is below that of stage 2, {self.start['consistency']:.3f}"
            )
        return None
