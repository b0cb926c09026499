"""U-Net and U-Net without skip connections, both of about 2 million parameters."""

from __future__ import annotations

from torch import nn

from .blocks import EncoderDecoder

# Fine levels are narrow and coarse ones wide: time goes with pixels, parameters do not.
WIDTHS = (16, 32, 64, 128, 256)
WIDTHS_NOSKIP = (16, 32, 64, 400)


def unet(in_channels: int, n_classes: int, dropout: float = 0.1) -> nn.Module:
    """U-Net (Ronneberger et al. 2015; row U-Net of the paper's Table I)."""
    return EncoderDecoder(in_channels, n_classes, WIDTHS, skips=True, dropout=dropout)


def unet_noskip(in_channels: int, n_classes: int, dropout: float = 0.1) -> nn.Module:
    """U-Net without skip connections (row U-Net* of the paper's Table I, its best)."""
    return EncoderDecoder(in_channels, n_classes, WIDTHS_NOSKIP, skips=False, dropout=dropout)
