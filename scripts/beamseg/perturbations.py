"""What auxiliary decoders get in place of the encoder's features (Ouali et al. 2020, section 3.2.3).

Each takes features float32 (n, channels, y, x) and returns them perturbed. Random numbers are torch's own, seeded by
the caller. Those by prediction see the main decoder's probabilities (n, classes, y', x'); class 0 is the background.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from scipy import ndimage

NOISE = 0.3
DROP = (0.7, 0.9)
DROPOUT = 0.5
ERASED = 0.4
"""Edge of the guided cut-out, in edges of the object's box."""
REACH = 1e-3
"""Step of the finite difference that finds the adversarial direction (ξ of Miyato et al. 2018)."""
STRENGTH = 2.0
"""Length of the adversarial perturbation per frame (ε)."""

Decoder = Callable[[torch.Tensor], torch.Tensor]


def feature_noise(z: torch.Tensor) -> torch.Tensor:
    """z + z ⊙ N, with N uniform in ±0.3, one for all frames of the batch."""
    return z + z * torch.empty_like(z[:1]).uniform_(-NOISE, NOISE)


def feature_drop(z: torch.Tensor) -> torch.Tensor:
    """Zero where the mean over channels is above a share of its maximum, drawn in 0.7 … 0.9: the most active places."""
    mean = z.mean(dim=1, keepdim=True)
    share = torch.empty(1, device=z.device).uniform_(*DROP)
    return z * (mean <= share * mean.amax(dim=(2, 3), keepdim=True))


def spatial_dropout(z: torch.Tensor) -> torch.Tensor:
    """Half of the channels dropped whole."""
    return F.dropout2d(z, DROPOUT, training=True)


def object_masking(z: torch.Tensor, probability: torch.Tensor) -> torch.Tensor:
    """Zero where the main decoder sees an object."""
    return z * (1 - objects(z, probability))


def context_masking(z: torch.Tensor, probability: torch.Tensor) -> torch.Tensor:
    """Zero where the main decoder sees none."""
    return z * objects(z, probability)


def objects(z: torch.Tensor, probability: torch.Tensor) -> torch.Tensor:
    """1 where the predicted class is not the background, at the size of z; (n, 1, y, x)."""
    found = (probability.argmax(dim=1, keepdim=True) > 0).to(z.dtype)
    return F.interpolate(found, z.shape[-2:], mode="nearest")


def guided_cutout(z: torch.Tensor, probability: torch.Tensor) -> torch.Tensor:
    """Zero in a random box inside the box of every predicted object, 0.4 of its edges."""
    kept = torch.ones_like(z[:, :1])
    for mask, keep in zip(objects(z, probability)[:, 0].bool().cpu().numpy(), kept[:, 0], strict=True):
        for rows, columns in ndimage.find_objects(ndimage.label(mask)[0]):
            window = []
            for span in (rows, columns):
                extent = span.stop - span.start
                edge = max(1, round(ERASED * extent))
                start = span.start + int(torch.randint(extent - edge + 1, (1,)))
                window.append(slice(start, start + edge))
            keep[tuple(window)] = 0
    return z * kept


def adversarial(z: torch.Tensor, decoder: Decoder) -> torch.Tensor:
    """I-VAT: z moved by `STRENGTH` in the direction in which `decoder` departs most from its own prediction of z."""
    fixed = z.detach()
    with torch.no_grad():
        target = decoder(fixed).softmax(dim=1)
    direction = unit(torch.randn_like(fixed)).requires_grad_()
    with torch.enable_grad():
        moved = decoder(fixed + REACH * direction).log_softmax(dim=1)
        divergence = F.kl_div(moved, target, reduction="batchmean")
        (gradient,) = torch.autograd.grad(divergence, direction)
    return z + STRENGTH * unit(gradient)


def unit(x: torch.Tensor) -> torch.Tensor:
    """Each frame's tensor scaled to length 1."""
    return x / x.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None, None]


FEATURE = {"feature_noise": feature_noise, "feature_drop": feature_drop, "spatial_dropout": spatial_dropout}
PREDICTION = {"object_masking": object_masking, "context_masking": context_masking, "guided_cutout": guided_cutout}
NAMES = (*FEATURE, *PREDICTION, "adversarial")


def perturb(name: str, z: torch.Tensor, probability: torch.Tensor, decoder: Decoder) -> torch.Tensor:
    """One perturbation by name; `decoder` is the auxiliary one, which the adversarial kind is against."""
    if name in FEATURE:
        return FEATURE[name](z)
    if name in PREDICTION:
        return PREDICTION[name](z, probability)
    return adversarial(z, decoder)
