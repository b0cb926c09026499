"""PSPNet (Zhao et al. 2017) on a dilated ResNet-34 (He et al. 2015), as the nanowire report has it (models A to C)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .blocks import NormPReLU, pad_to_multiple

BLOCKS = (3, 4, 6, 3)
DILATIONS = (1, 1, 2, 4)
STRIDES = (1, 2, 1, 1)
"""Per stage of the ResNet-34; its last two strides are dilations here, so features are at stride 8."""
BINS = (1, 2, 3, 6)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside the identity, or a 1×1 convolution where stride or channels change."""

    def __init__(self, before: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, width, 3, stride, dilation, dilation, bias=False)
        self.first_norm = NormPReLU(width)
        self.second = nn.Conv2d(width, width, 3, 1, dilation, dilation, bias=False)
        self.second_norm = nn.GroupNorm(8, width)
        same = before == width and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(before, width, 1, stride, bias=False)
        self.last = nn.PReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second_norm(self.second(self.first_norm(self.first(x))))
        return self.last(y + self.shortcut(x))


def resnet34(in_channels: int, width: int) -> nn.Sequential:
    """Features of 8 · width channels at stride 8; width 64 is the original's."""
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, width, 7, 2, 3, bias=False),
        NormPReLU(width),
        nn.MaxPool2d(3, 2, 1),
    ]
    before = width
    for stage, (n, dilation, stride) in enumerate(zip(BLOCKS, DILATIONS, STRIDES, strict=True)):
        for index in range(n):
            layers.append(BasicBlock(before, width * 2**stage, stride if index == 0 else 1, dilation))
            before = width * 2**stage
    return nn.Sequential(*layers)


class PyramidPooling(nn.Module):
    """Means over 1, 2², 3² and 6² windows, each through a 1×1 convolution, beside the features; joined by a 3×3."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        share = channels // len(BINS)
        self.views = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(n), nn.Conv2d(channels, share, 1, bias=False), nn.PReLU()) for n in BINS
        )
        self.join = nn.Sequential(nn.Conv2d(2 * channels, share, 3, padding=1, bias=False), NormPReLU(share))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = x.shape[-2:]
        views = [F.interpolate(view(x), size, mode="bilinear", align_corners=False) for view in self.views]
        return self.join(torch.cat([x, *views], dim=1))


def sub_pixel(before: int, after: int) -> nn.Conv2d:
    """A 1×1 convolution that makes four pixels of one, which begin alike (Aitken et al. 2017; so have Ouali et al.).

    With weights of the size of He et al. (2015): PyTorch's own are so small that after three of them a hundredth of
    the variance is left, and hundreds of steps learn nothing.
    """
    conv = nn.Conv2d(before, 4 * after, 1)
    one = nn.init.kaiming_normal_(torch.empty(after, before, 1, 1), nonlinearity="relu")
    with torch.no_grad():
        conv.weight.copy_(one.repeat_interleave(4, dim=0))
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


class PSPNet(nn.Module):
    """ResNet-34 and pyramid (encoder), a 1×1 convolution and three sub-pixel convolutions (decoder).

    Parameters
    ----------
    in_channels, n_classes : int
    width : int
        Channels of the first stage of the ResNet, a multiple of 16; 64 is the original's.

    Notes
    -----
    (n, in_channels, y, x) of any y, x -> logits (n, n_classes, y, x), float32. Group norm and PReLU take the place of
    batch norm and ReLU in the encoder, for batches of few frames. A ReLU follows each sub-pixel convolution but the
    last: logits that cannot be negative cannot say no.
    """

    stride = 8
    encoder_parts = ("resnet", "pyramid")

    def __init__(self, in_channels: int, n_classes: int, width: int = 64) -> None:
        super().__init__()
        self.resnet = resnet34(in_channels, width)
        self.pyramid = PyramidPooling(8 * width)
        first = nn.Conv2d(2 * width, 4 * n_classes, 1)
        nn.init.kaiming_normal_(first.weight, nonlinearity="linear")
        layers: list[nn.Module] = [first]
        for step in range(3):
            layers += [sub_pixel(4 * n_classes, 4 * n_classes if step < 2 else n_classes), nn.PixelShuffle(2)]
            layers += [nn.ReLU()] if step < 2 else []
        self.decoder = nn.Sequential(*layers)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        height, width = image.shape[-2:]
        return self.decode(self.encode(image))[..., :height, :width]

    def encode(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Features at stride 8, of the image padded to a multiple of it."""
        return [self.pyramid(self.resnet(pad_to_multiple(image, self.stride)))]

    def decode(self, encoded: list[torch.Tensor]) -> torch.Tensor:
        """Logits, float32, at the size of the padded image."""
        return self.decoder(encoded[-1]).float()
