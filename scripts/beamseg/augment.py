"""Augmentation on tensors, batched: weak is geometry, strong is photometry (paper, section IV-B); the EM poster's warp.

All are the same over all slices of a stack and are functions of (seed, step, index).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from .crops import keyed_rng

GEOMETRIES = 8
CLAHE_BINS = 256
SHADING_NODES = 3


def to_unit(grey: torch.Tensor) -> torch.Tensor:
    """Grey levels 1 … 65535 to float32 0 … 1; 0, the outside, to 0."""
    return (grey.to(torch.float32) - 1.0).clamp_(min=0.0).mul_(1.0 / 65534.0)


def draw_geometry(seed: int, step: int, batch: int, first: int = 0) -> np.ndarray:
    """One of the eight symmetries of the square per crop: rotations by 90° and vertical, horizontal, diagonal flips.

    Here as below, `first` is the place of the first crop in its batch, where the crops are a share of one.
    """
    return np.array([keyed_rng(seed, "weak", step, first + index).integers(GEOMETRIES) for index in range(batch)])


def apply_geometry(images: torch.Tensor, which: np.ndarray) -> torch.Tensor:
    """Turn each image (n, …, y, x) by its element: `which % 4` quarter turns, then a flip along x if `which >= 4`."""
    turned = [_turn(image, int(g)) for image, g in zip(images, which, strict=True)]
    return torch.stack(turned)


def _turn(image: torch.Tensor, g: int) -> torch.Tensor:
    image = torch.rot90(image, g % 4, (-2, -1))
    return image.flip(-1) if g >= 4 else image


def draw_warp(seed: int, step: int, batch: int, settings: dict[str, Any], first: int = 0) -> np.ndarray:
    """Displacements of a grid of nodes over each crop, float32 (batch, 2, cells + 1, cells + 1), in crop edges.

    y then x; Gaussian, of a standard deviation drawn per crop from 0 to `scale`, so that some crops stay as they are.
    """
    nodes = settings["cells"] + 1
    drawn = np.empty((batch, 2, nodes, nodes), np.float32)
    for index in range(batch):
        rng = keyed_rng(seed, "warp", step, first + index)
        drawn[index] = rng.uniform(0.0, settings["scale"]) * rng.standard_normal((2, nodes, nodes))
    return drawn


def piecewise_affine(nodes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Displacement at each pixel, (n, 2, height, width), from nodes (n, 2, rows, columns) on a grid over the crop.

    Each cell of the grid is cut into two triangles, and in each the displacement is affine: that of its three corners.
    """
    (above, below, v), (before, after, u) = (
        _cells(pixels, n, nodes.device) for pixels, n in zip((height, width), nodes.shape[-2:], strict=True)
    )
    v = v[:, None]
    corner = nodes[:, :, above[:, None], before], nodes[:, :, above[:, None], after]
    opposite = nodes[:, :, below[:, None], before], nodes[:, :, below[:, None], after]
    near = corner[0] + u * (corner[1] - corner[0]) + v * (opposite[0] - corner[0])
    far = opposite[1] + (1 - u) * (opposite[0] - opposite[1]) + (1 - v) * (corner[1] - opposite[1])
    return torch.where(u + v <= 1, near, far)


def _cells(pixels: int, nodes: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Node before and after each pixel, and how far between them it lies, 0 … 1."""
    at = torch.linspace(0, nodes - 1, pixels, device=device)
    before = at.floor().clamp(max=nodes - 2).long()
    return before, before + 1, at - before


def apply_warp(images: torch.Tensor, drawn: np.ndarray, nearest: bool = False) -> torch.Tensor:
    """Images (n, c, y, x) taken from displaced places, all slices of a stack alike; reflected beyond the border.

    Bilinear, float32; or the nearest pixel, of the type of `images`, so that labels stay labels.
    """
    height, width = images.shape[-2:]
    moved = piecewise_affine(torch.as_tensor(drawn, device=images.device), height, width)
    y, x = (torch.linspace(-1, 1, n, device=images.device) for n in (height, width))
    grid = torch.stack([x + 2 * moved[:, 1], y[:, None] + 2 * moved[:, 0]], dim=-1)
    taken = F.grid_sample(
        images.float(), grid, mode="nearest" if nearest else "bilinear", padding_mode="reflection", align_corners=True
    )
    return taken.to(images.dtype)


def draw_photometry(
    seed: int, step: int, batch: int, settings: dict[str, Any], first: int = 0
) -> dict[str, np.ndarray]:
    """Parameters of the strong augmentation per crop: gamma, jitter, CLAHE clip limit (0: none), contrast, brightness,
    shading.

    `settings` holds `probability` of each operation and the half-widths `gamma` (of log gamma), `jitter`,
    `brightness`, `contrast`, `shading`, and `clahe` (largest clip limit). Shading is (batch, 3, 3),
    the others (batch,).
    """
    drawn = np.empty((batch, 6))
    shading = np.zeros((batch, SHADING_NODES, SHADING_NODES))
    for index in range(batch):
        rng = keyed_rng(seed, "strong", step, first + index)
        used = rng.random(5) < settings["probability"]
        u = rng.uniform(-1.0, 1.0, 6)
        if used[4]:
            shading[index] = settings["shading"] * rng.uniform(-1.0, 1.0, shading.shape[1:])
        drawn[index] = (
            np.exp(settings["gamma"] * u[0]) if used[0] else 1.0,
            1.0 + settings["jitter"] * u[1] if used[1] else 1.0,
            settings["jitter"] * u[2] if used[1] else 0.0,
            1.0 + (settings["clahe"] - 1.0) * (u[3] + 1.0) / 2.0 if used[2] and settings["clahe"] > 0 else 0.0,
            1.0 + settings["contrast"] * u[4] if used[3] else 1.0,
            settings["brightness"] * u[5] if used[3] else 0.0,
        )
    names = ("gamma", "jitter_scale", "jitter_shift", "clahe", "contrast", "brightness")
    return {**dict(zip(names, drawn.T, strict=True)), "shading": shading}


def apply_photometry(images: torch.Tensor, inside: torch.Tensor, drawn: dict[str, np.ndarray]) -> torch.Tensor:
    """Strong view of images (n, c, y, x) in 0 … 1; the outside (`inside` False) stays 0.

    Gamma, then shading (a smooth field is added), jitter (scale and shift), CLAHE, and contrast about the stack's mean
    with brightness.
    """

    def column(name: str) -> torch.Tensor:
        return torch.as_tensor(drawn[name], dtype=torch.float32, device=images.device)[:, None, None, None]

    out = images.clamp(min=1e-6) ** column("gamma")
    nodes = torch.as_tensor(drawn["shading"], dtype=torch.float32, device=images.device)[:, None]
    out = out + F.interpolate(nodes, images.shape[-2:], mode="bicubic", align_corners=True)
    out = (out * column("jitter_scale") + column("jitter_shift")).clamp_(0.0, 1.0)
    chosen = np.flatnonzero(drawn["clahe"])
    if len(chosen):
        index = torch.as_tensor(chosen, device=images.device)
        out[index] = clahe(out[index], inside[index], column("clahe")[index, 0, 0, 0])
    mean = (out * inside).sum((1, 2, 3), keepdim=True) / inside.sum((1, 2, 3), keepdim=True).clamp(min=1)
    out = (out - mean) * column("contrast") + mean + column("brightness")
    return out.clamp_(0.0, 1.0) * inside


def clahe(images: torch.Tensor, inside: torch.Tensor, limits: torch.Tensor, tiles: int = 4) -> torch.Tensor:
    """Contrast-limited adaptive histogram equalization (Zuiderveld 1994), one table per tile for a whole stack.

    Parameters
    ----------
    images : Tensor, float32, (n, c, y, x)
        In 0 … 1.
    inside : Tensor, bool, (n, c, y, x)
        Pixels that the histograms count.
    limits : Tensor, float32, (n,)
        Clip limit as a multiple of a flat histogram's count.
    tiles : int
        Tiles along y and x.

    Returns
    -------
    Tensor, float32, (n, c, y, x)
        Bilinearly blended between the tables of the four nearest tile centres.
    """
    n, _, height, width = images.shape
    level = (images * (CLAHE_BINS - 1)).round().long()
    ty, wy = _tile_blend(height, tiles, images.device)
    tx, wx = _tile_blend(width, tiles, images.device)
    own_y = torch.arange(height, device=images.device) * tiles // height
    own_x = torch.arange(width, device=images.device) * tiles // width
    sample = torch.arange(n, device=images.device)[:, None, None, None] * tiles**2
    tile = sample + own_y[:, None] * tiles + own_x
    flat = (tile * CLAHE_BINS + level)[inside]
    counts = torch.bincount(flat, minlength=n * tiles**2 * CLAHE_BINS).float().view(n, tiles**2, CLAHE_BINS)
    total = counts.sum(-1, keepdim=True)
    clip = limits[:, None, None] * total / CLAHE_BINS
    excess = (counts - clip).clamp(min=0).sum(-1, keepdim=True)
    clipped = torch.minimum(counts, clip) + excess / CLAHE_BINS
    table = (clipped.cumsum(-1) / total.clamp(min=1)).flatten()
    out = torch.zeros_like(images)
    for y_tile, y_weight in zip(ty, wy, strict=True):
        for x_tile, x_weight in zip(tx, wx, strict=True):
            tile = sample + y_tile[:, None] * tiles + x_tile
            out += (y_weight[:, None] * x_weight) * table[tile * CLAHE_BINS + level]
    return out


def _tile_blend(extent: int, tiles: int, device: torch.device) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Indices of the tile before and after each pixel, and their weights."""
    centre = (torch.arange(extent, device=device, dtype=torch.float32) + 0.5) * tiles / extent - 0.5
    before = centre.floor()
    after_weight = centre - before
    indices = [(before + i).clamp(0, tiles - 1).long() for i in (0, 1)]
    return indices, [1.0 - after_weight, after_weight]
