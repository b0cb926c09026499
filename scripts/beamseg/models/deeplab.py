"""DeepLabv3+ (Chen et al. 2018)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .blocks import ASPP, NormPReLU, Residual, conv_block, pad_to_multiple, upsample

WIDTHS = (16, 32, 64, 128)
"""Channels at strides 1, 2, 4, 8."""
DEEP = 168
"""Channels of the dilated units, at stride 8."""
PYRAMID, LOW = 96, 24
RATES = (3, 6, 9)


class DeepLab(nn.Module):
    """Residual encoder whose last units are dilated, pyramid, and a decoder with one skip connection, at stride 4.

    Parameters
    ----------
    in_channels, n_classes : int
    dropout : float
        Rate of channel dropout from stride 2 down.

    Notes
    -----
    (n, in_channels, y, x) of any y, x -> logits (n, n_classes, y, x), float32. The encoder stops at stride 8 and the
    pyramid's rates are 3, 6, 9, since a crop of 96 px has 12 pixels there; the paper's 6, 12, 18 are for crops of 513.
    Convolutions are not separable: at this size that saves parameters, which we have, not time.
    """

    stride = 8

    def __init__(self, in_channels: int, n_classes: int, dropout: float) -> None:
        super().__init__()
        self.encoder = nn.ModuleList()
        for level, width in enumerate(WIDTHS):
            before = in_channels if level == 0 else WIDTHS[level - 1]
            self.encoder.append(Residual(before, width, dropout if level else 0.0, image=level == 0))
        self.dilated = nn.Sequential(
            Residual(WIDTHS[-1], DEEP, dropout, dilation=2),
            Residual(DEEP, DEEP, dropout, dilation=4),
            NormPReLU(DEEP),
        )
        self.pyramid = ASPP(DEEP, PYRAMID, PYRAMID, RATES, dropout)
        self.low = nn.Sequential(NormPReLU(WIDTHS[2]), nn.Conv2d(WIDTHS[2], LOW, 1, bias=False), NormPReLU(LOW))
        self.decoder = conv_block(PYRAMID + LOW, PYRAMID, dropout)
        self.head = nn.Conv2d(PYRAMID, n_classes, 1)

    @property
    def bottleneck(self) -> nn.Module:
        """The module whose output is the coarsest."""
        return self.pyramid

    @property
    def last_block(self) -> nn.Module:
        """The module whose output the head reads."""
        return self.decoder

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        height, width = image.shape[-2:]
        x = pad_to_multiple(image, self.stride)
        features = []
        for level, block in enumerate(self.encoder):
            x = block(F.max_pool2d(x, 2) if level else x)
            features.append(x)
        deep = upsample(self.pyramid(self.dilated(x)), 2)
        logits = self.head(self.decoder(torch.cat([deep, self.low(features[2])], dim=1)))
        return upsample(logits, 4)[..., :height, :width].float()


def deeplabv3_plus(in_channels: int, n_classes: int, dropout: float = 0.1) -> nn.Module:
    """DeepLabv3+ (row DeepLabv3+ of the paper's Table I)."""
    return DeepLab(in_channels, n_classes, dropout)
