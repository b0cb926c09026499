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
        If the weights cannot be read or the device is not there.
    """
    compute = choose(device)
    model, meta = load_weights(weights, compute.device)

    def fill(z0: int, z1: int, writer: SlabWriter) -> None:
        slices = predict_slices(model, volume, z0, z1, settings, compute, meta["crop"], meta["in_channels"])
        for z, labels, confidence in slices:
            writer.put("labels", z, labels[None])
            writer.put("confidence", z, confidence[None])

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
        notes={"device": compute.name},
    )
