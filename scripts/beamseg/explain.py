"""Which pixels a network's prediction of a class rests on: class activation maps (paper, section IV-K)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from .augment import to_unit
from .crops import read_stack
from .models import load_weights
from .volumes import Volume

LAYERS = {"bottleneck": "bottleneck", "decoder": "last_block"}
"""What is looked at -> the attribute of a network that holds it."""


def grad_cam(model: nn.Module, images: torch.Tensor, class_index: int, layer: str = "bottleneck") -> np.ndarray:
    """Grad-CAM of one class (Selvaraju et al. 2017, equations 1 and 2).

    Parameters
    ----------
    model : Module
        Of `beamseg.models`, in evaluation mode.
    images : Tensor, float32, (n, in_channels, y, x)
        In 0 … 1.
    class_index : int
    layer : str
        `bottleneck`, the coarsest features, or `decoder`, those that the head reads.

    Returns
    -------
    ndarray, float32, (n, y, x)
        0 … 1, 1 at each image's maximum; all 0 where the class is predicted nowhere or nothing speaks for it.

    Notes
    -----
    The class's score is the sum of its logits over the pixels that are predicted as it, as Vinogradova et al. (2020)
    carry Grad-CAM from one label per image to one per pixel. A channel's weight is the mean of the score's gradient.
    """
    held: list[torch.Tensor] = []

    def hold(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        held.append(output.detach().requires_grad_())
        return held[0]

    handle = getattr(model, LAYERS[layer]).register_forward_hook(hold)
    try:
        with torch.enable_grad():
            logits = model(images)
    finally:
        handle.remove()
    score = (logits[:, class_index] * (logits.argmax(1) == class_index)).sum()
    (slope,) = torch.autograd.grad(score, held)
    heat = (slope.mean((2, 3), keepdim=True) * held[0].detach()).sum(1, keepdim=True).relu().float()
    height, width = images.shape[-2:]
    stride: int = model.stride  # type: ignore[assignment]
    padded = [-(-n // stride) * stride for n in (height, width)]
    heat = F.interpolate(heat, size=padded, mode="bilinear")[:, 0, :height, :width]
    most = heat.amax((1, 2), keepdim=True)
    return torch.where(most > 0, heat / most, 0.0).cpu().numpy()


def class_maps(
    weights: str | Path, volume: Volume, z: int, window: tuple[slice, slice], layer: str = "bottleneck"
) -> np.ndarray:
    """`grad_cam` of every class of a network on a window of slice z, on the CPU; float32 (classes, y, x).

    The window goes through the network at once: keep it to some hundred pixels.

    Raises
    ------
    InputError
        If the file holds no weights.
    """
    model, meta = load_weights(weights)
    stack = read_stack(volume, z, meta["in_channels"], window).astype(np.int32)
    images = to_unit(torch.from_numpy(stack))[None].contiguous(memory_format=torch.channels_last)
    return np.concatenate([grad_cam(model, images, c, layer) for c in range(meta["n_classes"])])
