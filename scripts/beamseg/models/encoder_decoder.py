"""One family of encoder-decoders: kinds of blocks times kinds of skip connections."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from .blocks import ASPP, AttentionGate, Residual, conv_block, pad_to_multiple

SKIPS = ("none", "concat", "gated", "gated_self", "nested", "full_scale")
BLOCKS = ("plain", "residual", "squeeze_excite")
PYRAMID_RATES = (2, 4, 6)
PYRAMID_VIEWS = (48, 8)
"""Channels of a view of the atrous pyramids at the bottom and before the head."""


class EncoderDecoder(nn.Module):
    """U-Net (Ronneberger et al. 2015) and its kin.

    Parameters
    ----------
    in_channels, n_classes : int
    widths : sequence of int
        Channels per level, fine to coarse; each a multiple of 8, of 16 for the gated kinds.
    dropout : float
        Rate of channel dropout, from the second level down.
    skip : str
        What a decoder block sees beside the upsampled coarser one. none: nothing; concat: the encoder's features of
        its level (U-Net); gated: those, weighted per pixel by attention (Attention U-Net); gated_self: nothing of the
        encoder, the upsampled features are weighted by attention to themselves; nested: the features of all decoders
        of its level that came before (UNet++); full_scale: encoder features of all finer levels and decoder features
        of all coarser ones, resampled (UNet3+).
    block : str
        plain: two convolutions (U-Net); residual (ResUNet); squeeze_excite: residual, with weighted channels, and
        atrous pyramids at the bottom and before the head (ResUNet++).

    Notes
    -----
    Takes (n, in_channels, y, x) of any y, x and returns logits (n, n_classes, y, x), float32. `bottleneck` and
    `last_block` are the modules that explanations look at, `stride` is the edge of the coarsest pixel.

    A node of the decoder is a block at some level. The kinds differ in the order of nodes and in what they join, so
    one loop serves them all: `features[level]` lists what was made at a level so far, the encoder's first.
    """

    encoder_parts = ("encoder", "bridge")

    def __init__(
        self,
        in_channels: int,
        n_classes: int,
        widths: Sequence[int],
        dropout: float,
        skip: str = "concat",
        block: str = "plain",
    ) -> None:
        super().__init__()
        if skip not in SKIPS or block not in BLOCKS:
            raise ValueError(f"no such skip or block: {skip}, {block}")
        self.skip = skip
        depth = len(widths)
        self.stride = 2 ** (depth - 1)
        make = make_block(block)
        self.encoder = nn.ModuleList()
        for level, width in enumerate(widths):
            before = in_channels if level == 0 else widths[level - 1]
            self.encoder.append(make(before, width, dropout if level else 0.0, level == 0))
        pyramid = block == "squeeze_excite"
        bottom = widths[-1]
        self.bridge = ASPP(bottom, PYRAMID_VIEWS[0], bottom, PYRAMID_RATES, dropout) if pyramid else nn.Identity()
        self.nodes = nested_order(depth) if skip == "nested" else list(reversed(range(depth - 1)))
        self.up = nn.ModuleList()
        self.gate = nn.ModuleList()
        self.gather = nn.ModuleList()
        self.decoder = nn.ModuleList()
        made = [1] * depth
        for level in self.nodes:
            width, rate = widths[level], dropout if level else 0.0
            if skip == "full_scale":
                share = widths[0]
                sources = [*widths[: level + 1], *[depth * share] * (depth - 2 - level), bottom]
                self.gather.append(Gather(sources, share, level))
                self.decoder.append(conv_block(depth * share, depth * share, rate, convs=1))
                continue
            self.up.append(nn.ConvTranspose2d(widths[level + 1], width, 2, stride=2))
            if skip in ("gated", "gated_self"):
                self.gate.append(AttentionGate(2 * width if skip == "gated" else width, width // 2))
            joined = {"none": 1, "gated_self": 1, "nested": 1 + made[level]}.get(skip, 2) * width
            self.decoder.append(make(joined, width, rate, False))
            made[level] += 1
        last = depth * widths[0] if skip == "full_scale" else widths[0]
        self.final = ASPP(last, PYRAMID_VIEWS[1], last, PYRAMID_RATES, 0.0) if pyramid else nn.Identity()
        self.head = nn.Conv2d(last, n_classes, 1)

    @property
    def bottleneck(self) -> nn.Module:
        """The module whose output is the coarsest."""
        return self.encoder[-1] if isinstance(self.bridge, nn.Identity) else self.bridge

    @property
    def last_block(self) -> nn.Module:
        """The module whose output the head reads."""
        return self.decoder[-1] if isinstance(self.final, nn.Identity) else self.final

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        height, width = image.shape[-2:]
        return self.decode(self.encode(image))[..., :height, :width]

    def encode(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Features of every level, fine to coarse, the bridge passed; of the image padded to a multiple of `stride`."""
        x = pad_to_multiple(image, self.stride)
        features: list[torch.Tensor] = []
        for level, block in enumerate(self.encoder):
            x = block(F.max_pool2d(x, 2) if level else x)
            features.append(x)
        return [*features[:-1], self.bridge(x)]

    def decode(self, encoded: list[torch.Tensor]) -> torch.Tensor:
        """Logits, float32, of what `encode` returned, at the size of the padded image."""
        features = [[x] for x in encoded]
        for node, (level, block) in enumerate(zip(self.nodes, self.decoder, strict=True)):
            features[level].append(block(self._join(features, node, level)))
        return self.head(self.final(features[0][-1])).float()

    def _join(self, features: list[list[torch.Tensor]], node: int, level: int) -> torch.Tensor:
        """What the block of a node reads."""
        if self.skip == "full_scale":
            return self.gather[node]([maps[-1] for maps in features])
        x = self.up[node](features[level + 1][-1])
        if self.skip == "none":
            return x
        if self.skip == "gated_self":
            return x * self.gate[node](x)
        if self.skip == "gated":
            finer = features[level][0]
            return torch.cat([x, finer * self.gate[node](x, finer)], dim=1)
        return torch.cat([x, *features[level]], dim=1)


class Gather(nn.Module):
    """Features of all levels (`sources` channels each), brought to one level, convolved to `share` channels, joined."""

    def __init__(self, sources: Sequence[int], share: int, level: int) -> None:
        super().__init__()
        self.level = level
        self.convs = nn.ModuleList(conv_block(source, share, 0.0, convs=1) for source in sources)

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        here = [resample(x, other - self.level) for other, x in enumerate(features)]
        return torch.cat([conv(x) for conv, x in zip(self.convs, here, strict=True)], dim=1)


def make_block(kind: str) -> Callable[[int, int, float, bool], nn.Module]:
    """A block of a kind: (in_channels, out_channels, dropout, whether it reads the image) -> module."""
    if kind == "plain":
        return lambda before, width, dropout, image: conv_block(before, width, dropout)
    squeeze = kind == "squeeze_excite"
    return lambda before, width, dropout, image: Residual(before, width, dropout, squeeze, image=image)


def nested_order(depth: int) -> list[int]:
    """Levels of the nodes of UNet++, column by column, in each from fine to coarse; the last node is at level 0."""
    return [level for column in range(1, depth) for level in range(depth - column)]


def resample(x: torch.Tensor, levels: int) -> torch.Tensor:
    """Pool (levels < 0) or repeat (levels > 0) pixels 2**|levels| times.

    UNet3+ interpolates between pixels; a 3×3 convolution follows, which can, and repeating is the same on all devices.
    """
    if levels < 0:
        return F.max_pool2d(x, 2**-levels)
    return F.interpolate(x, scale_factor=2.0**levels, mode="nearest") if levels else x
