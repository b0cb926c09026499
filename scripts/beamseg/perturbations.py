"""What auxiliary decoders get in place of the encoder's features (Ouali et al. 2020, section 3.2.3).

Each takes features float32 (n, channels, y, x) and returns them perturbed. Random numbers are torch's own, seeded by
the caller, and drawn for a whole batch, of which the features may be a share. Those by prediction see the
probabilities of the main decoder (n, classes, y', x'); class 0 is the background.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
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


class Share(NamedTuple):
    """Where features lie in a batch of `whole` frames: from `start` on."""

    start: int
    whole: int

    def of(self, drawn: torch.Tensor, n: int) -> torch.Tensor:
        """Of what was drawn for the batch (whole, …), that of the `n` frames here."""
        return drawn[self.start : self.start + n]


def feature_noise(z: torch.Tensor) -> torch.Tensor:
    """z + z ⊙ N, with N uniform in ±0.3, one for all frames of the batch."""
    return z + z * torch.empty_like(z[:1]).uniform_(-NOISE, NOISE)


def feature_drop(z: torch.Tensor) -> torch.Tensor:
    """Zero where the mean over channels is above a share of its maximum, drawn in 0.7 … 0.9: the most active places."""
    mean = z.mean(dim=1, keepdim=True)
    share = torch.empty(1, device=z.device).uniform_(*DROP)
    return z * (mean <= share * mean.amax(dim=(2, 3), keepdim=True))


def spatial_dropout(z: torch.Tensor, share: Share) -> torch.Tensor:
    """Half of the channels dropped whole."""
    kept = z.new_empty((share.whole, z.shape[1], 1, 1)).bernoulli_(1 - DROPOUT) / (1 - DROPOUT)
    return z * share.of(kept, len(z))


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


def guided_cutout(z: torch.Tensor, probability: torch.Tensor, share: Share) -> torch.Tensor:
    """Zero in a random box inside the box of every predicted object, 0.4 of its edges."""
    kept = torch.ones_like(z[:, :1])
    seeds = share.of(torch.randint(2**62, (share.whole,)), len(z)).tolist()
    masks = objects(z, probability)[:, 0].bool().cpu().numpy()
    for seed, mask, keep in zip(seeds, masks, kept[:, 0], strict=True):
        rng = np.random.default_rng(seed)
        for rows, columns in ndimage.find_objects(ndimage.label(mask)[0]):
            window = []
            for span in (rows, columns):
                extent = span.stop - span.start
                edge = max(1, round(ERASED * extent))
                start = span.start + int(rng.integers(extent - edge + 1))
                window.append(slice(start, start + edge))
            keep[tuple(window)] = 0
    return z * kept


def adversarial(z: torch.Tensor, decoder: Decoder, share: Share) -> torch.Tensor:
    """I-VAT: z moved by `STRENGTH` in the direction in which `decoder` departs most from its own prediction of z."""
    fixed = z.detach()
    with torch.no_grad():
        target = decoder(fixed).softmax(dim=1)
    drawn = torch.randn((share.whole, *fixed.shape[1:]), device=fixed.device)
    direction = unit(share.of(drawn, len(fixed))).requires_grad_()
    with torch.enable_grad():
        moved = decoder(fixed + REACH * direction).log_softmax(dim=1)
        divergence = F.kl_div(moved, target, reduction="batchmean")
        (gradient,) = torch.autograd.grad(divergence, direction)
    return z + STRENGTH * unit(gradient)


def unit(x: torch.Tensor) -> torch.Tensor:
    """Each frame's tensor scaled to length 1."""
    return x / x.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None, None]


PERTURBATIONS: dict[str, Callable[[torch.Tensor, torch.Tensor, Decoder, Share], torch.Tensor]] = {
    "feature_noise": lambda z, probability, decoder, share: feature_noise(z),
    "feature_drop": lambda z, probability, decoder, share: feature_drop(z),
    "spatial_dropout": lambda z, probability, decoder, share: spatial_dropout(z, share),
    "object_masking": lambda z, probability, decoder, share: object_masking(z, probability),
    "context_masking": lambda z, probability, decoder, share: context_masking(z, probability),
    "guided_cutout": lambda z, probability, decoder, share: guided_cutout(z, probability, share),
    "adversarial": lambda z, probability, decoder, share: adversarial(z, decoder, share),
}
"""By name; `decoder` is the auxiliary one, which the adversarial kind is against."""
