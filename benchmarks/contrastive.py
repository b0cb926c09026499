"""Seconds and memory of a training step with contrastive losses, by edge of the crop and by pixels sampled.

usage: python benchmarks/contrastive.py [--size 1024] [--batch 1] [--pixels 1024 4096] [--steps 3] [--model unet]

A step is both views forward, both losses, backward and Adam, as `train` takes it, with the network of the preset
pixels; the first is not counted, the median of the others is. Memory is the peak on the device: PyTorch's own
count on a GPU; on a CPU the growth of the process's peak, so that sizes are measured in rising order. Over all pixels
of a slice of 1024² the matrix of equation 6 alone would take 4 TiB.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from beamseg.device import Compute, choose
from beamseg.layers import defaults
from beamseg.models import Embedded, build_model
from beamseg.train_contrastive import contrast

SCHEMA = Path(__file__).parents[1] / "workflow" / "schemas" / "train.yaml"
WIDTHS = {"unet": {"widths": [16, 32, 64, 128]}}


def peak_mb(compute: Compute) -> float:
    """Peak memory so far, MiB."""
    if compute.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(
    name: str, size: int, batch: int, settings: dict[str, Any], steps: int, compute: Compute
) -> tuple[float, float]:
    """Median seconds and peak MiB of a step on `batch` crops of `size`², of which a hundredth is painted."""
    torch.manual_seed(0)
    model = build_model(name, 1, 2, embedding=settings["embedding"], dropout=0.0, **WIDTHS.get(name, {}))
    model = model.to(compute.device).train()
    assert isinstance(model, Embedded)
    rng = np.random.default_rng(0)
    painted = np.where(rng.random((batch, size, size)) < 0.01, rng.integers(0, 2, (batch, size, size)), 255)
    target = torch.from_numpy(painted.astype(np.uint8)).to(compute.device)
    images = torch.rand(batch, 1, size, size, device=compute.device).contiguous(memory_format=torch.channels_last)
    inside = torch.ones_like(images, dtype=torch.bool)
    optimizer = torch.optim.Adam(model.body.parameters(), lr=1e-3)
    taken, before = [], peak_mb(compute)
    for step in range(steps + 1):
        started = time.perf_counter()
        parts = contrast(model.body, images, inside, target, settings, 0, step, compute)
        optimizer.zero_grad(set_to_none=True)
        sum(total / count for total, count in parts.values()).backward()
        optimizer.step()
        if compute.device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    used = peak_mb(compute)
    return statistics.median(taken[1:]), used if compute.device.type == "cuda" else used - before


def main() -> None:
    """Print a row per size and sample."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs="+", default=[1024], help="edges of the crop in pixels")
    parser.add_argument("--batch", type=int, default=1, help="crops per step")
    parser.add_argument("--pixels", type=int, nargs="+", default=[1024], help="pixels sampled per crop")
    parser.add_argument("--steps", type=int, default=3, help="steps measured")
    parser.add_argument("--model", default="unet", help="a network of Table I of the SR-CT paper")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    options = parser.parse_args()
    compute = choose(options.device)
    settings = defaults(yaml.safe_load(SCHEMA.read_text()))["contrastive"]
    print(f"{compute.name}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}, {options.model}")
    print(f"{'crop':>6}{'batch':>7}{'pixels':>8}{'s / step':>10}{'peak MiB':>10}")
    for size in sorted(options.size):
        for pixels in sorted(options.pixels):
            if compute.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            asked = {**settings, "pixels": pixels}
            seconds, mb = measure(options.model, size, options.batch, asked, options.steps, compute)
            print(f"{size:6}{options.batch:7}{pixels:8}{seconds:10.3f}{mb:10.0f}", flush=True)


if __name__ == "__main__":
    main()
