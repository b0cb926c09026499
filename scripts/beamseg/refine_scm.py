"""Refine labels by the spatial continuity model (SCM), slice by slice in tiles of one shape."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import changes, scm
from .device import Halved, choose
from .errors import InputError
from .label_values import UNLABELLED
from .slabs import SlabWriter, run_slabs
from .volumes import Volume, bear_labels, read_with_halo

MAX_TILE = 256  # pixels of a tile's edge: bounds the memory of the convolutions
MIN_TILE = 16  # the least that a device without room for more is tried with; the margin around it stays
BLOCK = 8  # slices read at a time


def tile_starts(extent: int, most: int = MAX_TILE) -> tuple[list[int], int]:
    """Cut `extent` pixels into tiles of one size of at most `most`; starts, and the size."""
    size = math.ceil(extent / math.ceil(extent / most))
    return list(range(0, extent, size)), size


def predict_block(
    model: scm.SCM, block: np.ndarray, device: torch.device, around: np.ndarray | None = None, most: int = MAX_TILE
) -> np.ndarray:
    """Refined labels of the slices of a block.

    Parameters
    ----------
    model : SCM
    block : ndarray, uint8, (z + n_slices - 1, y, x)
        Raw labels with a halo of n_slices // 2 slices, 255 outside the field of view and beyond the volume.
    device : torch.device
    around : ndarray, optional
        The same block with the user's labels: what the network sees around the slice that it refines.
    most : int
        Pixels of a tile's edge. The margin around a tile is as wide as the network reaches, so the labels do not depend
        on it up to floating point.

    Returns
    -------
    ndarray, uint8, (z, y, x)
        255 where the raw label is 255. One slice and one tile shape at a time, whatever the depth of the block: the
        same numbers meet the same kernels, so slab by slab equals whole, bit by bit.
    """
    half, reach = model.n_slices // 2, model.reach
    rows, columns = block.shape[1:]
    (y_starts, height), (x_starts, width) = tile_starts(rows, most), tile_starts(columns, most)
    far = (len(y_starts) * height - rows + reach, len(x_starts) * width - columns + reach)
    margins = ((0, 0), (reach, far[0]), (reach, far[1]))
    padded = np.pad(block, margins, constant_values=UNLABELLED)
    seen = padded if around is None else np.pad(around, margins, constant_values=UNLABELLED)
    result = np.full((len(block) - 2 * half, rows, columns), UNLABELLED, np.uint8)
    for z in range(len(result)):
        for y in y_starts:
            for x in x_starts:
                if (result_view := block[z + half, y : y + height, x : x + width]).min() == UNLABELLED:
                    continue
                window = (slice(y, y + height + 2 * reach), slice(x, x + width + 2 * reach))
                tile = seen[z : z + model.n_slices, *window].copy()
                tile[half] = padded[z + half, *window]
                masks = torch.from_numpy(tile)[None].to(device)
                classes = model(masks)[0].argmax(0).to(torch.uint8).cpu().numpy()
                result[z, y : y + height, x : x + width] = classes[: result_view.shape[0], : result_view.shape[1]]
    result[block[half : half + len(result)] == UNLABELLED] = UNLABELLED
    return result


def refine_scm(
    manifest: str | Path,
    raw: Volume,
    weights: str | Path,
    settings: dict[str, Any],
    slab_depth: int,
    part: str,
    identity: str,
    device: str,
    mpp: Volume,
    user: Volume | None = None,
) -> dict[str, Any]:
    """Refine a label volume by a trained SCM; slabs (array `labels`, uint8) and manifest are written.

    Parameters
    ----------
    manifest : path
        Output; slab files go beside it.
    raw : Volume
        The network's labels, before MPP; 255 outside the field of view, which stays so.
    weights : path
        Of `train_scm`.
    settings : dict
        Section `refine_scm` of the configuration.
    slab_depth : int
        Slices; the result does not depend on it, nor on the parts.
    part, identity : str
        See `slabs.run_slabs`.
    device : str
        `auto`, `cpu` or `cuda`.
    mpp : Volume
        MPP's labels, against which the changes are counted.
    user : Volume, optional
        Labels of the user, 255 where there is none. Labelled pixels bear their label, and with `see_labels` the network
        sees them in the slices around the one that it refines, as MPP did. In the poster it sees raw masks alone.

    Returns
    -------
    dict
        The manifest. `changes` sums the from (MPP) → to (SCM) matrices; classes in its `erased` lost more than half
        of MPP's voxels.

    Raises
    ------
    InputError
        If the volumes differ in shape, `weights` is not an SCM's, or the device has no room for the smallest tile.
    """
    if tuple(raw.shape) != tuple(mpp.shape):
        raise InputError(manifest, f"MPP's labels of shape {mpp.shape}", f"{raw.shape}", "rerun refine_mpp")
    where = choose(device).device
    model = scm.load(weights, where)
    half = model.n_slices // 2
    remedy = "end what else runs on the GPU, or set `device: cpu`"
    tile = Halved(MAX_TILE, MIN_TILE, "tiles of {} px", "a tile of {} px", remedy)

    def predicted(block: np.ndarray, around: np.ndarray | None = None) -> np.ndarray:
        return tile.run(max(block.shape[1:]), lambda most: predict_block(model, block, where, around, most))

    def fill(z0: int, z1: int, writer: SlabWriter) -> None:
        matrix = np.zeros((model.n_classes, model.n_classes), np.int64)
        with torch.inference_mode():
            for start in range(z0, z1, BLOCK):
                stop = min(z1, start + BLOCK)
                block = read_with_halo(raw, start, stop, half)
                if user is None:
                    labels = predicted(block)
                else:
                    given = read_with_halo(user, start, stop, half)
                    around = bear_labels(block, given) if settings["see_labels"] else None
                    labels = predicted(block, around)
                    labels = bear_labels(labels, given[half : half + stop - start])
                matrix += changes.count_changes(mpp.read(start, stop), labels, model.n_classes)
                writer.put("labels", start, labels)
        writer.notes["changes"] = matrix.tolist()

    result = run_slabs(
        manifest,
        stage="refine_scm",
        identity=identity,
        shape=raw.shape,
        depth=slab_depth,
        dtypes={"labels": np.uint8},
        fill=fill,
        part=part,
        notes={"n_classes": model.n_classes},
    )
    return changes.add_to_manifest(manifest, result, settings["warn_fraction"])
