"""Contrastive losses over embeddings of pixels, and which pixels they compare.

Few-pixel paper: Li et al. 2023, *Toward Few Pixel Annotations for 3D Segmentation of Material from Electron
Tomography*. As in `losses`, a loss is a sum and a count. The text of the paper that we have lost every minus sign;
both losses are minimized, so they are those of equations 4 and 6 with a minus before the logarithm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from .crops import keyed_rng
from .label_values import UNLABELLED
from .losses import Result

FORMS = ("paper", "usual")


def supervised(
    anchors: torch.Tensor,
    positives: torch.Tensor,
    negatives: torch.Tensor,
    temperature: float = 1.0,
    form: str = "paper",
) -> Result:
    """Labelled pixels near those of their class and far from the others (few-pixel paper, equation 4).

    Parameters
    ----------
    anchors : Tensor, float32, (n, d)
        Embeddings z_i of labelled pixels.
    positives, negatives : Tensor, float32, (n, p, d) and (n, q, d)
        Embeddings of the partners of each; P_i is both together.
    temperature : float
        Divides the cosine; the paper has none, which is 1.
    form : str
        paper: the sum over positives is divided by N_P = p + q, as printed. usual: by p (Khosla et al. 2020).

    Returns
    -------
    sum, count : Tensor
        Over the anchors, of −1/N_P Σ_{j ∈ P⁺} log( exp s_ij / Σ_{k ∈ P} exp s_ik ), s the cosine; and n.
    """
    partners = torch.cat([positives, negatives], dim=1)
    cosine = F.cosine_similarity(anchors[:, None].float(), partners.float(), dim=-1) / temperature
    wanted = cosine.log_softmax(dim=1)[:, : positives.shape[1]].sum(1)
    divisor = partners.shape[1] if form == "paper" else positives.shape[1]
    return -wanted.sum() / divisor, torch.tensor(len(anchors), device=anchors.device)


def self_supervised(
    embedded: torch.Tensor, transformed: torch.Tensor, temperature: float = 1.0, form: str = "paper"
) -> Result:
    """Each pixel near its transformed self and far from the other pixels of its slice (few-pixel paper, equation 6).

    Parameters
    ----------
    embedded, transformed : Tensor, float32, (n, s, d)
        Embeddings z and z̃ of the same s pixels (two or more) in each of n slices, before and after the transformation.
    temperature : float
    form : str
        paper: the denominator is over the other pixels j ≠ i of the untransformed slice and leaves out the pair
        itself, as printed. usual: over the pair, and the other pixels of both views (Chen et al. 2020).

    Returns
    -------
    sum, count : Tensor
        Over the pixels, of −log( exp s(z_i, z̃_i) / Σ_{j ≠ i} exp s(z_i, z_j) ), s the cosine; and n s.

    Notes
    -----
    Over a random sample of the pixels the denominator is smaller by a factor that does not depend on the network, so
    the gradient is an estimate of that over all pixels, and memory is n s² in place of n (y x)².
    """
    z = F.normalize(embedded.float(), dim=-1)
    changed = F.normalize(transformed.float(), dim=-1)
    pair = (z * changed).sum(-1) / temperature
    itself = torch.eye(z.shape[1], dtype=torch.bool, device=z.device)
    others = (z @ z.mT / temperature).masked_fill(itself, -math.inf)
    if form == "usual":
        others = torch.cat([others, z @ changed.mT / temperature], dim=-1)
    return (others.logsumexp(-1) - pair).sum(), torch.tensor(pair.numel(), device=z.device)


def draw_partners(
    labels: np.ndarray,
    anchors: int,
    partners: int,
    rng: np.random.Generator,
    how: str = "balanced",
    source: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Anchors among labelled pixels, and for each as many partners of its class as of others (equations 2, 3).

    Parameters
    ----------
    labels : ndarray, uint8
        Of any shape; 255 is unlabelled. Indices are into its flat form.
    anchors : int
        At most so many; all labelled pixels that have a partner of either kind, if they are fewer.
    partners : int
        N_P, half of each kind; drawn with replacement, never the anchor itself.
    how : str
        balanced: of each class as many anchors, as far as it has them, and every other class as likely among the
        partners, so that a rare class is told from the others too. uniform: each pixel as likely, as in the paper.
    source : ndarray of int, optional
        Of the shape of `labels`, which pixel of the scan each is: crops overlap, and no anchor's partner is the pixel
        that it is itself.

    Returns
    -------
    anchors (n,), positives (n, N_P / 2), negatives (n, N_P / 2) : ndarray of int
        Empty where one class alone is painted.
    """
    flat = labels.ravel()
    painted = np.flatnonzero(flat != UNLABELLED)
    pixels = painted[np.argsort(flat[painted], kind="stable")]
    classes, first, count = np.unique(flat[pixels], return_index=True, return_counts=True)
    which = np.repeat(np.arange(len(classes)), count)
    origin = np.arange(len(pixels)) if source is None else source.ravel()[pixels]
    several = [np.ptp(origin[a : a + n]) > 0 for a, n in zip(first, count, strict=True)]
    able = np.flatnonzero(np.array(several)[which]) if len(classes) > 1 else painted[:0]
    if how == "balanced":
        # Of a random order within each class the first, then the second …: as many of each, as far as it has them.
        order = able[np.lexsort((rng.random(len(able)), which[able]))]
        turn = np.arange(len(order)) - np.searchsorted(which[order], which[order])
        chosen = np.sort(order[np.argsort(turn, kind="stable")[:anchors]])
    else:
        chosen = np.sort(rng.permutation(able)[:anchors])
    own = which[chosen][:, None]
    shape = (len(chosen), partners // 2)
    # A class is a run of `pixels`: its other members are steps around the run.
    step = 1 + (rng.random(shape) * (count[own] - 1)).astype(np.intp)
    same = first[own] + (chosen[:, None] - first[own] + step) % np.maximum(count[own], 1)
    while len(again := np.argwhere(origin[same] == origin[chosen][:, None])):
        of = own[again[:, 0], 0]
        same[*again.T] = first[of] + (rng.random(len(again)) * count[of]).astype(np.intp)
    if how == "uniform":
        # All that lies beside the run of the anchor's class.
        beside = (rng.random(shape) * (len(pixels) - count[own])).astype(np.intp)
        return pixels[chosen], pixels[same], pixels[np.where(beside < first[own], beside, beside + count[own])]
    other = (rng.random(shape) * (len(classes) - 1)).astype(np.intp)
    other += other >= own
    beside = first[other] + (rng.random(shape) * count[other]).astype(np.intp)
    return pixels[chosen], pixels[same], pixels[beside]


def at(embedded: torch.Tensor, pixels: np.ndarray) -> torch.Tensor:
    """Embeddings (…, d) of pixels, given as indices into the flat (n, y, x), of (n, d, y, x)."""
    rows = embedded.permute(0, 2, 3, 1).reshape(-1, embedded.shape[1])
    return rows[torch.from_numpy(pixels).to(rows.device)]


def draw_pixels(inside: np.ndarray, sample: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Pixels of each slice, `sample` or all that it has, as indices into the flat `inside` (n, y, x).

    Drawn from where `inside` is True, without replacement. Slices of which as many are drawn share an array (m, s), so
    that those with enough, as most are, are computed at once; slices of fewer than two pixels are left out.
    """
    places = [np.flatnonzero(plane) for plane in inside.reshape(len(inside), -1)]
    places = [place + i * inside[0].size for i, place in enumerate(places) if len(place) > 1]
    drawn = [rng.choice(place, min(sample, len(place)), replace=False) for place in places]
    return [np.stack([own for own in drawn if len(own) == size]) for size in sorted({len(own) for own in drawn})]


def moved(pixels: np.ndarray, move: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Where pixels of images (n, y, x) lie, indices into the flat form, once the images are rolled by `move` (y, x).

    A network with strides tells pixels apart by their place in its grid: without a move equation 6 teaches it nothing
    else, and its embeddings are a pattern of stripes.
    """
    height, width = shape
    image, place = np.divmod(pixels, height * width)
    y, x = np.divmod(place, width)
    return (image * height + (y + move[0]) % height) * width + (x + move[1]) % width


def draw_transform(seed: int, step: int, batch: int, settings: dict[str, list[float] | float]) -> dict[str, np.ndarray]:
    """Parameters of the paper's random transformation per crop (its Table 1): noise, shift and blur, each (batch,).

    `settings`: `noise` [least, most] σ of Gaussian noise, always; `shift` half-width of the shift of grey levels and
    `blur` [least, most] σ in pixels of a Gaussian blur, each with `probability`. Grey levels are 0 … 1.
    """
    noise, blur = (list(np.atleast_1d(settings[key])) for key in ("noise", "blur"))
    drawn = np.empty((batch, 3))
    for index in range(batch):
        rng = keyed_rng(seed, "strong", step, index)
        used = rng.random(2) < settings["probability"]
        u = rng.random(3)
        drawn[index] = (
            noise[0] + u[0] * (noise[1] - noise[0]),
            settings["shift"] * (2.0 * u[1] - 1.0) * used[0],
            (blur[0] + u[2] * (blur[1] - blur[0])) * used[1],
        )
    return dict(zip(("noise", "shift", "blur"), drawn.T, strict=True))


def transform(
    images: torch.Tensor, inside: torch.Tensor, drawn: dict[str, np.ndarray], generator: torch.Generator
) -> torch.Tensor:
    """Transformed view of images (n, c, y, x) in 0 … 1, in the order of the paper's Table 1; the outside stays 0.

    Nothing moves: pixel i of the result is pixel i of the image. Values may leave 0 … 1. `inside`, bool (n, c, y, x),
    is the field of view; a blur takes the mean of what lies in it alone, so that its edge does not darken.
    """

    def column(name: str) -> torch.Tensor:
        return torch.as_tensor(drawn[name], dtype=torch.float32, device=images.device)[:, None, None, None]

    noise = torch.randn(images.shape, generator=generator, device=generator.device).to(images.device)
    out = images + column("noise") * noise + column("shift")
    chosen = np.flatnonzero(drawn["blur"])
    if len(chosen):
        index = torch.as_tensor(chosen, device=images.device)
        within = inside[index].to(out.dtype)
        both = blurred(torch.cat([out[index] * within, within], dim=1), column("blur")[index, 0, 0, 0])
        total, weight = both.chunk(2, dim=1)
        out[index] = total / weight.clamp(min=1e-6)  # 0 far outside
    return out * inside


def blurred(images: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Images (n, c, y, x), each under a Gaussian of its own σ > 0 in pixels (n,); the border is repeated."""
    n, c, height, width = images.shape
    radius = math.ceil(3.0 * float(sigma.max()))
    distance = torch.arange(-radius, radius + 1, device=images.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (distance / sigma[:, None]) ** 2)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(c, 0)[:, None]
    flat = F.pad(images.reshape(1, n * c, height, width), (radius,) * 4, mode="replicate")
    flat = F.conv2d(F.conv2d(flat, kernel[..., None], groups=n * c), kernel[:, :, None], groups=n * c)
    return flat.reshape(n, c, height, width)
