"""The watch against collapse of stage 3: fixed crops, the user's labels if there are any, and a verdict in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from . import augment
from .crops import Crops
from .device import Compute, Pieces
from .label_values import UNLABELLED
from .mixture import tied_mixture
from .palette import CLUSTER, word_for
from .predict import predict_slices
from .training import weak_images
from .volumes import MAX_GREY, OUTSIDE, ArrayVolume, Volume

FORWARD_BATCH = 16
LEVELS = 1024
"""Bins of the grey levels that imply the shares of classes."""
RATES_KNOWN = 0.04
"""Half the sum of differences by which these shares are wrong themselves, on phantoms at most; less says nothing."""
WINDOWS, WINDOW = 8, 256
"""Windows, and their edge in pixels, in which labels must explain the grey levels."""
OVERLAP = 0.25
TILE = 16
"""Edge in pixels of the tiles inside which they must; slow shading is flat over them."""


def mean_iou(a: torch.Tensor, b: torch.Tensor, n_classes: int, classes: Sequence[int]) -> float:
    """Mean over `classes` of the intersection over union of two label maps; a class in neither counts 0."""
    counts = torch.bincount(a * n_classes + b, minlength=n_classes**2).view(n_classes, n_classes).double()
    both = counts.diagonal()
    either = counts.sum(0) + counts.sum(1) - both
    return float((both / either.clamp(min=1))[list(classes)].mean())


def class_ious(a: np.ndarray, b: np.ndarray, n_classes: int) -> list[float]:
    """Intersection over union of each class in two label arrays, uint8; 1 for a class in neither."""
    return [
        float(((a == c) & (b == c)).sum() / union) if (union := ((a == c) | (b == c)).sum()) else 1.0
        for c in range(n_classes)
    ]


def class_recalls(found: np.ndarray, given: np.ndarray, n_classes: int) -> list[float]:
    """Share of the pixels given to each class that are found to be it, of two uint8 arrays; 1 for a class not given."""
    return [float((found[given == c] == c).mean()) if (given == c).any() else 1.0 for c in range(n_classes)]


def local_spread(grey: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """How much of the local variance of grey levels labels leave: sums of squares within classes, and over all.

    Parameters
    ----------
    grey : uint16 (y, x)
        0 is outside.
    labels : uint8 (y, x)

    Returns
    -------
    within, total : float
        Sums of squared deviations from the mean of a class in a tile, and from the mean of a tile, of grey levels
        0 … 1 smoothed by a Gaussian of σ = 1 px.

    Notes
    -----
    Not in the paper. Slow shading is flat over a tile, so labels that stop following it lose nothing; labels that
    give up small pieces, or move edges, do.
    """
    inside = grey != OUTSIDE
    known = gaussian_filter(inside.astype(np.float32), 1.0)
    smooth = gaussian_filter(np.where(inside, grey / np.float32(MAX_GREY), 0.0), 1.0)[inside] / known[inside]
    y, x = (np.arange(extent) // TILE for extent in grey.shape)
    tile = (y[:, None] * (x[-1] + 1) + x)[inside]
    return _squares(smooth, tile * 256 + labels[inside]), _squares(smooth, tile)


def _squares(values: np.ndarray, cell: np.ndarray) -> float:
    """Sum of squared deviations from the mean of each cell."""
    count = np.bincount(cell)
    mean = np.bincount(cell, values) / np.maximum(count, 1)
    return float(np.square(values - mean[cell]).sum())


def implied_rates(grey: np.ndarray, labels: np.ndarray, n_classes: int) -> np.ndarray:
    """Shares of the classes that grey levels imply, float64 (n_classes,); they sum to 1.

    Those of `tied_mixture`, Gaussians of one variance without the rims of phases, its components in the order of grey
    being the classes in the order of their mean grey. Clusters that cut overlapping phases in the middle, and networks
    that learned from them, give a rare phase beside a common one too many pixels; the mixture does not. Ours.

    Parameters
    ----------
    grey : uint16 (n,)
        Above 0.
    labels : uint8 (n,)
        Below `n_classes`. A class without a pixel gets none.
    """
    level = grey.astype(np.intp) * LEVELS >> 16
    counts = np.bincount(labels.astype(np.intp) * LEVELS + level, minlength=n_classes * LEVELS)
    counts = counts.reshape(n_classes, LEVELS)
    held, present = np.flatnonzero(counts.any(axis=0)), np.flatnonzero(counts.any(axis=1))
    rates = counts.sum(axis=1) / counts.sum()
    if len(held) < len(present):
        return rates
    by_grey = present[np.argsort(counts[present] @ np.arange(LEVELS) / counts[present].sum(axis=1))]
    mixture = tied_mixture(held.astype(np.float64), counts[:, held].sum(axis=0).astype(np.float64), len(present))
    rates[by_grey] = mixture.shares
    return rates


def within_margin(inside: torch.Tensor, margin: int) -> torch.Tensor:
    """Pixels `margin` px (a quarter of the crop at most) or more from the crop's border, bool (n, y, x).

    Near the border a network sees half of a pixel's surroundings; what a teacher says there would be learned.
    """
    margin = min(margin, inside.shape[-1] // 4)
    kept = torch.zeros_like(inside)
    middle = slice(margin, inside.shape[-1] - margin)
    kept[:, middle, middle] = inside[:, middle, middle]
    return kept


@dataclass
class Watch:
    """Fixed crops of the training volumes, a weak and a strong view of each, and windows of whole slices.

    What it measures of a network, none of it with labels. On the windows, predicted as `segment` predicts: `rates`,
    each class's share of the field of view; `agreement`, the share of pixels labelled as stage 2 labels them, and by
    class (`class_agreement`) the IoU of its pixels with those of stage 2;
    `unexplained`, the share of the local contrast that the labels leave (`local_spread`); `rates_off`, where classes
    are clusters, how far the rates lie from `implied_rates`, half the sum of differences. On the crops, away from
    their borders: `consistency`, the mean over classes of the IoU between the labels of the weak and the strong view.
    A network that gives up a class loses its share of the consistency, so the measure does not reward collapse; one
    that gives up the small pieces of a class leaves more unexplained.

    Where the user labelled something, `labelled` besides: the mean IoU on the labelled pixels of further windows. Stage
    2 and the student were both taught these labels, so it compares the two and says nothing of unlabelled slices.

    Where few pixels were painted (`painted`) stage 2 may call whole regions what they are not, and how much of a class
    it found is no measure of what a better network finds. So rates and agreement by class are not asked for, nor that
    mean IoU, which a stage 2 that learned a few hundred pixels by heart wins; but that each class keeps its recall on
    them (`labelled_recall`), and that labels leave no more contrast unexplained than those of stage 2. Ours.
    """

    images: torch.Tensor
    strong: torch.Tensor
    inside: torch.Tensor
    windows: list[np.ndarray]
    compute: Compute
    meta: dict[str, Any]
    settings: dict[str, Any]
    start_labels: list[np.ndarray]
    start: dict[str, Any]
    examples: list[np.ndarray] = field(default_factory=list)
    given: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint8))
    implied: np.ndarray | None = None
    painted: bool = False
    word: str = CLUSTER

    @classmethod
    def of(
        cls,
        model: nn.Module,
        volumes: Sequence[Volume],
        meta: dict[str, Any],
        settings: dict[str, Any],
        seed: int,
        compute: Compute,
        labels: Sequence[Volume] | None = None,
        labelled: Sequence[tuple[int, int]] = (),
        anchors: Sequence[np.ndarray] = (),
        label_source: str = "clusters",
    ) -> Watch:
        """Choose crops and windows and measure stage 2 on them; `settings` is the section `self_correct`.

        `labels`, `labelled` and `anchors` are those of `Crops`; `label_source` is the configuration's.
        """
        count = settings["watch"]["crops"]
        crops = Crops(volumes, None, meta["in_channels"], meta["crop"], count, seed + 1, 0.0)
        grey, _ = crops.step(0)
        images = weak_images(grey, np.zeros(count, dtype=int), compute)
        everywhere = torch.from_numpy(grey != OUTSIDE).to(compute.device)
        drawn = augment.draw_photometry(seed + 1, 0, count, settings["photometry"])
        strong = augment.apply_photometry(images, everywhere, drawn).contiguous(memory_format=torch.channels_last)
        inside = within_margin(everywhere[:, meta["in_channels"] // 2], settings["margin"])
        edge = min(WINDOW, *(extent for volume in volumes for extent in volume.shape[1:]))
        windows = list(Crops(volumes, None, meta["in_channels"], edge, WINDOWS, seed + 2, 0.0).step(0)[0])
        views = (images, strong, inside, windows)
        painted = label_source == "pixels" and bool(labelled)
        word = word_for(label_source)
        watch = cls(*views, compute, meta, settings["watch"], [], {}, painted=painted, word=word)
        if labelled:
            place = (meta["in_channels"], edge, WINDOWS, seed + 3, 0.0)
            examples, watch.given = Crops(volumes, labels, *place, labelled=labelled, anchors=anchors).step(0)
            watch.examples = list(examples)
        watch.start_labels = watch._labels(model, windows)
        begun = np.stack(watch.start_labels)
        known = begun != UNLABELLED
        if watch.word == CLUSTER and known.any():
            middle = np.stack([window[meta["in_channels"] // 2] for window in windows])
            watch.implied = implied_rates(middle[known], begun[known], meta["n_classes"])
        watch.start = watch.measure(model)
        return watch

    @torch.inference_mode()
    def _probabilities(self, model: nn.Module, images: torch.Tensor) -> torch.Tensor:
        """Class probabilities of the crops' pixels, float32 (pixels, classes)."""

        def of(piece: slice) -> torch.Tensor:
            with self.compute.precision():
                logits = model(images[piece])
            return logits.softmax(1).movedim(1, -1)[self.inside[piece]]

        return Pieces(FORWARD_BATCH).run(len(images), lambda some: torch.cat([of(piece) for piece in some]))

    def _labels(self, model: nn.Module, windows: list[np.ndarray]) -> list[np.ndarray]:
        """Labels uint8 (y, x) of windows (n_slices, y, x), 255 outside."""
        depth = self.meta["in_channels"]
        settings = ({"overlap": OVERLAP}, self.compute, self.meta["crop"], depth)
        middle = range(depth // 2, depth // 2 + 1)
        predicted = (predict_slices(model, ArrayVolume(w), middle.start, middle.stop, *settings) for w in windows)
        return [labels for slices in predicted for _, labels, _ in slices]

    def mean_probability(self, model: nn.Module) -> torch.Tensor:
        """Mean class probabilities over the weak views, float32 (classes,)."""
        return self._probabilities(model, self.images).mean(0).clone()

    def measure(self, model: nn.Module) -> dict[str, Any]:
        """Rates, agreement with stage 2, self-consistency, unexplained contrast; `rates_off` or `labelled`."""
        n_classes, middle = self.meta["n_classes"], self.meta["in_channels"] // 2
        labels = self._labels(model, self.windows)
        found = np.concatenate([label[label != UNLABELLED] for label in labels])
        before = np.concatenate([label[label != UNLABELLED] for label in self.start_labels])
        rates = np.bincount(found, minlength=n_classes) / max(1, len(found))
        known = self.start.get("rates", rates)
        classes = [c for c, rate in enumerate(known) if rate >= self.settings["least_rate"]]
        weak, strong = (self._probabilities(model, view).argmax(1) for view in (self.images, self.strong))
        spreads = [local_spread(w[middle], label) for w, label in zip(self.windows, labels, strict=True)]
        within, total = np.sum(spreads, axis=0)
        measured = {
            "rates": [round(float(rate), 6) for rate in rates],
            "agreement": round(float((found == before).mean()), 6) if len(found) else 1.0,
            "class_agreement": [round(iou, 6) for iou in class_ious(found, before, n_classes)],
            "consistency": round(mean_iou(weak, strong, n_classes, classes), 6),
            "unexplained": round(float(within / max(total, 1e-12)), 6),
        }
        if self.implied is not None:
            measured["rates_off"] = round(float(np.abs(rates - self.implied).sum() / 2), 6)
        if self.examples:
            taught = self.given != UNLABELLED
            given, answered = self.given[taught], np.stack(self._labels(model, self.examples))[taught]
            known = answered != UNLABELLED
            given, answered = given[known], answered[known]
            ious, present = class_ious(given, answered, n_classes), np.unique(given)
            measured["labelled"] = round(float(np.mean([ious[c] for c in present])), 6)
            measured["labelled_recall"] = [round(r, 6) for r in class_recalls(answered, given, n_classes)]
        return measured

    def failure(self, found: dict[str, Any]) -> str | None:
        """Why a measured network must not be used, in words, or None."""
        if found["agreement"] < self.settings["agreement"]:
            return f"only {found['agreement']:.0%} of the pixels agree with stage 2"
        if why := self._not_kept_where_painted(found) if self.painted else self._not_kept(found):
            return why
        left, left_before = found["unexplained"], self.start["unexplained"]
        if left > left_before * (1.0 if self.painted else self.settings["unexplained"]):
            return f"labels leave {left:.1%} of the local contrast unexplained, those of stage 2 {left_before:.1%}"
        off, off_before = found.get("rates_off", 0.0), self.start.get("rates_off", 0.0)
        if off > max(off_before + self.settings["rates_off"], RATES_KNOWN):
            return f"shares of classes are {off:.1%} off those that grey levels imply, stage 2's {off_before:.1%}"
        taught, taught_before = found.get("labelled", 0.0), self.start.get("labelled", 0.0)
        if taught < taught_before and not self.painted:
            return f"mean IoU {taught:.3f} on the labelled pixels is below that of stage 2, {taught_before:.3f}"
        return None

    def _not_kept(self, found: dict[str, Any]) -> str | None:
        """Which class is not what it was in stage 2, in words, or None."""
        limit, word = self.settings["rate_ratio"], self.word
        for c, (now, before) in enumerate(zip(found["rates"], self.start["rates"], strict=True)):
            if before >= self.settings["least_rate"] and now * limit < before:
                return f"{word} {c} fell from {before:.1%} to {now:.1%} of the pixels"
            if max(before, self.settings["least_rate"]) * limit < now:
                return f"{word} {c} grew from {before:.1%} to {now:.1%} of the pixels"
        for c, (iou, before) in enumerate(zip(found["class_agreement"], self.start["rates"], strict=True)):
            if before >= self.settings["least_rate"] and iou < self.settings["class_agreement"]:
                return f"{word} {c} has an IoU of {iou:.2f} with that of stage 2"
        return None

    def _not_kept_where_painted(self, found: dict[str, Any]) -> str | None:
        """Which class is no longer found where it was painted, in words, or None."""
        recalls = zip(found["labelled_recall"], self.start["labelled_recall"], strict=True)
        for c, (now, before) in enumerate(recalls):
            if now < self.settings["class_agreement"] * before:
                return f"of the painted pixels of class {c} {now:.0%} are found, stage 2 found {before:.0%}"
        return None

    def no_gain(self, found: dict[str, Any]) -> str | None:
        """Why a measured network is not worth using, in words, or None."""
        now, before, least = found["consistency"], self.start["consistency"], self.settings["gain"]
        if now < before + least:
            return f"self-consistency {now:.3f} gains less than {least:g} over that of stage 2, {before:.3f}"
        return None
