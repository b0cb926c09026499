"""Predict slices by overlapping tiles; a slice's result depends on nothing but the stack around it."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .augment import to_unit
from .crops import reflect_indices
from .device import Compute, Pieces
from .errors import InputError
from .label_values import UNLABELLED
from .slabs import even_chunks
from .volumes import OUTSIDE, Volume

TILES_PER_BATCH = 16


def tile_starts(extent: int, tile: int, overlap: float) -> list[int]:
    """First pixels of tiles that cover `extent`, evenly spaced, the first at 0, the last ending at the border.

    Neighbours share at least the fraction `overlap` of a tile. One tile, centred, where the extent is smaller.
    """
    slack = extent - tile
    if slack <= 0:
        return [slack // 2]
    count = 1 + int(np.ceil(slack / max(1.0, tile * (1.0 - overlap))))
    return [round(i * slack / (count - 1)) for i in range(count)]


def gaussian_weight(tile: int) -> np.ndarray:
    """Weight of a tile's pixels, float32 (tile, tile): a Gaussian of σ = tile / 8 along each axis, but at least 0.001.

    A tile's border sees half of its surroundings, so its middle counts more (nnU-Net, Isensee et al. 2021). The least
    is of each axis, not of the product: along the slice's own border one axis is at its least, and the other decides.
    """
    distance = (np.arange(tile) - (tile - 1) / 2) / (tile / 8)
    profile = np.maximum(np.exp(-0.5 * distance**2), 1e-3)
    return np.outer(profile, profile).astype(np.float32)


def predict_slices(
    model: nn.Module,
    volume: Volume,
    z0: int,
    z1: int,
    settings: dict[str, Any],
    compute: Compute,
    tile: int,
    n_slices: int,
    weights: str | Path | None = None,
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Labels and confidence of slices z0 … z1 − 1.

    Parameters
    ----------
    model : Module
        In evaluation mode, on the device of `compute`.
    volume : Volume
        uint16 grey levels, 0 outside.
    z0, z1 : int
    settings : dict
        Section `segment`: `overlap` of tiles.
    compute : Compute
    tile : int
        Edge of a tile in pixels, that of the training crops: statistics of group norm depend on what a tile holds.
    n_slices : int
        Slices that the network sees.
    weights : path, optional
        Where the network was read from. Without it, as for one that is being trained and is judged by its labels,
        pixels whose probabilities are no numbers are of class 0.

    Yields
    ------
    z, labels, confidence
        uint8 (y, x) each: class, 255 outside; probability of that class, 0 … 255 for 0 … 1, 0 outside.

    Raises
    ------
    InputError
        If `weights` are given and the network answers with something that is no number.

    Notes
    -----
    Tiles and batches follow from the slice's shape alone, so that any cut of the volume along z gives the same bits;
    on a CPU so does any number of threads.
    """
    _, height, width = volume.shape
    starts = [
        (y, x)
        for y in tile_starts(height, tile, settings["overlap"])
        for x in tile_starts(width, tile, settings["overlap"])
    ]
    top, left = min(0, starts[0][0]), min(0, starts[0][1])
    rows = reflect_indices(top, max(height, top + tile), height)
    columns = reflect_indices(left, max(width, left + tile), width)
    padded = (len(rows), len(columns)) != (height, width)
    weight = torch.from_numpy(gaussian_weight(tile)).to(compute.device)
    total_weight = torch.zeros(len(rows), len(columns), device=compute.device)
    for y, x in starts:
        total_weight[y - top : y - top + tile, x - left : x - left + tile] += weight
    pieces = Pieces(TILES_PER_BATCH)
    batches = [starts[i : i + TILES_PER_BATCH] for i in range(0, len(starts), TILES_PER_BATCH)]

    def tasks() -> Iterator[Task]:
        half, depth = n_slices // 2, volume.shape[0]
        planes = _planes(volume, max(0, z0 - half), min(depth, z1 + half))
        seen: deque[tuple[torch.Tensor, torch.Tensor]] = deque(maxlen=n_slices)
        for i in range(z0 - half, z1 + half):
            if 0 < i < depth or not seen:
                plane = next(planes)
                outside = torch.from_numpy(plane == OUTSIDE).to(compute.device)
                if padded:
                    plane = plane[rows[:, None], columns]
                grey = torch.from_numpy(plane.astype(np.int32)).to(compute.device)
                seen.append((to_unit(grey), outside))
            else:
                seen.append(seen[-1])  # beyond the ends the end slice is repeated
            if (z := i - half) >= z0:
                image = torch.stack([grey for grey, _ in seen], -1)
                yield from (Task(z, image, seen[half][1], batch) for batch in batches)

    @torch.inference_mode()
    def forward(task: Task) -> tuple[Task, torch.Tensor]:
        tiles = [task.image[y - top : y - top + tile, x - left : x - left + tile] for y, x in task.starts]

        def run(parts: list[slice]) -> torch.Tensor:
            found = []
            for part in parts:
                with compute.precision():
                    logits = model(torch.stack(tiles[part]).permute(0, 3, 1, 2))
                found.append(logits.float().softmax(1).mul_(weight))
            return torch.cat(found)

        return task, pieces.run(len(tiles), run)

    blended = None
    for task, probabilities in _ahead(forward, tasks(), compute):
        if blended is None:
            blended = torch.zeros(probabilities.shape[1], len(rows), len(columns), device=compute.device)
        for (y, x), probability in zip(task.starts, probabilities, strict=True):
            blended[:, y - top : y - top + tile, x - left : x - left + tile] += probability
        if task.starts is not batches[-1]:
            continue
        blended /= total_weight
        labels, confidence = best_class(blended[:, -top : height - top, -left : width - left])
        blended = None
        # One NaN makes the sum NaN; asked once per slice, since each answer waits for the device.
        if weights is not None and not math.isfinite(confidence.sum()):
            raise InputError(
                weights,
                f"class probabilities of slice {task.z} that are no numbers ({compute.name})",
                "a network that answers with finite numbers",
                "train again, or take other weights; if they are sound, `device: cpu` computes in a wider type",
            )
        confidence = (confidence * 255.0).round_().clamp_(0, 255).to(torch.uint8)
        outside = task.outside.to(torch.uint8).mul_(UNLABELLED)  # all bits
        labels, confidence = labels.bitwise_or_(outside), confidence.bitwise_and_(outside.bitwise_not_())
        yield task.z, labels.cpu().numpy(), confidence.cpu().numpy()


def best_class(probabilities: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Most likely class, uint8 (y, x), and its probability; of equals the first, and 0 where there are no numbers.

    A quarter of the time of `max(0)` on a CPU, which walks across the classes of each pixel.
    """
    best = probabilities[0]
    labels = torch.zeros(best.shape, dtype=torch.uint8, device=best.device)
    for c in range(1, len(probabilities)):
        labels = torch.maximum(labels, (probabilities[c] > best).to(torch.uint8).mul_(c))
        best = torch.maximum(best, probabilities[c])
    return labels, best


def _planes(volume: Volume, z0: int, z1: int) -> Iterator[np.ndarray]:
    """Slices z0 … z1, read a layer of a slab file's chunks at a time, so that none is decompressed twice."""
    depth = even_chunks(volume.shape)[0]
    while z0 < z1:
        end = min(z1, (z0 // depth + 1) * depth)
        yield from volume.read(z0, end)
        z0 = end


@dataclass(frozen=True)
class Task:
    """Tiles of slice `z` that pass through the network at once: of `image` (y, x, stack), at `starts`."""

    z: int
    image: torch.Tensor
    outside: torch.Tensor
    starts: list[tuple[int, int]]


def _ahead(
    forward: Callable[[Task], tuple[Task, torch.Tensor]], tasks: Iterator[Task], compute: Compute
) -> Iterator[tuple[Task, torch.Tensor]]:
    """What `forward` makes of each task, in order; on a CPU a task on each core, rather than all cores on one.

    An operation of a tile is too small for many cores: two are 1.15 times as fast so (`benchmarks/prediction.py`). And
    since each operation has one thread, the bits do not depend on how many cores there are.
    """
    if compute.device.type != "cpu":
        yield from map(forward, tasks)
        return
    workers = torch.get_num_threads()
    # In the initializer the number is that of the new thread alone.
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
    waiting: deque[Future[tuple[Task, torch.Tensor]]] = deque()
    try:
        for task in tasks:
            waiting.append(pool.submit(forward, task))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
