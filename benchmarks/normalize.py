"""Normalize against reading the same source and writing the same bytes with nothing between.

usage: python benchmarks/normalize.py [--slices 128] [--edge 512] [--threads 2] [--pairs 5] [--compressed]

Both read in the same blocks and threads and write the same grey levels through the same slabs; the copy takes the
levels ready-made. Runs alternate, so that a busy machine meets both; what counts is the median of the ratios, of wall
time on an idle machine and of processor time on a busy one.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np

from beamseg import normalize as stage
from beamseg.ingest import ingest
from beamseg.normalize import normalize
from beamseg.provenance import write_json

TILE = 32  # slices of noise, repeated
SETTINGS = {"materialize": "always", "scratch_mb": float("inf"), "mem_budget_mb": 4000}


def make(folder: Path, n_slices: int, edge: int, compressed: bool) -> None:
    """A float32 scan of two phases with noise, as a reconstruction leaves it."""
    rng = np.random.default_rng(0)
    phase = rng.random((TILE, edge // 16, edge // 16)).repeat(16, 1).repeat(16, 2) > 0.5
    tile = (rng.normal(0, 0.1, (TILE, *phase.shape[1:])) + phase).astype(np.float32)
    filters = dict(hdf5plugin.Blosc(cname="lz4", shuffle=hdf5plugin.Blosc.SHUFFLE)) if compressed else {}
    with h5py.File(folder / "scan.h5", "w") as file:
        shape = (n_slices, *tile.shape[1:])
        data = file.create_dataset("data", shape, np.float32, chunks=(8, *tile.shape[1:]), **filters)
        for z in range(0, n_slices, TILE):
            data[z : z + TILE] = tile[: n_slices - z]
    settings = {"fov": {"kind": "full"}, "slab_depth": 128}
    ingest(folder / "scan.h5", None, settings, folder / "scan.json", folder / "source.json", name="a")
    write_json(folder / "plan.json", {"range": [-0.3, 1.3], "bits": 16})


def seconds(folder: Path, threads: int, name: str) -> tuple[float, float]:
    """Wall and processor time of one run into a new folder."""
    started, cpu = time.monotonic(), time.process_time()
    out = folder / name / "normalize" / "1-of-1.json"
    normalize(out, folder / "scan.json", folder / "plan.json", SETTINGS, "1-of-1", name, threads)
    return time.monotonic() - started, time.process_time() - cpu


def main() -> None:
    """Print seconds of both, pair by pair, and the median ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=128)
    parser.add_argument("--edge", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--compressed", action="store_true", help="the source is compressed (blosc-lz4)")
    args = parser.parse_args()
    compute = stage.levels
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, args.slices, args.edge, args.compressed)
        source = stage.open_scan_source(folder / "scan.json")
        ready = compute(source, {"range": [-0.3, 1.3], "bits": 16, "fov": {"kind": "full"}}, 0, TILE)

        def copy(source: stage.Source, entry: dict[str, object], z0: int, z1: int) -> np.ndarray:
            source.read(z0, z1)
            return ready[z0 % TILE : z0 % TILE + z1 - z0]

        seconds(folder, args.threads, "warm")
        ratios = []
        for pair in range(args.pairs):
            stage.levels = copy
            plain = seconds(folder, args.threads, f"copy{pair}")
            stage.levels = compute
            own = seconds(folder, args.threads, f"own{pair}")
            ratios.append([a / b for a, b in zip(own, plain, strict=True)])
            print(
                f"copy {plain[0]:.2f} s ({plain[1]:.2f} s of processors), normalize {own[0]:.2f} s ({own[1]:.2f} s), "
                f"ratios {ratios[-1][0]:.2f} and {ratios[-1][1]:.2f}",
                flush=True,
            )
        digests = [
            [slab["digests"] for slab in stage.read_json(folder / run / "normalize" / "1-of-1.json")["slabs"]]
            for run in ("copy0", "own0")
        ]
        wall, processors = (statistics.median(column) for column in zip(*ratios, strict=True))
        print(f"median ratio {wall:.2f} (processors {processors:.2f}); same bytes: {digests[0] == digests[1]}")


if __name__ == "__main__":
    main()
