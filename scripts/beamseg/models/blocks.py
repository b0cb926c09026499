"""Building blocks of the networks: group norm, PReLU and dropout throughout, as the paper has it (section IV-B)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

GROUPS = 8
EPS = 1e-5
AT_ONCE = 2**21
"""Values that a backward pass works on at once, 8 MiB in float32: fewer fit the caches, more share its fixed costs."""
ROW = 2048
"""Values of a row, of several pixels, at most."""


class NormPReLU(nn.Module):
    """Group norm (Wu and He 2018), then PReLU with one slope (He et al. 2015).

    While training on a CPU both go through `_NormPReLU`: PyTorch's own backward passes take longer there than the
    convolutions (measured on channels_last images of 16 × 32 × 96² in bfloat16, one thread: 67 ms against 25 ms here).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.slope = nn.Parameter(torch.tensor([0.25]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.is_cuda or not torch.is_grad_enabled():
            weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
            return F.prelu(F.group_norm(x, GROUPS, weight, bias, EPS), self.slope.to(x.dtype))
        return _NormPReLU.apply(x, self.weight, self.bias, self.slope)


class _NormPReLU(torch.autograd.Function):
    """Group norm and PReLU with a backward pass in few operations, sample by sample, in float32 whatever comes in.

    With x̂ = (x − μ)r over a group of m values, y = γx̂ + β and g the gradient of y, that of x is
    r(γg − Σγg/m − x̂ Σγgx̂/m): per sample and channel linear in g and x. Some samples are worked on at once, so that
    what is made of them stays in cache, and several pixels are one row, since PyTorch broadcasts row by row.
    """

    @staticmethod
    def forward(
        ctx: Any, image: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, slope: torch.Tensor
    ) -> torch.Tensor:
        n, channels, height, width = image.shape
        image = _as_image(_as_rows(image, 1), height, width)
        y, mean, r = torch.native_group_norm(image, weight, bias, n, channels, height * width, GROUPS, EPS)
        ctx.save_for_backward(image, weight, bias, slope, mean, r)
        return F.leaky_relu_(y, slope.item())

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, ...]:
        image, weight, bias, slope, *of_groups = ctx.saved_tensors
        n, channels, height, width = image.shape
        pixels = height * width
        together = math.gcd(pixels, max(1, ROW // channels))
        images, gradient = (_as_rows(array, together) for array in (image, gradients[0]))
        mean, r = (group.repeat_interleave(channels // GROUPS, dim=1) for group in of_groups)
        scale = r * weight
        shift = bias - mean * scale
        g_images = torch.empty_like(images)
        g_weight, g_bias = torch.empty_like(scale), torch.empty_like(scale)
        g_slope = torch.zeros_like(slope)
        at_once = max(1, AT_ONCE // (pixels * channels))
        for of in (slice(start, start + at_once) for start in range(0, n, at_once)):
            wide_scale = _repeated(scale[of], together)
            x, g_out = images[of].float(), gradient[of].float()
            y = torch.addcmul(_repeated(shift[of], together), x, wide_scale)
            g = torch.ops.aten.leaky_relu_backward(g_out, y, slope.item(), False)
            g_slope += torch.dot(g_out.flatten(), y.clamp_(max=0.0).flatten())
            g_sum, gx_sum = (rows.sum(1).view(-1, together, channels).sum(1) for rows in (g, torch.mul(g, x, out=y)))
            g_xhat = (gx_sum - mean[of] * g_sum) * r[of]
            pull = r[of] * _group_mean(weight * g_sum, pixels)
            stretch = r[of].square() * _group_mean(weight * g_xhat, pixels)
            offset, factor = (_repeated(per, together) for per in (stretch * mean[of] - pull, -stretch))
            g_images[of] = torch.addcmul(offset, x, factor, out=y).addcmul_(g, wide_scale)
            g_weight[of], g_bias[of] = g_xhat, g_sum
        return _as_image(g_images, height, width), g_weight.sum(0), g_bias.sum(0), g_slope


def _as_rows(image: torch.Tensor, pixels: int) -> torch.Tensor:
    """(n, c, y, x) as (n, rows, pixels · c); no copy if it is channels_last."""
    n, channels = image.shape[:2]
    return image.permute(0, 2, 3, 1).reshape(n, -1, pixels * channels)


def _as_image(rows: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """The inverse of `_as_rows`, channels_last with the strides that PyTorch expects of a batch of one too."""
    return rows.view(len(rows), height, width, -1).permute(0, 3, 1, 2)


def _repeated(values: torch.Tensor, pixels: int) -> torch.Tensor:
    """Values per sample and channel (n, c) for rows of that many pixels, (n, 1, pixels · c)."""
    return values.repeat(1, pixels)[:, None]


def _group_mean(sums: torch.Tensor, pixels: int) -> torch.Tensor:
    """Sums per (sample, channel) as means over the channel's group, spread back to (n, c)."""
    per_group = sums.shape[1] // GROUPS
    means = sums.view(len(sums), GROUPS, per_group).sum(-1, keepdim=True) / (per_group * pixels)
    return means.expand(-1, -1, per_group).reshape(sums.shape)


class Dropout(nn.Module):
    """Dropout of whole channels, drawn for a whole batch of which this process, or this pass, may hold a share.

    A share of the batch meets the same draw as it does in the whole: see `place_share`.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.batch, self.start = 0, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or not self.rate:
            return x
        shape = (max(self.batch, len(x)), x.shape[1], *(1,) * (x.ndim - 2))
        kept = torch.empty(shape, dtype=x.dtype, device=x.device).bernoulli_(1.0 - self.rate).div_(1.0 - self.rate)
        return x * kept[self.start : self.start + len(x)]


def place_share(model: nn.Module, batch: int, start: int) -> None:
    """Tell a network that the crops it sees next begin at `start` of a batch of `batch`."""
    for module in model.modules():
        if isinstance(module, Dropout):
            module.batch, module.start = batch, start


def conv_block(in_channels: int, out_channels: int, dropout: float, convs: int = 2) -> nn.Sequential:
    """`convs` times 3×3 convolution, group norm, PReLU; then dropout of whole channels if `dropout` is not 0."""
    layers: list[nn.Module] = []
    for i in range(convs):
        layers += [
            nn.Conv2d(in_channels if i == 0 else out_channels, out_channels, 3, padding=1, bias=False),
            NormPReLU(out_channels),
        ]
    if dropout:
        layers.append(Dropout(dropout))
    return nn.Sequential(*layers)


def pad_to_multiple(image: torch.Tensor, multiple: int) -> torch.Tensor:
    """Pad (n, c, y, x) at the far ends of y and x to a multiple, by reflection, by the edge where it is too thin."""
    height, width = image.shape[-2:]
    down, right = -height % multiple, -width % multiple
    if not down and not right:
        return image
    mode = "reflect" if down < height and right < width else "replicate"
    return F.pad(image, (0, right, 0, down), mode=mode)


class Residual(nn.Module):
    """Residual unit with activation first (He et al. 2016): a 3×3 convolution twice, added to the unit's input.

    Parameters
    ----------
    in_channels, out_channels : int
    dropout : float
        Rate of channel dropout at the end.
    squeeze : bool
        Weigh the channels by their own means (squeeze and excite, Hu et al. 2018) before adding.
    dilation : int
        Of both convolutions.
    image : bool
        The input is the image, which is neither normalized nor activated.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        dropout: float,
        squeeze: bool = False,
        dilation: int = 1,
        image: bool = False,
    ) -> None:
        super().__init__()
        self.before = nn.Identity() if image else NormPReLU(in_channels)
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=dilation, dilation=dilation, bias=False),
            NormPReLU(out_channels),
            nn.Conv2d(out_channels, out_channels, 3, padding=dilation, dilation=dilation, bias=False),
        )
        self.squeeze = SqueezeExcite(out_channels) if squeeze else nn.Identity()
        same = in_channels == out_channels
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.dropout = Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.shortcut(x) + self.squeeze(self.body(self.before(x))))


class SqueezeExcite(nn.Module):
    """Channels weighted by a function of their means (Hu et al. 2018, reduction 8)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(8, channels // 8)
        self.weigh = nn.Sequential(nn.Conv2d(channels, hidden, 1), nn.PReLU(), nn.Conv2d(hidden, channels, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weigh(x.mean((2, 3), keepdim=True)).sigmoid()


class AttentionGate(nn.Module):
    """Additive attention (Oktay et al. 2018): weights 0 … 1 per pixel from all features that are given.

    A 1×1 convolution over joined channels is the sum W_x x + W_g g of the paper.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(
            nn.Conv2d(channels, hidden, 1, bias=False), NormPReLU(hidden), nn.Conv2d(hidden, 1, 1)
        )

    def forward(self, *features: torch.Tensor) -> torch.Tensor:
        return self.weigh(torch.cat(features, dim=1)).sigmoid()


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling (Chen et al. 2018): 1×1, dilated 3×3 and whole-image views, joined by a 1×1.

    Each view has `view_channels`, a multiple of 8; `rates` are the dilations.
    """

    def __init__(
        self, in_channels: int, view_channels: int, out_channels: int, rates: Sequence[int], dropout: float
    ) -> None:
        super().__init__()
        self.views = nn.ModuleList([nn.Conv2d(in_channels, view_channels, 1, bias=False)])
        for rate in rates:
            self.views.append(nn.Conv2d(in_channels, view_channels, 3, padding=rate, dilation=rate, bias=False))
        self.whole = nn.Conv2d(in_channels, view_channels, 1, bias=False)
        joined = (len(rates) + 2) * view_channels
        self.join = nn.Sequential(
            NormPReLU(joined),
            nn.Conv2d(joined, out_channels, 1, bias=False),
            NormPReLU(out_channels),
            Dropout(dropout),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        views = [view(x) for view in self.views]
        whole = self.whole(x.mean((2, 3), keepdim=True)).expand_as(views[0])
        return self.join(torch.cat([*views, whole], dim=1))


def upsample(x: torch.Tensor, factor: int) -> torch.Tensor:
    """Bilinear, (n, c, y, x) to (n, c, factor·y, factor·x), pixels of equal area as F.interpolate has them.

    Two matrix products, because the backward pass of F.interpolate adds in no fixed order on a GPU.
    """
    if factor == 1:
        return x
    rows, columns = (_interpolation(n, factor, x) for n in x.shape[-2:])
    return (rows @ x @ columns.mT).contiguous(memory_format=torch.channels_last)


def _interpolation(n: int, factor: int, like: torch.Tensor) -> torch.Tensor:
    """Weights of n pixels for factor·n pixels between them, (factor·n, n)."""
    wanted = ((torch.arange(n * factor, device=like.device) + 0.5) / factor - 0.5).clamp(0, n - 1)
    distance = (wanted[:, None] - torch.arange(n, device=like.device)).abs()
    return (1.0 - distance).clamp(min=0.0).to(like.dtype)
