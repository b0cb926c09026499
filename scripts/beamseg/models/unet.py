"""The U-Nets of the paper's Table I, each of about 2 million parameters (its section IV-E)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from .encoder_decoder import EncoderDecoder

# Fine levels are narrow and coarse ones wide: time goes with pixels, parameters do not.
WIDTHS = (16, 32, 64, 128, 256)
WIDTHS_NOSKIP = (16, 32, 64, 400)
WIDTHS_NESTED = (16, 32, 64, 128, 216)
WIDTHS_FULL_SCALE = (16, 32, 64, 128, 304)
WIDTHS_PYRAMID = (16, 32, 64, 128, 192)
WIDTHS_PYRAMID_NOSKIP = (16, 32, 64, 328)


def unet(in_channels: int, n_classes: int, dropout: float = 0.1, widths: Sequence[int] = WIDTHS) -> nn.Module:
    """U-Net (Ronneberger et al. 2015)."""
    return EncoderDecoder(in_channels, n_classes, widths, dropout)


def unet_noskip(
    in_channels: int, n_classes: int, dropout: float = 0.1, widths: Sequence[int] = WIDTHS_NOSKIP
) -> nn.Module:
    """U-Net without skip connections (row U-Net*, the paper's best)."""
    return EncoderDecoder(in_channels, n_classes, widths, dropout, "none")


def unet_plus_plus(in_channels: int, n_classes: int, dropout: float = 0.1) -> nn.Module:
    """UNet++ (Zhou et al. 2018), with one head, at the last node; its deep supervision is left out."""
    return EncoderDecoder(in_channels, n_classes, WIDTHS_NESTED, dropout, "nested")


def unet3_plus(in_channels: int, n_classes: int, dropout: float = 0.1) -> nn.Module:
    """UNet3+ (Huang et al. 2020), without deep supervision and without its classification branch."""
    return EncoderDecoder(in_channels, n_classes, WIDTHS_FULL_SCALE, dropout, "full_scale")


def resunet(in_channels: int, n_classes: int, dropout: float = 0.1) -> nn.Module:
    """ResUNet (Zhang et al. 2018), with pooling where it has strides."""
    return EncoderDecoder(in_channels, n_classes, WIDTHS, dropout, "concat", "residual")


def resunet_noskip(in_channels: int, n_classes: int, dropout: float = 0.1) -> nn.Module:
    """ResUNet without skip connections (row ResUNet*); the units keep their own shortcuts."""
    return EncoderDecoder(in_channels, n_classes, WIDTHS_NOSKIP, dropout, "none", "residual")


def resunet_plus_plus(in_channels: int, n_classes: int, dropout: float = 0.1) -> nn.Module:
    """ResUNet++ (Jha et al. 2019): squeeze and excite, atrous pyramids, attention gates.

    Its attention weighs the decoder's features under guidance of the encoder's; here it is the gate of Attention
    U-Net, which weighs the encoder's.
    """
    return EncoderDecoder(in_channels, n_classes, WIDTHS_PYRAMID, dropout, "gated", "squeeze_excite")


def resunet_plus_plus_noskip(in_channels: int, n_classes: int, dropout: float = 0.1) -> nn.Module:
    """ResUNet++ without skip connections (row ResUNet++*); gates as in `attention_unet_noskip`."""
    return EncoderDecoder(in_channels, n_classes, WIDTHS_PYRAMID_NOSKIP, dropout, "gated_self", "squeeze_excite")


def attention_unet(in_channels: int, n_classes: int, dropout: float = 0.1) -> nn.Module:
    """Attention U-Net (Oktay et al. 2018); a gate compares features of its own level, the coarser ones upsampled."""
    return EncoderDecoder(in_channels, n_classes, WIDTHS, dropout, "gated")


def attention_unet_noskip(in_channels: int, n_classes: int, dropout: float = 0.1) -> nn.Module:
    """Attention U-Net without skip connections (row Att. U-Net*).

    Gates weigh what skip connections carry, and here there are none. The paper does not say what its gates then act
    on; here each acts on the decoder's own upsampled features, with these as the only signal.
    """
    return EncoderDecoder(in_channels, n_classes, WIDTHS_NOSKIP, dropout, "gated_self")


def frame_unet(in_channels: int, n_classes: int, width: int = 64, dropout: float = 0.0) -> nn.Module:
    """The U-Net of the nanowire report (models D to F); with `width` 64 it has the channels of the original.

    Convolutions are padded, so that masks are as large as frames, and normalized, which the original has not.
    """
    return EncoderDecoder(in_channels, n_classes, [width * 2**level for level in range(5)], dropout)
