"""What a scan takes by its geometry: memory of a job, scratch, results and files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .export import FORMATS
from .slabs import default_depth, even_chunks, slab_borders, stored_bytes

LIBRARIES_MB = {"numpy": 300.0, "torch": 900.0}
JOB_MB = 4000
"""What a job asks for that holds no volume: the libraries, those of a GPU too, and a few slices."""
VOXEL_BYTES = 80
"""The most that a stage computes with at once for a voxel of a scan that it may hold whole (thickness: 72)."""
FIGURES_AND_TABLES = 45  # files of a run besides slabs, manifests and exported slices
READERS_THREADS = 4  # of the rules histogram and normalize
SEGMENT_THREADS = 8  # of the rule, each of which has a batch of tiles in the network
TILES_PER_BATCH = 16
SAVED_BYTES = 1320
"""Per pixel of a crop: what a U-Net of the usual width keeps for its backward pass on a CPU in float32. In bfloat16 it
is half of that; so is what a forward pass alone holds at most."""
PART_GVOXELS = 20.0
"""Gvoxels of a scan up to which a stage is one job: four scans of 1,200 × 2,048²."""
LABELS = {"labels": "uint8", "confidence": "uint8"}


def parts_for(shape: Sequence[int], gvoxels: float = PART_GVOXELS) -> int:
    """Parts of a scan, none of which has more voxels than that."""
    return math.ceil(math.prod(shape) / (gvoxels * 1e9))


def asked_mb(voxels: float, mem_budget_mb: float) -> int:
    """MiB that a job over a volume asks for: twice the budget and the libraries; of a small scan what that takes."""
    return math.ceil(min(2 * mem_budget_mb + 2000, JOB_MB + VOXEL_BYTES * voxels / 2**20))


def training_mb(settings: dict[str, Any], voxels: float = math.inf, processes: int = 1) -> float:
    """Peak memory in MiB of a training: in each process the volumes as far as they fit the budget, and the batch."""
    training = settings["train"]
    crops = training["batch"] * (2 if training["objective"] == "contrastive" else 1)
    if settings["stage3"] != "none":
        crops = max(crops, settings["self_correct"]["batch"])
    held = LIBRARIES_MB["torch"] + min(3 * voxels / 2**20, settings["mem_budget_mb"])
    return processes * held + crops * training["crop"] ** 2 * SAVED_BYTES / 2**20


def peak_mb(shape: Sequence[int], itemsize: int, settings: dict[str, Any]) -> dict[str, float]:
    """Peak memory in MiB of the stages whose memory goes by the size of a slice, or by the budget for volumes.

    Threads times a read of 8 slices with its intermediates (histogram; normalize takes no more), the volumes of
    training as far as they fit `mem_budget_mb` and a batch of crops in the network, in two views where they are
    contrasted, a slice of class probabilities, tiles in the network, a layer of chunks read and one written (segment).

    Parameters
    ----------
    shape : (z, y, x)
    itemsize : int
        Bytes of a voxel as stored.
    settings : dict
        The run's configuration: mem_budget_mb, pseudo_label.n_clusters, model.n_slices, stage3, and crop, batch and
        objective of the trainings.
    """
    voxels, plane = math.prod(shape), math.prod(shape[1:])
    reading = READERS_THREADS * 8 * plane * (itemsize + 2) + READERS_THREADS * plane * 24
    tiles = SEGMENT_THREADS * TILES_PER_BATCH * settings["train"]["crop"] ** 2 * SAVED_BYTES / 2 / 2**20
    layer = even_chunks(shape)[0] * plane
    k, n_slices = settings["pseudo_label"]["n_clusters"], settings["model"]["n_slices"]
    return {
        "histogram": LIBRARIES_MB["numpy"] + reading / 2**20,
        "train": training_mb(settings, voxels),
        "segment": LIBRARIES_MB["torch"] + tiles + (plane * (8 * k + 12 * n_slices + 12) + 4 * layer) / 2**20,
    }


def footprint(
    shape: Sequence[int], itemsize: int, is_cached: bool, settings: dict[str, Any], is_assigned: bool = False
) -> dict[str, float]:
    """Bytes of scratch (the cache, and what stages leave until export) and of results, files, and peak memory in MiB.

    Memory is the most that one job holds: see `peak_mb`.
    """
    voxels = math.prod(shape)
    networks = 1 if settings["stage3"] == "none" else 2
    masks = len(settings["refine"]) + is_assigned
    stages = networks + masks
    cache = stored_bytes({"grey": settings["normalize"]["dtype"]}, voxels) if is_cached else 0
    labels = networks * stored_bytes(LABELS, voxels)
    labels += masks * stored_bytes({"labels": "uint8"}, voxels)
    depth = settings["slab_depth"] or default_depth(tuple(shape))
    slabs = len(slab_borders(shape[0], depth))
    formats = settings["export"]["formats"]
    files = shape[0] * ("tiff" in formats) + slabs * (stages + is_cached) + FIGURES_AND_TABLES
    exported = voxels * sum(FORMATS[name][2] for name in formats)
    memory = max(peak_mb(shape, itemsize, settings).values())
    return {"scratch": cache, "results": labels + exported, "files": files, "memory_mb": memory}
