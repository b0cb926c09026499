"""How often a voxel of each phase bears the label of each cluster, as stage 2 corrects for it while it learns.

The histogram alone knows of noise, and neither of the rims of phases, where a voxel holds two of them, nor of drift:
of the boundary of a phantom crystal it takes 93 % for rightly labelled, where 58 % are. What a network predicts that
has seen the surroundings of voxels knows of both, long before it has learned single mistakes by heart.
"""

from __future__ import annotations

import numpy as np
import torch

from .losses import labelled

CORRECTED_FROM = 0.5
"""Share of the steps until which the correction of labels grows from nothing to whole. At once, a rare phase whose
labels its neighbours' mistakes explain gets no gradient, and may never be found."""
COUNTED = 0.07
"""Share of the steps that counts go back: 48 of 680, a few million pixels."""


class Transition:
    """The transition matrix of every step: first by the histogram, then by the network's own predictions.

    Over the first half of the steps it goes in a straight line from the identity to the histogram's. From then on it is
    the labels of the voxels that the network takes for each phase (the M-step of an EM that takes the likeliest phase
    for the only one; Goldberger and Ben-Reuven 2017 learn such a matrix too).

    Parameters
    ----------
    of_histogram : ndarray, float, (n_classes, n_classes)
        From `clusters.transition_matrix`; rows are phases, and sum to 1.
    steps : int
        Of the training.
    device : torch.device
    """

    def __init__(self, of_histogram: np.ndarray, steps: int, device: torch.device) -> None:
        self.of_histogram = torch.from_numpy(of_histogram).to(device, torch.float64)
        self.steps = steps
        self.kept = 1 - 1 / max(1.0, COUNTED * steps)
        self.counts = torch.zeros_like(self.of_histogram)

    def at(self, step: int) -> torch.Tensor:
        """The matrix of a step, float32 (n_classes, n_classes)."""
        share = step / (CORRECTED_FROM * self.steps)
        if share < 1:
            return torch.lerp(torch.eye(len(self.counts)).to(self.of_histogram), self.of_histogram, share).float()
        return self.measured().float()

    def measured(self) -> torch.Tensor:
        """What was counted, as rows that sum to 1, float64; of a phase that is nowhere, the row of the histogram."""
        voxels = self.counts.sum(1, keepdim=True)
        return torch.where(voxels >= 1, self.counts / voxels.clamp(min=1), self.of_histogram)

    def add(self, pairs: torch.Tensor) -> None:
        """Count a step, by `label_pairs` of the whole batch."""
        self.counts = self.kept * self.counts + pairs


def label_pairs(predicted: torch.Tensor, target: torch.Tensor, n_classes: int) -> torch.Tensor:
    """Labelled pixels by predicted class (rows) and by label, float64 (n_classes, n_classes)."""
    valid = labelled(target)
    pairs = predicted[valid].long() * n_classes + target[valid].long()
    return torch.bincount(pairs, minlength=n_classes**2).view(n_classes, n_classes).double()
