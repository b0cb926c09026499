"""SegFormer (Xie et al. 2021), compact."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from .blocks import GROUPS, Dropout, NormPReLU, pad_to_multiple, upsample

WIDTHS = (32, 64, 128, 160)
"""Channels at strides 4, 8, 16, 32."""
HEADS = (1, 2, 4, 5)
REDUCTIONS = (8, 4, 2, 1)
DEPTH = 2
"""Layers per stage."""
HIDDEN = 4
"""Channels inside a Mix-FFN, times those outside."""
DECODER = 128


class Attention(nn.Module):
    """Self-attention of all pixels to a coarser image of them (equation 1 of Xie et al.), (n, c, y, x) to the same.

    Keys and values come from `reduction`² pixels each, so a tile of n pixels takes n²/reduction² products.
    """

    def __init__(self, channels: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Conv2d(channels, channels, 1)
        self.reduce = nn.Sequential()
        if reduction > 1:
            self.reduce.append(nn.Conv2d(channels, channels, reduction, stride=reduction, bias=False))
            self.reduce.append(nn.GroupNorm(GROUPS, channels))
        self.key = nn.Conv2d(channels, channels, 1, bias=False)  # a bias would shift all logits of a query alike
        self.value = nn.Conv2d(channels, channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        coarse = self.reduce(x)
        query, key, value = (self._split(t) for t in (self.query(x), self.key(coarse), self.value(coarse)))
        # The fused kernels' backward passes add in no fixed order on a GPU; there are few keys, so nothing is lost.
        with sdpa_kernel(SDPBackend.MATH):
            mixed = F.scaled_dot_product_attention(query, key, value)
        return self.out(mixed.mT.reshape(x.shape).contiguous(memory_format=torch.channels_last))

    def _split(self, x: torch.Tensor) -> torch.Tensor:
        """(n, c, y, x) as (n, heads, pixels, c / heads)."""
        return x.reshape(len(x), self.heads, x.shape[1] // self.heads, -1).mT


class Layer(nn.Module):
    """Attention, then Mix-FFN (equation 3 of Xie et al.), each behind a norm, each added to its input.

    The 3×3 convolution per channel inside the Mix-FFN tells where a pixel lies; there is no other position code, so
    images of any size do.
    """

    def __init__(self, channels: int, heads: int, reduction: int, dropout: float) -> None:
        super().__init__()
        hidden = HIDDEN * channels
        self.attend = nn.Sequential(
            nn.GroupNorm(GROUPS, channels), Attention(channels, heads, reduction), Dropout(dropout)
        )
        self.mix = nn.Sequential(
            nn.GroupNorm(GROUPS, channels),
            nn.Conv2d(channels, hidden, 1),
            nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden),
            nn.PReLU(),
            nn.Conv2d(hidden, channels, 1),
            Dropout(dropout),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attend(x)
        return x + self.mix(x)


class SegFormer(nn.Module):
    """Mix transformer of four stages, and a head of 1×1 convolutions over all of them.

    Parameters
    ----------
    in_channels, n_classes : int
    dropout : float
        Rate of channel dropout in every layer and before the head.

    Notes
    -----
    (n, in_channels, y, x) of any y, x -> logits (n, n_classes, y, x), float32. As the paper does with all its models,
    group norm stands where SegFormer has layer norm, and PReLU where it has GELU. Attention is over all of a tile, as
    are the means of group norm; a tile must therefore be as large as a training crop, which is what `predict` takes.
    """

    stride = 32

    def __init__(self, in_channels: int, n_classes: int, dropout: float) -> None:
        super().__init__()
        self.embed = nn.ModuleList()
        self.stages = nn.ModuleList()
        self.unify = nn.ModuleList()
        before = in_channels
        for level, (width, heads, reduction) in enumerate(zip(WIDTHS, HEADS, REDUCTIONS, strict=True)):
            size, step = (7, 4) if level == 0 else (3, 2)
            self.embed.append(
                nn.Sequential(
                    nn.Conv2d(before, width, size, stride=step, padding=size // 2, bias=False),
                    nn.GroupNorm(GROUPS, width),
                )
            )
            layers = [Layer(width, heads, reduction, dropout) for _ in range(DEPTH)]
            self.stages.append(nn.Sequential(*layers, nn.GroupNorm(GROUPS, width)))
            self.unify.append(nn.Conv2d(width, DECODER, 1))
            before = width
        self.fuse = nn.Sequential(
            nn.Conv2d(len(WIDTHS) * DECODER, DECODER, 1, bias=False), NormPReLU(DECODER), Dropout(dropout)
        )
        self.head = nn.Conv2d(DECODER, n_classes, 1)

    @property
    def bottleneck(self) -> nn.Module:
        """The module whose output is the coarsest."""
        return self.stages[-1]

    @property
    def last_block(self) -> nn.Module:
        """The module whose output the head reads."""
        return self.fuse

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        height, width = image.shape[-2:]
        x = pad_to_multiple(image, self.stride)
        unified = []
        for level, (embed, stage, unify) in enumerate(zip(self.embed, self.stages, self.unify, strict=True)):
            x = stage(embed(x))
            unified.append(upsample(unify(x), 2**level))
        logits = self.head(self.fuse(torch.cat(unified, dim=1)))
        return upsample(logits, 4)[..., :height, :width].float()


def segformer(in_channels: int, n_classes: int, dropout: float = 0.1) -> nn.Module:
    """SegFormer (row SegFormer of the paper's Table I)."""
    return SegFormer(in_channels, n_classes, dropout)
