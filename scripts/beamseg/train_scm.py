"""Train the spatial continuity model (SCM) on raw labels and what MPP made of them; `truth` is never read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from . import scm
from .checkpoint import Resume
from .crops import labelled_slices
from .device import Pieces, choose
from .errors import InputError
from .label_values import UNLABELLED
from .progress import Progress
from .provenance import atomic_path
from .volumes import LabelledVolume, Volume, in_memory


def read_window(volume: Volume, z0: int, z1: int, y0: int, x0: int, size: int) -> np.ndarray:
    """Labels z0 … z1, y0 … y0 + size, x0 … x0 + size, 255 beyond the volume; uint8, (z1 - z0, size, size)."""
    window = np.full((z1 - z0, size, size), UNLABELLED, np.uint8)
    starts, stops = (z0, y0, x0), (z1, y0 + size, x0 + size)
    low = [max(0, start) for start in starts]
    high = [min(extent, stop) for extent, stop in zip(volume.shape, stops, strict=True)]
    if all(a < b for a, b in zip(low, high, strict=True)):
        inner = tuple(slice(a - start, b - start) for a, b, start in zip(low, high, starts, strict=True))
        window[inner] = volume.read(low[0], high[0], slice(low[1], high[1]), slice(low[2], high[2]))
    return window


@dataclass
class MaskCrops:
    """Random crops of raw masks with their targets; which crop is a function of (seed, step, index) alone.

    Parameters
    ----------
    raw, targets : sequence of Volume
        The network's labels and MPP's, uint8, 255 outside the field of view.
    labels : sequence of Volume or None
        The user's labels, 255 unlabelled.
    labelled : list of (volume, z)
        See `labelled_slices`. Where there are any, every second crop of a batch holds a labelled pixel.
    n_slices, size, reach : int
        Masks of a stack; pixels of a crop; pixels around it that the network needs.
    seed : int
    see_labels : bool
        Of a volume with labels, the masks around the middle one bear them, as `refine_scm` shows them to the network;
        in half of the crops they do not, since a network is used on scans without labels too. False: in none.
    """

    raw: Sequence[Volume]
    targets: Sequence[Volume]
    labels: Sequence[Volume | None]
    labelled: list[tuple[int, int]]
    n_slices: int
    size: int
    reach: int
    seed: int
    see_labels: bool = True

    def crop(self, step: int, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Masks (n_slices, size + 2·reach, size + 2·reach), target and user's labels (size, size), all uint8."""
        rng = np.random.default_rng([self.seed, step, index])
        if self.labelled and index % 2:
            which, z = self.labelled[rng.integers(len(self.labelled))]
            y0, x0 = self._around_a_label(rng, which, z)
        else:
            ends = np.cumsum([volume.shape[0] for volume in self.raw])
            item = int(rng.integers(ends[-1]))
            which = int(np.searchsorted(ends, item, side="right"))
            z = item - int(ends[which] - self.raw[which].shape[0])
            y0, x0 = (int(rng.integers(max(0, n - self.size) + 1)) for n in self.raw[which].shape[1:])
        half, reach = self.n_slices // 2, self.reach
        raw, labels = self.raw[which], self.labels[which]
        place = (y0 - reach, x0 - reach, self.size + 2 * reach)
        masks = read_window(raw, z - half, z + half + 1, *place)
        target = read_window(self.targets[which], z, z + 1, y0, x0, self.size)[0]
        user = np.full_like(target, UNLABELLED)
        if labels is not None:
            user = read_window(labels, z, z + 1, y0, x0, self.size)[0]
            if self.see_labels and rng.integers(2):
                middle = masks[half].copy()
                masks = read_window(LabelledVolume(raw, labels), z - half, z + half + 1, *place)
                masks[half] = middle
        turns, mirrored, reversed_z = (int(v) for v in rng.integers((4, 2, 2)))
        pictures = []
        for picture in (masks[::-1] if reversed_z else masks, target, user):
            turned = np.rot90(picture, turns, axes=(-2, -1))
            pictures.append(np.ascontiguousarray(turned[..., ::-1] if mirrored else turned))
        return pictures[0], pictures[1], pictures[2]

    def _around_a_label(self, rng: np.random.Generator, which: int, z: int) -> tuple[int, int]:
        """Corner of a crop that holds a random labelled pixel, inside the slice where it fits."""
        labels = self.labels[which]
        assert labels is not None  # `labelled` names only volumes that have labels
        pixels = np.argwhere(labels.read(z, z + 1)[0] != UNLABELLED)
        pixel = pixels[rng.integers(len(pixels))]
        corner = pixel - rng.integers(self.size, size=2)
        most = np.maximum(0, np.array(labels.shape[1:]) - self.size)
        y0, x0 = np.clip(corner, 0, most)
        return int(y0), int(x0)

    def batch(self, step: int, n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Masks, targets and user's labels of a step, uint8, stacked."""
        crops = [self.crop(step, index) for index in range(n)]
        masks, targets, users = (torch.from_numpy(np.stack(pictures)) for pictures in zip(*crops, strict=True))
        return masks, targets, users


def scm_counts(targets: torch.Tensor, users: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels of MPP, where the user labelled nothing, and of the user's labels; both uint8, 255 ignored."""
    labelled = users != UNLABELLED
    return ((targets != UNLABELLED) & ~labelled).sum(), labelled.sum()


def scm_losses(
    logits: torch.Tensor, targets: torch.Tensor, users: torch.Tensor, counts: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Cross-entropy against MPP where the user labelled nothing, and against the user's labels elsewhere.

    Parameters
    ----------
    logits : (n, k, y, x)
    targets, users : (n, y, x), uint8, 255 ignored
    counts : scalar tensors
        `scm_counts` of the whole batch, of which this may be a piece.

    Returns
    -------
    mpp, labels : scalar tensors
        Sums over their pixels, divided by `counts`, so that those of pieces add up to means; 0 where there is none.
    agreement : scalar tensor
        Pixels of MPP that are met, divided likewise.
    """
    mpp = targets.long().masked_fill(users != UNLABELLED, UNLABELLED)
    user = users.long()
    n_mpp, n_user = (count.clamp(min=1) for count in counts)
    loss_mpp = F.cross_entropy(logits, mpp, ignore_index=UNLABELLED, reduction="sum") / n_mpp
    loss_labels = F.cross_entropy(logits, user, ignore_index=UNLABELLED, reduction="sum") / n_user
    agreement = ((logits.argmax(1) == mpp).sum() / n_mpp).detach()
    return loss_mpp, loss_labels, agreement


def train_scm(
    raw: Sequence[Volume],
    targets: Sequence[Volume],
    labels: Sequence[Volume | None],
    out: str | Path,
    curves: str | Path,
    settings: dict[str, Any],
    n_classes: int,
    seed: int,
    device: str,
    mem_budget_mb: float,
    identity: str = "",
) -> None:
    """Train the SCM; weights (safetensors) and curves (CSV) are written.

    The loss is cross-entropy against MPP's labels, plus `label_weight` times that against the user's labels, as the
    poster regularizes with its labelled slices. Killed at any time, a rerun goes on from the resume state beside
    `out` and ends with the same weights, bit by bit on the same kind of device.

    Parameters
    ----------
    raw, targets : sequence of Volume
        Labels of the network (before MPP) and of MPP, one of each per training scan.
    labels : sequence of Volume or None
        The user's labels per scan.
    out, curves : path
    settings : dict
        Section `refine_scm` of the configuration.
    n_classes, seed : int
    device : str
        `auto`, `cpu` or `cuda`.
    mem_budget_mb : float
        MiB; volumes that fit are held in memory, else crops are read.
    identity : str
        Digest of code and inputs; a resume state of another identity is not used.

    Raises
    ------
    InputError
        If a label is no class, the loss is no longer finite, or a single crop does not fit the device.
    """
    steps, batch = int(settings["steps"]), int(settings["batch"])
    where = choose(device).device
    labelled = labelled_slices(labels, n_classes)
    share = mem_budget_mb / (3 * len(raw))
    data = MaskCrops(
        [in_memory(volume, share, 1) for volume in raw],
        [in_memory(volume, share, 1) for volume in targets],
        [None if volume is None else in_memory(volume, share, 1) for volume in labels],
        labelled,
        n_slices=int(settings["adjacent_slices"]),
        size=int(settings["crop"]),
        reach=scm.SCM.reach,
        seed=seed,
        see_labels=settings["see_labels"],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = scm.SCM(data.n_slices, n_classes, int(settings["width"]))
    model = model.to(where)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings["lr"])
    task = [settings, n_classes, seed, [volume.shape for volume in raw], labelled, where.type, identity]
    resume = Resume(out, task, settings["checkpoint_s"])
    first, rows, sums = 0, [], torch.zeros(3, device=where)
    if state := resume.load(where):
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first, rows, sums = state["step"], state["rows"], state["sums"]

    pieces = Pieces(batch)

    def learn(masks: torch.Tensor, mpp: torch.Tensor, user: torch.Tensor, parts: list[slice]) -> torch.Tensor:
        optimizer.zero_grad()
        counts = scm_counts(mpp, user)
        measured = []
        for part in parts:
            losses = scm_losses(model(masks[part]), mpp[part], user[part], counts)
            (losses[0] + settings["label_weight"] * losses[1]).backward()
            measured.append(torch.stack(losses).detach())
        return torch.stack(measured).sum(0)

    with resume.watching_sigterm(), Progress(steps, "steps", "train_scm", done=first) as progress:
        for step in range(first, steps):
            for group in optimizer.param_groups:
                group["lr"] = settings["lr"] * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps)))
            masks, mpp, user = (part.to(where) for part in data.batch(step, batch))
            sums += pieces.run(batch, partial(learn, masks, mpp, user))
            optimizer.step()
            done = step + 1
            if done % settings["log_every"] == 0 or done == steps:
                means = (sums / ((done - 1) % settings["log_every"] + 1)).tolist()
                rows.append(dict(zip(("step", "loss_mpp", "loss_labels", "agreement"), (done, *means), strict=True)))
                sums.zero_()
                if not all(map(math.isfinite, means)):
                    raise InputError("train_scm", f"a loss of {means[0]} at step {done}", "a finite loss", "lower `lr`")
            progress.update()
            if resume.due():
                parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
                resume.save({**parts, "step": done, "rows": rows, "sums": sums})
    with atomic_path(curves) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False, float_format="%.6g")
    scm.save(model, out)
    resume.remove()
