"""Forecast of a run before it starts: seconds per stage, from a few short timings."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch

from . import scm
from .continuity import continue_along_z
from .corrections import corrected, estimate, fov_of
from .device import Compute, choose
from .footprint import READERS_THREADS
from .histogram import measure
from .models import build_model, model_options
from .normalize import levels
from .predict import predict_slices, tile_starts
from .readers import Source
from .refine_scm import predict_block
from .slabs import slab_arrays
from .training import end_step, n_steps
from .volumes import GREY_TYPES, ArrayVolume

TIMED_SLICES = 8


def uncontended(call: Callable[[], Any], repeat: int = 3) -> float:
    """Seconds that a call takes on an idle machine: the least of several, waits for a processor taken off.

    Linux tells how long each thread was ready to run and did not (`schedstat`); elsewhere the waits stay in.
    """
    best = math.inf
    for _ in range(repeat):
        before, cpu, started = _waits(), time.process_time(), time.monotonic()
        call()
        seconds, after = time.monotonic() - started, _waits()
        waited = max((after[task] - before.get(task, 0.0) for task in after), default=0.0)
        spent = (time.process_time() - cpu) / max(1, len(after), torch.get_num_threads())
        best = min(best, max(seconds - waited, spent))
    return best


def _waits() -> dict[str, float]:
    """Seconds that each thread of this process has waited for a processor."""
    found = {}
    for path in Path("/proc/self/task").glob("*/schedstat"):
        try:
            found[path.parent.name] = int(path.read_text().split()[1]) / 1e9
        except (OSError, IndexError):
            continue
    return found


def scan_rates(source: Source, fov: dict[str, Any], settings: dict[str, Any] | None, dtype: str) -> dict[str, float]:
    """Seconds per voxel of histogram and normalize on one thread, from 8 slices in the middle of a scan."""
    first = max(0, (source.shape[0] - TIMED_SLICES) // 2)
    depth = min(TIMED_SLICES, source.shape[0])
    shape = (depth, *source.shape[1:])
    window = source.read_window
    part = replace(source, shape=shape, read_window=lambda a, b, *rest: window(a + first, b + first, *rest))
    scan = {"fov": fov, "correction": estimate(part, fov, settings) if settings else None}
    bits = 8 if dtype == "uint8" else 16
    entry = {"range": [0.0, 1.0], "bits": bits, "fov": fov_of(scan)}
    values = corrected(part, scan)

    def write() -> None:
        grey = levels(values, entry, 0, depth)
        with h5py.File("forecast", "w", driver="core", backing_store=False) as file:
            file.create_dataset("grey", data=grey, **slab_arrays({"grey": GREY_TYPES[bits]}, shape)["grey"])

    lo, hi = _range(values, depth)
    entry["range"] = [lo, hi]
    voxels = math.prod(shape)
    return {
        "histogram": uncontended(lambda: measure(part, fov, 1, "", scan["correction"]), 2) / voxels,
        "normalize": uncontended(write, 2) / voxels,
    }


def _range(values: Source, depth: int) -> tuple[float, float]:
    plane = values.read(depth // 2, depth // 2 + 1)
    finite = plane[np.isfinite(plane)]
    lo, hi = (float(v) for v in np.percentile(finite, (0.1, 99.9))) if finite.size else (0.0, 1.0)
    return (lo, hi) if lo < hi else (lo, lo + 1)


def network_rates(settings: dict[str, Any]) -> dict[str, float]:
    """Seconds of a training step, of a tile of prediction, and per voxel of MPP and SCM, on this machine.

    Prediction is timed as `segment` does it: a slice of 16 tiles with their overlap, weights and blending.

    Parameters
    ----------
    settings : dict
        The run's configuration: device, train, model, pseudo_label.n_clusters, segment, refine_mpp, refine_scm.
    """
    compute = choose(settings["device"])
    batch, crop, n_slices = settings["train"]["batch"], settings["train"]["crop"], settings["model"]["n_slices"]
    k = settings["pseudo_label"]["n_clusters"]
    contrastive = settings["train"].get("objective") == "contrastive"
    embedding = settings["train"]["contrastive"]["embedding"] if contrastive else 0
    options = model_options(settings["model"], embedding)
    model = build_model(settings["model"]["name"], n_slices, k, **options).to(compute.device)
    images = torch.rand(batch, n_slices, crop, crop, device=compute.device)
    images = images.contiguous(memory_format=torch.channels_last)

    def step() -> None:
        with compute.precision():
            loss = model(images).float().square().mean()
        loss.backward()
        float(loss.detach())  # waits for the device

    overlap = settings["segment"]["overlap"]
    edge = crop + math.floor(3 * crop * (1 - overlap))
    tiles = len(tile_starts(edge, crop, overlap)) ** 2
    grey = np.random.default_rng(0).integers(1, 65535, (n_slices, edge, edge)).astype(np.uint16)
    model.eval()
    predict = uncontended(lambda: list(_predicted(model, grey, settings, compute, crop)))
    model.train()
    labels = np.random.default_rng(0).integers(0, k, (16, 128, 128)).astype(np.uint8)
    support, sheet = settings["refine_mpp"]["support"], settings["refine_mpp"]["sheet_px"]
    masks = settings["refine_scm"]["adjacent_slices"]
    network = scm.SCM(masks, k, settings["refine_scm"]["width"]).to(compute.device).eval()
    with torch.inference_mode():
        refine = uncontended(lambda: predict_block(network, labels[:masks], compute.device))
    step()
    return {
        "step": uncontended(step),
        "tile": predict / tiles,
        "mpp": uncontended(lambda: continue_along_z(labels, k, support, sheet)) / labels[support:-support].size,
        "scm": refine / labels[0].size,
    }


def _predicted(model: Any, grey: np.ndarray, settings: dict[str, Any], compute: Compute, crop: int) -> Any:
    middle = len(grey) // 2
    return predict_slices(model, ArrayVolume(grey), middle, middle + 1, settings["segment"], compute, crop, len(grey))


def stage_seconds(
    shape: Sequence[int], rates: dict[str, float], settings: dict[str, Any], cores: int
) -> dict[str, float]:
    """Seconds of the stages of one scan, from the rates of `scan_rates` and `network_rates`."""
    voxels = math.prod(shape)
    crop, overlap = settings["train"]["crop"], settings["segment"]["overlap"]
    tiles = shape[0] * math.prod(len(tile_starts(extent, crop, overlap)) for extent in shape[1:])
    threads = min(READERS_THREADS, cores)
    networks = 1 if settings["stage3"] == "none" else 2
    found = {
        "histogram": voxels * rates["histogram"] / threads,
        "normalize": voxels * rates["normalize"] / threads,
        "segment": networks * tiles * rates["tile"],
    }
    return found | {f"refine_{stage}": voxels * rates[stage] for stage in settings["refine"]}


def training_seconds(slices: int, rates: dict[str, float], settings: dict[str, Any]) -> dict[str, tuple[int, float]]:
    """(steps, seconds) of stages 2 and 3 of a group whose reference scans have so many slices.

    A step of stage 3 also asks the teacher and, where it is anchored, stage 2; each costs about 0.3 of a step.
    """
    steps = {"train": end_step(settings["train"], slices), "self_correct": n_steps(settings["self_correct"], slices)}
    found = {"train": (steps["train"], steps["train"] * rates["step"])}
    if settings["train"].get("objective") == "contrastive":  # two views; then the classifier, on a pass forward
        after = settings["train"]["contrastive"]["classifier_steps"]
        found["train"] = (steps["train"] + after, (2 * steps["train"] + 0.3 * after) * rates["step"])
    if settings["stage3"] != "none":
        asked = 1 + bool(settings["self_correct"]["anchor"])
        found["self_correct"] = (steps["self_correct"], steps["self_correct"] * rates["step"] * (1 + 0.3 * asked))
    return found


def rates_key(settings: dict[str, Any]) -> str:
    """Runs with the same key have the same `network_rates`."""
    keys = ("device", "train", "model", "pseudo_label", "segment", "refine_mpp", "refine_scm")
    return repr([settings[key] for key in keys])


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
