"""Assign: pseudo-labels voxel by voxel, where one table of grey levels does not give them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .clusters import local_table
from .features import DEPTH, FeatureVolume
from .slabs import SlabWriter, run_slabs
from .volumes import MAX_GREY, TableVolume, Volume

DTYPES = {"labels": np.uint8}
STEP = 8  # slices written at once, a chunk


def assign(
    manifest: str | Path,
    volume: Volume,
    classes: dict[str, Any],
    *,
    settings: dict[str, Any],
    seed: int,
    slab_depth: int,
    part: str,
    identity: str,
    threads: int = 1,
    mem_budget_mb: float = 512,
) -> dict[str, Any]:
    """Write the pseudo-labels of one part of a scan as slabs, array `labels` (uint8), and the manifest.

    With labeler `features` each voxel takes the cluster of its features. With scope `slab` or `slice` the labeler is
    fitted to the grey levels of each slab or slice, its clusters numbered as the group's.

    Parameters
    ----------
    manifest : path
        `…/assign/<part>.json`.
    volume : Volume
        uint16 grey levels, 0 outside.
    classes : dict
        Content of the group's `classes.json`.
    settings : dict
        Section `pseudo_label`.
    seed : int
    slab_depth : int
    part : str
        `k-of-n`.
    identity : str
        Digest of settings and inputs; finished slabs that bear it are kept.
    threads, mem_budget_mb
        As for `FeatureVolume`.

    Returns
    -------
    dict
        The manifest.
    """
    by_features = settings["labeler"] == "features"
    labelled = FeatureVolume(volume, classes["features"], threads, mem_budget_mb) if by_features else None
    centroids = np.array([cluster["centroid"] for cluster in classes["clusters"]], dtype=np.float64)
    depth = DEPTH if by_features else STEP

    def fill(z0: int, z1: int, writer: SlabWriter) -> None:
        step = 1 if settings["scope"] == "slice" else z1 - z0
        for start in range(z0, z1, step):
            source = labelled or TableVolume(volume, fit(start, start + step))
            for a, b in ranges(start, start + step, depth):
                writer.put("labels", a, source.read(a, b))

    def fit(z0: int, z1: int) -> np.ndarray:
        counts = np.zeros(MAX_GREY + 1, np.int64)
        for a, b in ranges(z0, z1, STEP):
            counts += np.bincount(volume.read(a, b).ravel(), minlength=MAX_GREY + 1)
        return local_table(counts, centroids, settings, seed)

    return run_slabs(
        manifest,
        stage="assign",
        identity=identity,
        shape=volume.shape,
        depth=slab_depth,
        dtypes=DTYPES,
        fill=fill,
        part=part,
    )


def ranges(z0: int, z1: int, step: int) -> Iterator[tuple[int, int]]:
    """[z0, z1) in pieces of `step` slices."""
    for start in range(z0, z1, step):
        yield start, min(start + step, z1)
