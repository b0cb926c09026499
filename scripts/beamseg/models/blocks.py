"""Building blocks of the networks: group norm, PReLU and dropout throughout, as the paper has it (section IV-B)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

GROUPS = 8


def conv_block(in_channels: int, out_channels: int, dropout: float, convs: int = 2) -> nn.Sequential:
    """`convs` times 3×3 convolution, group norm, PReLU; then dropout of whole channels if `dropout` is not 0."""
    layers: list[nn.Module] = []
    for i in range(convs):
        layers += [
            nn.Conv2d(in_channels if i == 0 else out_channels, out_channels, 3, padding=1, bias=False),
            nn.GroupNorm(GROUPS, out_channels),
            nn.PReLU(),
        ]
    if dropout:
        layers.append(nn.Dropout2d(dropout))
    return nn.Sequential(*layers)


def pad_to_multiple(image: torch.Tensor, multiple: int) -> torch.Tensor:
    """Pad (n, c, y, x) at the far ends of y and x to a multiple, by reflection, by the edge where it is too thin."""
    height, width = image.shape[-2:]
    down, right = -height % multiple, -width % multiple
    if not down and not right:
        return image
    mode = "reflect" if down < height and right < width else "replicate"
    return F.pad(image, (0, right, 0, down), mode=mode)


class EncoderDecoder(nn.Module):
    """U-Net (Ronneberger et al. 2015) with or without its skip connections.

    Parameters
    ----------
    in_channels, n_classes : int
    widths : sequence of int
        Channels per level, fine to coarse; each a multiple of 8.
    skips : bool
        Whether the decoder sees the encoder's features of its level.
    dropout : float
        Rate of channel dropout, from the second level down.

    Notes
    -----
    Takes (n, in_channels, y, x) of any y, x and returns logits (n, n_classes, y, x), float32.
    """

    def __init__(self, in_channels: int, n_classes: int, widths: Sequence[int], skips: bool, dropout: float) -> None:
        super().__init__()
        self.skips = skips
        self.encoder = nn.ModuleList()
        for level, width in enumerate(widths):
            before = in_channels if level == 0 else widths[level - 1]
            self.encoder.append(conv_block(before, width, dropout if level else 0.0))
        self.up = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for level in reversed(range(len(widths) - 1)):
            width = widths[level]
            self.up.append(nn.ConvTranspose2d(widths[level + 1], width, 2, stride=2))
            self.decoder.append(conv_block(2 * width if skips else width, width, dropout if level else 0.0))
        self.head = nn.Conv2d(widths[0], n_classes, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        height, width = image.shape[-2:]
        x = pad_to_multiple(image, 2 ** (len(self.encoder) - 1))
        features: list[torch.Tensor] = []
        for level, block in enumerate(self.encoder):
            x = block(F.max_pool2d(x, 2) if level else x)
            features.append(x)
        for up, block, skip in zip(self.up, self.decoder, features[-2::-1], strict=True):
            x = up(x)
            x = block(torch.cat([x, skip], dim=1) if self.skips else x)
        return self.head(x)[..., :height, :width].float()
