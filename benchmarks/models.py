"""Parameters, multiply-adds and training speed of every network, on one batch in memory.

usage: python benchmarks/models.py [--size 96] [--batch 16] [--steps 10] [--channels 7] [--classes 4] [NAME ...]

A step is forward, cross-entropy, backward and Adam, in the precision that training takes on the device; the first is
not counted, the median of the others is. Defaults are tiny; the sizes shown are those of the preset srct. Multiply-adds
are of convolutions and matrix products, per crop, forward.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from beamseg.device import Compute, choose
from beamseg.losses import cross_entropy
from beamseg.models import MODELS, REFERENCE_MODELS, build_model


def n_parameters(name: str, channels: int, classes: int) -> int:
    """Trainable parameters."""
    with torch.device("meta"):
        return sum(p.numel() for p in build_model(name, channels, classes).parameters())


def multiply_adds(name: str, channels: int, classes: int, size: int) -> int:
    """Multiply-adds of one forward pass over (channels, size, size), counted without computing any."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        build_model(name, channels, classes).eval()(torch.empty(1, channels, size, size))
    return counter.get_total_flops() // 2


def seconds_per_step(name: str, shape: tuple[int, int, int, int], classes: int, steps: int, compute: Compute) -> float:
    """Median over `steps` training steps on one batch of `shape` (n, c, y, x)."""
    torch.manual_seed(0)
    model = build_model(name, shape[1], classes).to(compute.device).train()
    images = torch.rand(shape, device=compute.device).contiguous(memory_format=torch.channels_last)
    target = torch.randint(0, classes, (shape[0], *shape[2:]), device=compute.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    taken = []
    for _ in range(steps + 1):
        started = time.perf_counter()
        with compute.precision():
            logits = model(images)
        total, count = cross_entropy(logits, target)
        optimizer.zero_grad(set_to_none=True)
        (total / count).backward()
        optimizer.step()
        float(total.detach())
        if compute.device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:])


def main() -> None:
    """Print a row per network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="networks; all by default")
    parser.add_argument("--size", type=int, default=32, help="edge of a crop in pixels")
    parser.add_argument("--batch", type=int, default=2, help="crops per step")
    parser.add_argument("--steps", type=int, default=3, help="steps measured")
    parser.add_argument("--channels", type=int, default=7, help="slices that a network sees")
    parser.add_argument("--classes", type=int, default=4)
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    options = parser.parse_args()
    known = MODELS | REFERENCE_MODELS
    if unknown := set(options.names) - set(known):
        parser.error(f"no such network: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    compute = choose(options.device)
    shape = (options.batch, options.channels, options.size, options.size)
    print(f"{compute.name}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}, batch {shape}")
    print(f"{'network':26}{'parameters':>12}{'multiply-adds':>16}{'steps / s':>12}{'crops / s':>12}")
    for name in options.names or known:
        seconds = seconds_per_step(name, shape, options.classes, options.steps, compute)
        products = multiply_adds(name, options.channels, options.classes, options.size)
        print(
            f"{name:26}{n_parameters(name, options.channels, options.classes):12,}{products / 1e6:14,.0f} M"
            f"{1 / seconds:12.2f}{options.batch / seconds:12.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
