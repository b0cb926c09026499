"""The spatial continuity model (SCM): a small 2-D network from adjacent masks to the mask of the middle slice.

The poster gives its input (N masks, one-hot, as channels) and its output (the mask of the middle slice) and no
architecture; what is here is ours. No normalization layer and no padding: a pixel depends on the pixels within
`SCM.reach` alone, so tiles, crops and whole slices give the same.
"""

from __future__ import annotations

import json
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from .errors import InputError
from .provenance import atomic_path

DILATIONS = (1, 2, 4)


class SCM(nn.Module):
    """Three dilated 3×3 convolutions and a 1×1, added to the middle mask.

    Parameters
    ----------
    n_slices : int
        Adjacent masks N, odd.
    n_classes : int
    width : int
        Channels of the hidden layers.

    Notes
    -----
    The middle mask reaches the output through a learned scale: the network learns what to correct, not to copy.
    """

    reach = sum(DILATIONS)  # pixels lost on every side

    def __init__(self, n_slices: int, n_classes: int, width: int) -> None:
        super().__init__()
        self.n_slices, self.n_classes, self.width = n_slices, n_classes, width
        layers: list[nn.Module] = []
        channels = n_slices * n_classes
        for dilation in DILATIONS:
            layers += [nn.Conv2d(channels, width, 3, dilation=dilation), nn.PReLU()]
            channels = width
        self.body = nn.Sequential(*layers, nn.Conv2d(channels, n_classes, 1))
        self.copy = nn.Parameter(torch.tensor(2.0))

    def forward(self, masks: torch.Tensor) -> torch.Tensor:
        """Logits (n, n_classes, y, x) from labels uint8 (n, n_slices, y + 2·reach, x + 2·reach); 255 is no class."""
        n, _, rows, columns = masks.shape
        classes = torch.arange(self.n_classes, device=masks.device, dtype=masks.dtype)[:, None, None]
        hot = (masks[:, :, None] == classes).to(self.copy.dtype)
        middle = hot[:, self.n_slices // 2, :, self.reach : rows - self.reach, self.reach : columns - self.reach]
        stacked = hot.reshape(n, -1, rows, columns).contiguous(memory_format=torch.channels_last)
        return self.body(stacked) + self.copy * middle


def save(model: SCM, path: str | Path) -> None:
    """Write the weights as safetensors; the metadata entry `model` is JSON: name, in_channels, n_slices, …."""
    description = {
        "name": "scm",
        "in_channels": model.n_slices * model.n_classes,
        "n_slices": model.n_slices,
        "n_classes": model.n_classes,
        "width": model.width,
    }
    weights = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    with atomic_path(path) as temporary:
        save_file(weights, temporary, metadata={"model": json.dumps(description, sort_keys=True)})


def load(path: str | Path, device: torch.device) -> SCM:
    """The network of a weights file, ready to predict.

    Raises
    ------
    InputError
        If the file is not weights of an SCM.
    """
    with safetensors.safe_open(path, "pt") as file:
        description = json.loads((file.metadata() or {}).get("model", "{}"))
    if description.get("name") != "scm":
        raise InputError(
            path, f"weights of {description.get('name', 'no known model')!r}", "weights of an SCM", "rerun train_scm"
        )
    model = SCM(description["n_slices"], description["n_classes"], description["width"])
    model.load_state_dict(load_file(path))
    return model.to(device).eval()
