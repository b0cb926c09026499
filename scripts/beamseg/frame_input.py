"""What a network is given of a frame and of its mask."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

CLIP = (0.5, 99.5)


def prepared(image: np.ndarray, size: int) -> torch.Tensor:
    """A frame for the network, float32 (1, y, x): percentiles `CLIP` are 0 and 1, longer side `size` at most."""
    numbers = np.isfinite(image)
    low, high = (float(value) for value in np.percentile(image[numbers], CLIP)) if numbers.any() else (0.0, 1.0)
    unit = np.clip((np.where(numbers, image, low).astype(np.float32) - low) / max(high - low, 1e-6), 0, 1)
    return resized(torch.from_numpy(unit)[None], shrunk(image.shape, size))


def shrunk(shape: tuple[int, ...], size: int) -> tuple[int, int]:
    """Height and width with the longer side at most `size`."""
    factor = min(1.0, size / max(shape))
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def resized(image: torch.Tensor, shape: tuple[int, int]) -> torch.Tensor:
    """(channels, y, x) at another size, bilinear, without aliasing."""
    if image.shape[-2:] == shape:
        return image
    return F.interpolate(image[None], shape, mode="bilinear", antialias=True, align_corners=False)[0]


def resized_mask(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A mask (y, x) at another size, by the nearest pixel's centre."""
    whole = torch.from_numpy(mask.astype(np.float32))[None, None]
    return F.interpolate(whole, shape, mode="nearest-exact")[0, 0].numpy().astype(np.uint8)
