"""Whole-volume prediction, from slab files to written labels, against two loops.

usage: python benchmarks/prediction.py [--slices 4] [--edge 96] [--tile 32] [--pairs 3] [--overlap 0.5]

1. What a user would write: MONAI's `sliding_window_inference` per slice, float32, overlap 0.25, Gaussian weights, from
   an HDF5 file of grey levels to one of labels. Without MONAI it is left out, and said so. MONAI is no dependency; for
   the benchmark `pip install --no-deps --target FOLDER monai`, and FOLDER in PYTHONPATH.
2. A bare forward loop in the precision that `segment` takes: batches of as many tiles of random numbers in memory, as
   many tiles as `segment` needs, nothing read, blended or written.

All three run in turn, so that a busy machine meets each. `ratio` is the other's time over ours: above 1 ours is faster.
The tile is that of the training crops, `--overlap` that of the section `segment` (its default is the default here). At
size: --slices 32 --edge 512 --tile 96.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch
import yaml
from scipy.ndimage import gaussian_filter
from torch import nn

from beamseg.device import Compute, choose
from beamseg.layers import defaults
from beamseg.models import build_model, load_weights, save_weights
from beamseg.predict import TILES_PER_BATCH, tile_starts
from beamseg.segment import segment
from beamseg.slabs import SlabVolume, SlabWriter, run_slabs

try:
    from monai.inferers import sliding_window_inference
except ImportError as error:
    sliding_window_inference, MISSING = None, str(error)

SCHEMA = Path(__file__).parents[1] / "workflow" / "schemas" / "segment.yaml"
CHANNELS, CLASSES = 7, 4


def make(folder: Path, args: argparse.Namespace) -> None:
    """Grey levels of blobs as slabs and as one file, and weights of an untrained network.

    Of noise alone the labels would be noise, and gzip ten times slower than on labels of a scan.
    """
    shape = (args.slices, args.edge, args.edge)
    grey = gaussian_filter(np.random.default_rng(0).standard_normal(shape, np.float32), (2, 6, 6))
    grey = np.interp(grey, (grey.min(), grey.max()), (1, 65535)).astype(np.uint16)

    def fill(z0: int, z1: int, writer: SlabWriter) -> None:
        writer.put("grey", z0, grey[z0:z1])

    slabs = folder / "normalize" / "1-of-1.json"
    run_slabs(slabs, stage="normalize", identity="x", shape=shape, depth=128, dtypes={"grey": np.uint16}, fill=fill)
    with h5py.File(folder / "grey.h5", "w") as file:
        file.create_dataset("data", data=grey, chunks=(1, args.edge, args.edge))
    torch.manual_seed(0)
    meta = {"name": args.network, "in_channels": CHANNELS, "n_classes": CLASSES, "options": {}, "crop": args.tile}
    save_weights(folder / "w.safetensors", build_model(args.network, CHANNELS, CLASSES), meta)


def ours(folder: Path, args: argparse.Namespace, name: str) -> None:
    """The stage as a job runs it."""
    segment(
        folder / name / "1-of-1.json",
        SlabVolume([folder / "normalize" / "1-of-1.json"], "grey"),
        folder / "w.safetensors",
        settings={"overlap": args.overlap},
        slab_depth=128,
        part="1-of-1",
        identity=name,
        stage="stage2",
        device=args.device,
    )


@torch.inference_mode()
def with_monai(folder: Path, args: argparse.Namespace, model: nn.Module, compute: Compute) -> None:
    """The loop of a user of MONAI: a slice with its neighbours, sliding windows, argmax, a compressed file."""
    half = CHANNELS // 2
    with h5py.File(folder / "grey.h5") as source, h5py.File(folder / "monai.h5", "w") as out:
        data = source["data"]
        labels = out.create_dataset("labels", data.shape, np.uint8, chunks=(1, *data.shape[1:]), compression="gzip")
        for z in range(len(data)):
            stack = data[max(0, z - half) : z + half + 1].astype(np.float32) / 65535
            low, high = max(0, half - z), max(0, z + half + 1 - len(data))
            image = torch.from_numpy(np.pad(stack, ((low, high), (0, 0), (0, 0)), mode="edge"))[None].to(compute.device)
            size = (args.tile, args.tile)
            logits = sliding_window_inference(image, size, TILES_PER_BATCH, model, overlap=0.25, mode="gaussian")
            labels[z] = logits.argmax(1)[0].to(torch.uint8).cpu().numpy()


@torch.inference_mode()
def bare(args: argparse.Namespace, model: nn.Module, compute: Compute) -> None:
    """Forward passes alone, over as many tiles as `segment` cuts."""
    tiles = len(tile_starts(args.edge, args.tile, args.overlap)) ** 2
    sizes = [min(TILES_PER_BATCH, tiles - first) for first in range(0, tiles, TILES_PER_BATCH)]
    most = torch.rand(sizes[0], CHANNELS, args.tile, args.tile, device=compute.device)
    most = most.contiguous(memory_format=torch.channels_last)
    for _ in range(args.slices):
        for n in sizes:
            with compute.precision():
                model(most[:n])


def seconds(work: Callable[[], None], compute: Compute) -> float:
    """Wall time, to the end of what the device does."""
    started = time.perf_counter()
    work()
    if compute.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    """Print seconds of all, round by round, and the median ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=4)
    parser.add_argument("--edge", type=int, default=96)
    parser.add_argument("--tile", type=int, default=32)
    parser.add_argument("--overlap", type=float, default=defaults(yaml.safe_load(SCHEMA.read_text()))["overlap"])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--network", default="unet_noskip")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    args = parser.parse_args()
    compute = choose(args.device)
    voxels = args.slices * args.edge**2
    about = f"{args.network}, {voxels:,} voxels, overlap {args.overlap}"
    print(f"{compute.name}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}, {about}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, args)
        model, _ = load_weights(folder / "w.safetensors", compute.device)
        work: dict[str, Callable[[], None]] = {"bare": lambda: bare(args, model, compute)}
        if sliding_window_inference is None:
            print(f"no comparison with MONAI: {MISSING}")
        else:
            work["monai"] = lambda: with_monai(folder, args, model, compute)
        for other in work.values():
            other()
        ours(folder, args, "warm")
        ratios: dict[str, list[float]] = {key: [] for key in work}
        for pair in range(args.pairs):
            own = seconds(lambda number=pair: ours(folder, args, f"own{number}"), compute)
            print(f"segment {own:.2f} s ({voxels / own:,.0f} voxels/s)", end="")
            for key, other in work.items():
                taken = seconds(other, compute)
                ratios[key].append(taken / own)
                print(f", {key} {taken:.2f} s (ratio {ratios[key][-1]:.2f})", end="")
            print(flush=True)
        print("median ratio:", ", ".join(f"{key} {statistics.median(found):.2f}" for key, found in ratios.items()))


if __name__ == "__main__":
    main()
