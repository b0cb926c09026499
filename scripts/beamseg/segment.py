"""Label a whole volume with a trained network, slab by slab."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from .device import choose
from .models import load_weights
from .predict import predict_slices
from .slabs import SlabWriter, run_slabs
from .volumes import Volume

STEPS = 24
"""Steps of √(1 − p) in which the confidence p is stored: of p, steps of 0.005 near 1 and of 0.06 at 0.5.

Exact, it would be most of what a run leaves on disk; so it takes half.
"""


def rounded_confidence() -> np.ndarray:
    """What is stored for each confidence 0 … 255, uint8 (256,)."""
    doubt = np.round(STEPS * np.sqrt(1 - np.arange(256) / 255)) / STEPS
    return np.round(255 * (1 - doubt**2)).astype(np.uint8)


def segment(
    manifest: str | Path,
    volume: Volume,
    weights: str | Path,
    *,
    settings: dict[str, Any],
    slab_depth: int,
    part: str,
    identity: str,
    stage: str,
    device: str = "auto",
) -> dict[str, Any]:
    """Write the slabs of one part, arrays `labels` and `confidence` (uint8), and its manifest, which is returned.

    Labels are those of `predict_slices`, the confidence is rounded as in `rounded_confidence`.

    Parameters
    ----------
    manifest : path
        `<folder>/<part>.json`.
    volume : Volume
        uint16 grey levels, 0 outside.
    weights : path
        Of stage 2 or stage 3.
    settings : dict
        Section `segment` of the configuration.
    slab_depth : int
    part : str
        `k-of-n`.
    identity : str
        Digest of settings and inputs; finished slabs that bear it are kept.
    stage : str
        Name of the stage in the manifest: stage2 or stage3.
    device : str

    Raises
    ------
    InputError
        If the weights cannot be read or give no numbers, or the device is not there.
    """
    compute = choose(device)
    model, meta = load_weights(weights, compute.device)
    stored = rounded_confidence()

    def fill(z0: int, z1: int, writer: SlabWriter) -> None:
        size = (meta["crop"], meta["in_channels"])
        slices = predict_slices(model, volume, z0, z1, settings, compute, *size, weights)
        for z, labels, confidence in slices:
            writer.put("labels", z, labels[None])
            writer.put("confidence", z, stored[confidence[None]])

    dtypes = {"labels": np.uint8, "confidence": np.uint8}
    return run_slabs(
        manifest,
        stage=stage,
        identity=identity,
        shape=volume.shape,
        depth=slab_depth,
        dtypes=dtypes,
        fill=fill,
        part=part,
        notes={"device": compute.described},
    )
