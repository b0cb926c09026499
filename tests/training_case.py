"""A small case that the tests of both training stages share, also run as a program that kills itself."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from beamseg.label_values import SUGGESTED
from beamseg.layers import defaults
from beamseg.models import load_weights
from beamseg.self_correct import self_correct
from beamseg.train import train
from beamseg.train_contrastive import train_contrastive
from beamseg.volumes import ArrayVolume

torch.set_num_threads(1)
SCHEMAS = Path(__file__).parents[1] / "workflow" / "schemas"


def section(name: str, **changes: Any) -> dict[str, Any]:
    """A section's defaults with changes, and a pace for tests: a state after every step."""
    settings = defaults(yaml.safe_load((SCHEMAS / f"{name}.yaml").read_text()))
    return {**settings, "batch": 2, "log_every": 2, "checkpoint_s": 0.0, **changes}


def phantom(shape: tuple[int, int, int] = (6, 40, 40)) -> tuple[np.ndarray, np.ndarray]:
    """Grey levels with a field of view, dark and bright stripes with noise, and their labels."""
    rng = np.random.default_rng(0)
    bright = np.broadcast_to((np.arange(shape[2]) // 8) % 2 == 1, shape)
    grey = (20000 + 20000 * bright + rng.normal(0, 4000, shape)).clip(1, 65535).astype(np.uint16)
    labels = bright.astype(np.uint8)
    y, x = np.ogrid[: shape[1], : shape[2]]
    outside = (y - shape[1] / 2) ** 2 + (x - shape[2] / 2) ** 2 > (0.5 * shape[1]) ** 2
    grey[:, outside], labels[:, outside] = 0, 255
    return grey, labels


class Fatal(ArrayVolume):
    """A volume that sends its process a signal at a certain read."""

    def __init__(self, array: np.ndarray, at: int, what: signal.Signals) -> None:
        super().__init__(array)
        self.left, self.what = at, what

    def read(self, z0: int, z1: int, y: slice = slice(None), x: slice = slice(None)) -> np.ndarray:
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), self.what)
        return super().read(z0, z1, y, x)


def run_train(
    folder: Path, volume: ArrayVolume | None = None, transition: np.ndarray | None = None, **changes: Any
) -> Path:
    """Stage 2 of the small case; returns the weights."""
    grey, labels = phantom()
    out = folder / "stage2.safetensors"
    train(
        [volume or ArrayVolume(grey)],
        [ArrayVolume(labels)],
        out,
        folder / "train.csv",
        settings=section("train", **{"crop": 16, "steps": 8, **changes}),
        model_settings={"name": "unet_noskip", "n_slices": 3, "dropout": 0.1},
        n_classes=2,
        seed=3,
        device="cpu",
        mem_budget_mb=0,
        transition=transition,
    )
    return out


def learned(
    folder: Path, labels: np.ndarray, *, name: str = "unet_noskip", steps: int, transition: np.ndarray | None = None
) -> np.ndarray:
    """What a network that learned `labels` of the small case sees on slice 3, classes (y, x)."""
    grey, _ = phantom(labels.shape)
    out = folder / "stage2.safetensors"
    train(
        [ArrayVolume(grey)],
        [ArrayVolume(labels)],
        out,
        folder / "train.csv",
        settings=section("train", crop=32, steps=steps, batch=4, checkpoint_s=60.0),
        model_settings={"name": name, "n_slices": 3, "dropout": 0.0},
        n_classes=2,
        seed=0,
        device="cpu",
        transition=transition,
    )
    model, _ = load_weights(out)
    with torch.no_grad():
        return model(torch.from_numpy(grey[2:5].astype(np.float32) / 65535)[None]).argmax(1)[0].numpy()


def run_self_correct(
    folder: Path,
    start: Path,
    volume: ArrayVolume | None = None,
    labels: np.ndarray | None = None,
    label_source: str = "clusters",
    **changes: Any,
) -> dict[str, Any]:
    """Stage 3 of the small case; returns the verdict."""
    settings = section("self_correct", **{"steps": 8, **changes})
    settings["watch"] = {**settings["watch"], "crops": 4}
    return self_correct(
        [volume or ArrayVolume(phantom()[0])],
        start,
        folder / "stage3.safetensors",
        folder / "self_correct.csv",
        folder / "verdict.json",
        settings=settings,
        seed=3,
        device="cpu",
        mem_budget_mb=0,
        labels=None if labels is None else [ArrayVolume(labels)],
        label_source=label_source,
    )


def run_contrastive(
    folder: Path,
    volume: ArrayVolume | None = None,
    classifier_steps: int = 4,
    start_from: Path | None = None,
    mem_budget_mb: float = 4000,
    dropout: float = 0.0,
    **changes: Any,
) -> Path:
    """Stage 2 of the small case from a few painted pixels, all others suggested if `prior` is given; the weights."""
    grey, labels = phantom()
    painted = np.full_like(labels, 255)
    painted[2, 10:30:3, 10:30:2] = labels[2, 10:30:3, 10:30:2]
    settings = section("train", **{"crop": 16, "steps": 6, **changes})
    settings["contrastive"] = {**settings["contrastive"], "classifier_steps": classifier_steps, "pixels": 32}
    if settings["prior"]:
        painted = np.where((painted == 255) & (labels != 255), labels + SUGGESTED, painted)
    out = folder / "stage2.safetensors"
    train_contrastive(
        [volume or ArrayVolume(grey)],
        [ArrayVolume(painted)],
        out,
        folder / "train.csv",
        settings=settings,
        model_settings={"name": "unet", "n_slices": 1, "dropout": dropout, "widths": [8, 16]},
        n_classes=2,
        seed=3,
        device="cpu",
        mem_budget_mb=mem_budget_mb,
        start_from=start_from,
    )
    return out


if __name__ == "__main__":
    stage, where = sys.argv[1], Path(sys.argv[2])
    killer = Fatal(phantom()[0], int(sys.argv[3]), signal.SIGKILL)
    if stage == "train":
        run_train(where, killer)
    elif stage == "contrastive":
        run_contrastive(where, killer, classifier_steps=14, mem_budget_mb=0)
    else:
        run_self_correct(where, Path(sys.argv[4]), killer)
