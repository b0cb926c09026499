"""Networks by name, and their weights as files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from ..errors import InputError
from ..provenance import atomic_path, canonical_json
from . import deeplab, pspnet, segformer, unet, unet_3d

MODELS: dict[str, Callable[..., nn.Module]] = {
    "unet": unet.unet,
    "unet_noskip": unet.unet_noskip,
    "unet_plus_plus": unet.unet_plus_plus,
    "unet3_plus": unet.unet3_plus,
    "resunet": unet.resunet,
    "resunet_noskip": unet.resunet_noskip,
    "resunet_plus_plus": unet.resunet_plus_plus,
    "resunet_plus_plus_noskip": unet.resunet_plus_plus_noskip,
    "attention_unet": unet.attention_unet,
    "attention_unet_noskip": unet.attention_unet_noskip,
    "deeplabv3_plus": deeplab.deeplabv3_plus,
    "segformer": segformer.segformer,
}
"""The rows of the paper's Table I."""
REFERENCE_MODELS: dict[str, Callable[..., nn.Module]] = {"unet_3d": unet_3d.UNet3D}
"""What others compare with."""
FRAME_MODELS: dict[str, Callable[..., nn.Module]] = {"frame_unet": unet.frame_unet, "frame_pspnet": pspnet.PSPNet}
"""Networks of single frames, in two parts: `encode` and `decode`."""
OF_ANY_WIDTH = ("unet", "unet_noskip")


class Embedded(nn.Module):
    """A network whose output is an embedding of each pixel, and a 1×1 convolution that classifies it.

    Parameters
    ----------
    body : Module
        (n, in_channels, y, x) -> embedding (n, embedding, y, x), float32: any network of `MODELS`, its head included.
    embedding, n_classes : int
    """

    def __init__(self, body: nn.Module, embedding: int, n_classes: int) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Conv2d(embedding, n_classes, 1)
        self.stride: int = body.stride  # type: ignore[assignment]

    @property
    def bottleneck(self) -> nn.Module:
        """The module whose output is the coarsest."""
        return self.body.bottleneck  # type: ignore[return-value]

    @property
    def last_block(self) -> nn.Module:
        """The module whose output the head reads."""
        return self.body

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(image)).float()


def model_options(settings: dict[str, Any], embedding: int = 0) -> dict[str, Any]:
    """Keywords of `build_model` for the section `model`; what is left at its default stays out."""
    options: dict[str, Any] = {"dropout": settings["dropout"]}
    if settings.get("widths"):
        options["widths"] = settings["widths"]
    if embedding:
        options["embedding"] = embedding
    return options


def build_model(name: str, in_channels: int, n_classes: int, embedding: int = 0, **options: Any) -> nn.Module:
    """A network by its name in `MODELS` or the two beside it, (n, in_channels, y, x) -> logits (n, n_classes, y, x).

    With `embedding`, its output is an embedding of so many channels, classified by a 1×1 convolution (`Embedded`).

    Raises
    ------
    InputError
        If there is no network of that name, or its widths cannot be chosen.
    """
    builders = MODELS | REFERENCE_MODELS | FRAME_MODELS
    if name not in builders:
        raise InputError(
            "model.name", repr(name), f"one of {', '.join(MODELS | REFERENCE_MODELS)}", "choose one of them"
        )
    if options.get("widths") and name not in OF_ANY_WIDTH:
        raise InputError("model.widths", f"given for {name}", f"one of {', '.join(OF_ANY_WIDTH)}", "leave it empty")
    model = builders[name](in_channels, embedding or n_classes, **options)
    if embedding:
        model = Embedded(model, embedding, n_classes)
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def save_weights(path: str | Path, model: nn.Module, meta: dict[str, Any]) -> None:
    """Write parameters as safetensors, atomically; `meta` (JSON-like) is the metadata entry `model`.

    `meta` holds at least name, in_channels, n_classes and options, from which `load_weights` builds the network.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(tensors, metadata={"model": canonical_json(meta)}))  # save_file makes it mode 0600


def load_weights(path: str | Path, device: torch.device | str = "cpu") -> tuple[nn.Module, dict[str, Any]]:
    """The network of a weights file, in evaluation mode, and its metadata.

    Raises
    ------
    InputError
        If the file is no weights file of this program.
    """
    try:
        with safe_open(str(path), framework="pt", device=str(device)) as file:
            meta = json.loads((file.metadata() or {})["model"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(
            path, f"not readable as weights ({error})", "a .safetensors file with the entry `model`", "train again"
        ) from error
    model = build_model(meta["name"], meta["in_channels"], meta["n_classes"], **meta["options"])
    model.load_state_dict(tensors)
    return model.to(device).eval(), meta
