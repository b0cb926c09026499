"""A mask per frame: PNG files named as the frames, with the grey values of the user's own masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from .contact_angle import BACKGROUND
from .device import choose, room_for
from .frame_input import prepared
from .frames import Frames, burnt_in
from .models import load_weights
from .progress import Progress
from .provenance import atomic_path, file_digest, write_json

FOLDER = "masks"


@room_for("a frame", "lower `frames.size` and train again, end what else runs on the GPU, or set `device: cpu`")
def segment_frames(
    frames: Frames,
    weights: str | Path,
    out: str | Path,
    *,
    grey_to_class: dict[int, int],
    remove_bars: bool = True,
    identity: str = "",
    device: str = "auto",
) -> None:
    """Segment every frame, one at a time; write the masks into `masks` beside the manifest `out`.

    Masks that an interrupted job of the same identity left are kept.

    Parameters
    ----------
    frames : Frames
    weights : path
        Of `train_frames`.
    out : path
        JSON: identity, and file and digest of each frame's mask.
    grey_to_class : dict
        Grey value -> class of the user's masks; those here have the same grey values.
    remove_bars : bool
        Whether objects on burnt-in scale bars become background.
    """
    folder = Path(out).parent / FOLDER
    mark = folder / ".identity"
    if not mark.exists() or mark.read_text() != identity:
        for old in folder.glob("*.png"):
            old.unlink()
        with atomic_path(mark) as temporary:
            temporary.write_text(identity)
    compute = choose(device)
    model, meta = load_weights(weights, compute.device)
    class_to_grey = {c: grey for grey, c in grey_to_class.items()}
    table = np.array([class_to_grey.get(c, c) for c in range(256)], np.uint8)
    files: dict[str, Any] = {}
    with Progress(len(frames.names), "frames", "segment_frames") as progress:
        for name in frames.names:
            file = folder / f"{name}.png"
            if not file.exists():
                image = frames.read(name)
                with torch.no_grad(), compute.precision():
                    logits = model(prepared(image, meta["size"])[None].to(compute.device)).float()
                whole = F.interpolate(logits, image.shape, mode="bilinear", align_corners=False)
                labels = whole[0].argmax(0).to(torch.uint8).cpu().numpy()
                if remove_bars:
                    labels = without_bars(labels, burnt_in(image))
                with atomic_path(file) as temporary:
                    temporary.write_bytes(imagecodecs.png_encode(table[labels]))
            files[name] = {"file": f"{FOLDER}/{name}.png", "digest": file_digest(file)}
            progress.update()
    write_json(out, {"identity": identity, "frames": files, "grey": {str(g): c for g, c in grey_to_class.items()}})


def without_bars(labels: np.ndarray, bars: np.ndarray) -> np.ndarray:
    """Labels whose objects that lie on bars for a third or more are background; pixels of bars take no class either.

    A bar over a large object leaves the object as it is.
    """
    if not bars.any():
        return labels
    numbered, n = ndimage.label(labels != BACKGROUND)
    near = ndimage.binary_dilation(bars, iterations=3)
    sizes = np.bincount(numbered.ravel(), minlength=n + 1)
    covered = np.bincount(numbered[near], minlength=n + 1)
    gone = covered >= sizes / 3
    gone[0] = False
    return np.where(gone[numbered], BACKGROUND, labels).astype(labels.dtype)
