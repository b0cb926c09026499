"""The geometry of every frame of a movie as a table, from its masks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .contact_angle import CLASSES, Cap, in_nm, measure, smoothed
from .frames import read_mask, usual_size
from .progress import Progress
from .provenance import atomic_path, read_json


def measure_frames(scan: str | Path, masks: str | Path, out: str | Path, settings: dict[str, Any], seed: int) -> None:
    """Measure each mask; write a row per frame, in order.

    Parameters
    ----------
    scan : path
        What `frames` left.
    masks : path
        Manifest of `segment_frames`.
    out : path
        CSV: frame, index, time_s, the fields of `contact_angle.Cap` with lengths in pixels and nm, the angle smoothed
        over `smooth` frames, and the reason where a frame has no angle or no lengths.
    settings : dict
        Section `frames`.
    seed : int
    """
    about = read_json(scan)
    usual = usual_size(about["frames"])
    rows = []
    named = zip(about["frames"], masks_of(masks, [frame["name"] for frame in about["frames"]]), strict=True)
    with Progress(len(about["frames"]), "frames", "measure_frames") as progress:
        for index, (frame, labels) in enumerate(named):
            cap, pixel = measured(frame, labels, usual, about["pixel_nm"], settings["saturated"], seed)
            time = None if settings["frame_s"] is None else index * settings["frame_s"]
            rows.append({"frame": frame["name"], "index": index, "time_s": time} | in_nm(cap, pixel))
            progress.update()
    table = pd.DataFrame(rows)
    angle = table["angle_deg"].to_numpy(float)
    width = (table["angle_high_deg"].astype(float) - table["angle_low_deg"].astype(float)).to_numpy()
    table.insert(6, "angle_smoothed_deg", smoothed(angle, width, settings["smooth"]))
    with atomic_path(out) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g")


def masks_of(manifest: str | Path, names: Iterable[str]) -> Iterator[np.ndarray]:
    """The masks of the named frames as classes, uint8 (y, x)."""
    content = read_json(manifest)
    grey_to_class = {int(grey): c for grey, c in content["grey"].items()}
    for name in names:
        yield read_mask(Path(manifest).parent / content["frames"][name]["file"], grey_to_class, len(CLASSES))


def measured(
    frame: dict[str, Any],
    labels: np.ndarray,
    usual: tuple[int, int],
    pixel_nm: float | None,
    saturated: float,
    seed: int,
) -> tuple[Cap, float | None]:
    """What a frame gives, and the pixel size that holds for it.

    A saturated frame is not measured: its edges are where the grey values ran out, or there were none. One of another
    size than most has its angle, and lengths in pixels alone, since its pixels may be of another size too.
    """
    if frame["saturated"] >= saturated:
        return Cap(reason=f"saturated: {100 * frame['saturated']:.0f} % of its pixels"), pixel_nm
    cap = measure(labels, seed)
    if (frame["height"], frame["width"]) != usual:
        size = f"{frame['height']} × {frame['width']} pixels, most are {usual[0]} × {usual[1]}"
        return replace(cap, reason="; ".join(filter(None, [f"other size: {size}; no lengths in nm", cap.reason]))), None
    return cap, pixel_nm
