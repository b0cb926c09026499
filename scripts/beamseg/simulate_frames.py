"""A movie of a growing nanowire with truth for every frame: PNG frames, masks and angles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pandas as pd

from .contact_angle import DROPLET
from .provenance import atomic_path
from .specimens.nanowire import Nanowire, draw_frame, draw_labels

GREY = (0, 127, 255)
"""Of background, wire and droplet in the masks."""
DEFECTS = ("no_wire", "no_droplet", "two_droplets", "saturated", "other_size")


def wire_at(index: int, settings: dict[str, Any], seed: int) -> tuple[Nanowire, tuple[int, int]]:
    """The nanowire of a frame, and the frame's size: the angle swings once, the wire grows and trembles."""
    n, height = settings["frames"], settings["size"]
    shape = (height, height * 5 // 4)
    rng = np.random.default_rng([seed, 0])
    axis, phase = rng.uniform(-20, 20), rng.uniform(0, 2 * np.pi)
    share = index / max(1, n - 1)
    angle = 108 + 16 * np.sin(2 * np.pi * share + phase)
    shake = np.random.default_rng([seed, 1, index]).normal(0, 0.004 * height, 2)
    middle = (0.5 * height + shake[0], (0.42 + 0.12 * share) * shape[1] + shake[1])
    radius = 0.17 * height / np.sin(np.radians(angle))
    return Nanowire(float(angle), float(radius), middle, float(axis)), shape


def make_frame(index: int, settings: dict[str, Any], seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Frame uint8 (y, x), its mask as classes, and its angle in degrees (NaN where there is none)."""
    wire, shape = wire_at(index, settings, seed)
    rng = np.random.default_rng([seed, 2, index])
    labels = draw_labels(wire, shape)
    angle = wire.angle_deg
    kind = None
    if settings["defects"] and index >= settings["frames"] - len(DEFECTS):
        kind = DEFECTS[index - settings["frames"]]
    if kind == "no_wire":
        labels[:] = 0
    elif kind == "no_droplet":
        labels[labels == DROPLET] = 0
    elif kind == "two_droplets":
        y, x = np.ogrid[: shape[0], : shape[1]]
        labels[np.hypot(y - 0.82 * shape[0], x - 0.82 * shape[1]) < 0.12 * shape[0]] = DROPLET
    frame = draw_frame(labels, settings["noise"], rng)
    if kind == "saturated":
        frame = np.where(frame > 90, 255, frame).astype(np.uint8)
    elif kind == "other_size":
        keep = slice(0, shape[0] - shape[0] // 8)
        frame, labels = frame[keep], labels[keep]
    return frame, labels, angle if kind in (None, "other_size") else float("nan")


def simulate_frames(out: str | Path, settings: dict[str, Any], seed: int) -> None:
    """Write `frames/`, `labels/` (masks of the frames that are labelled), `truth/` (of the others), `angles.csv`.

    Parameters
    ----------
    out : path
        The folder.
    settings : dict
        Section `frames.phantom`: frames, size, labelled, noise, defects.
    seed : int
    """
    out = Path(out)
    n = settings["frames"]
    whole = n - len(DEFECTS) if settings["defects"] else n
    labelled = set(np.linspace(0, whole - 1, min(settings["labelled"], whole)).round().astype(int).tolist())
    rows = []
    for index in range(n):
        frame, labels, angle = make_frame(index, settings, seed)
        name = f"{index:06d}"
        mask = np.array(GREY, np.uint8)[labels]
        folder = "labels" if index in labelled else "truth"
        for kind, image in (("frames", frame), (folder, mask)):
            with atomic_path(out / kind / f"{name}.png") as temporary:
                temporary.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(image)))
        rows.append({"frame": name, "angle_deg": angle})
    with atomic_path(out / "angles.csv") as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False, float_format="%.8g")
