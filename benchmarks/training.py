"""Steps per second of both trainings against the same network on one batch held in memory: what the data cost.

usage: python benchmarks/training.py [--size 32] [--batch 2] [--steps 6] [--pairs 3] [--files]

Each pair times `train`, then `self_correct`, and right after each the same forward and backward passes, optimizer steps
and, for `self_correct`, the teacher's and stage 2's forward passes and the teacher's average on one batch that lies
ready.
Seconds per step are the median between the batches that a stage takes, so that its beginning and its end are left out.
The share is of data, augmentation, selection of pixels and curves.
With `--files` crops are read from slab files, else the volume is held in memory, as it is where it fits the budget.
The sizes of the preset srct: --size 96 --batch 16 --slices 64 --edge 512.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from beamseg.crops import Crops
from beamseg.device import Compute, choose
from beamseg.layers import defaults
from beamseg.losses import loss_named
from beamseg.models import build_model
from beamseg.self_correct import anchored, follow, self_correct
from beamseg.slabs import SlabVolume, SlabWriter, run_slabs
from beamseg.train import train
from beamseg.volumes import ArrayVolume, Volume

SCHEMAS = Path(__file__).parents[1] / "workflow" / "schemas"
CLASSES, CHANNELS = 4, 7


def section(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """A section's defaults at the size measured; no resume state, and one row of curves."""
    settings = defaults(yaml.safe_load((SCHEMAS / f"{name}.yaml").read_text()))
    changes = {"batch": args.batch, "steps": args.steps + 2, "log_every": 10**6, "checkpoint_s": 1e9}
    if name == "train":
        changes["crop"] = args.size
    else:
        settings["watch"]["crops"] = 2
    return {**settings, **changes}


def volumes(folder: Path, args: argparse.Namespace) -> tuple[Volume, Volume]:
    """Noise about four phases, and the phases: in memory, or as the slabs of a stage."""
    rng = np.random.default_rng(0)
    phase = rng.integers(0, CLASSES, (args.slices, args.edge // 8, args.edge // 8)).repeat(8, 1).repeat(8, 2)
    grey = (8000 + 15000 * phase + rng.normal(0, 4000, phase.shape)).clip(1, 65535).astype(np.uint16)
    labels = phase.astype(np.uint8)
    if not args.files:
        return ArrayVolume(grey), ArrayVolume(labels)

    def fill(z0: int, z1: int, writer: SlabWriter) -> None:
        writer.put("grey", z0, grey[z0:z1])
        writer.put("labels", z0, labels[z0:z1])

    manifest = folder / "slabs" / "1-of-1.json"
    dtypes = {"grey": np.uint16, "labels": np.uint8}
    run_slabs(manifest, stage="made", identity="x", shape=grey.shape, depth=64, dtypes=dtypes, fill=fill)
    return SlabVolume([manifest], "grey"), SlabVolume([manifest], "labels")


def stage_seconds(stage: str, folder: Path, pair: tuple[Volume, Volume], args: argparse.Namespace) -> float:
    """Median seconds from batch to batch in one run of a stage."""
    budget = 0 if args.files else 10**6
    options: dict[str, Any] = {"seed": 0, "device": args.device, "mem_budget_mb": budget}
    taken = []
    steps_of = Crops.steps

    def timed(self: Crops, start: int, stop: int) -> Iterator[Any]:
        for batch in steps_of(self, start, stop):
            taken.append(time.perf_counter())
            yield batch

    Crops.steps = timed
    if stage == "train":
        model = {"name": args.network, "n_slices": CHANNELS, "dropout": 0.1}
        out = folder / "stage2.safetensors"
        settings = section("train", args)
        train(
            [pair[0]],
            [pair[1]],
            out,
            folder / "c.csv",
            settings=settings,
            model_settings=model,
            n_classes=CLASSES,
            **options,
        )
    else:
        files = [folder / name for name in ("stage2.safetensors", "stage3.safetensors", "c.csv", "v.json")]
        self_correct([pair[0]], *files, settings=section("self_correct", args), **options)
    Crops.steps = steps_of
    return float(np.median(np.diff(taken)[1:]))


def bare_seconds(stage: str, args: argparse.Namespace, compute: Compute) -> float:
    """Seconds per step of the same networks on one batch in memory."""
    torch.manual_seed(0)
    student = build_model(args.network, CHANNELS, CLASSES, dropout=0.1).to(compute.device).train()
    teacher, stage2 = (copy.deepcopy(student).eval().requires_grad_(False) for _ in range(2))
    settings = section(stage, args)
    loss_of = loss_named(settings, stage)
    shape = (args.batch, CHANNELS, args.size, args.size)
    images = torch.rand(shape, device=compute.device).contiguous(memory_format=torch.channels_last)
    target = torch.randint(0, CLASSES, (args.batch, args.size, args.size), device=compute.device)
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-4)
    scaler = torch.amp.GradScaler(compute.device.type, enabled=compute.autocast is torch.float16)
    taken = []
    for _ in range(args.steps + 1):
        started = time.perf_counter()
        if stage == "self_correct":
            with torch.no_grad(), compute.precision():
                logits = teacher(images)
                target = (
                    anchored(logits, stage2(images), settings["anchor"]).argmax(1) if settings["anchor"] else target
                )
        with compute.precision():
            logits = student(images)
        total, count = loss_of(logits, target)
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(total / count.clamp(min=1)).backward()
        scaler.step(optimizer)
        scaler.update()
        if stage == "self_correct":
            follow(teacher, student, settings["ema"])
        if compute.device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - started)
    return statistics.median(taken[1:])


def main() -> None:
    """Print steps per second of each stage, of the bare steps, and the median share of the rest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=32, help="edge of a crop in pixels")
    parser.add_argument("--batch", type=int, default=2, help="crops per step")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--slices", type=int, default=16)
    parser.add_argument("--edge", type=int, default=128)
    parser.add_argument("--files", action="store_true", help="crops from slab files")
    parser.add_argument("--network", default="unet_noskip")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    args = parser.parse_args()
    compute = choose(args.device)
    print(f"{compute.name}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}, {args.network}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pair = volumes(folder, args)
        for stage in ("train", "self_correct"):
            shares = []
            for _ in range(args.pairs):
                own, bare = stage_seconds(stage, folder, pair, args), bare_seconds(stage, args, compute)
                shares.append(1 - bare / own)
                print(f"{stage:13}{1 / own:8.2f} steps/s, bare {1 / bare:8.2f}, {shares[-1]:6.1%} beside", flush=True)
            print(f"{stage}: data and augmentation cost {statistics.median(shares):.1%} of a step (median)", flush=True)


if __name__ == "__main__":
    main()
