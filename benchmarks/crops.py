"""Random 2.5-D crops per second from the cache, beside an uncompressed memmap and a sharded Zarr.

usage: python benchmarks/crops.py [--slices 256] [--edge 1024] [--crops 300] [--wide 6144]

The same uint16 volume (two phases with noise, so that it compresses as a scan does) lies in all three; crops are
7×256×256, at the same random places, one reader at a time, round by round. Nothing is held in memory but what the
system caches, which serves all alike. A second table: whole slices of `--wide`² compressed in one chunk each, as some
reconstructions write them, against the cache of the same volume.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import zarr

from beamseg.slabs import SlabVolume, SlabWriter, run_slabs

DEPTH, CROP = 7, 256
Read = Callable[[int, int, int], np.ndarray]


def block(z0: int, z1: int, edge: int) -> np.ndarray:
    """Slices z0 … z1 of the volume, uint16."""
    planes = []
    for z in range(z0, z1):
        rng = np.random.default_rng(z)
        phase = np.random.default_rng(z // 16).random((edge // 32, edge // 32)).repeat(32, 0).repeat(32, 1) > 0.5
        planes.append(rng.normal(20_000 + 20_000 * phase, 3_000).clip(1, 65_535).astype(np.uint16))
    return np.stack(planes)


def cached(folder: Path, shape: tuple[int, int, int]) -> SlabVolume:
    """The volume as the slabs of `normalize`."""

    def fill(z0: int, z1: int, writer: SlabWriter) -> None:
        for z in range(z0, z1, 8):
            writer.put("grey", z, block(z, min(z + 8, z1), shape[1]))

    manifest = folder / "slabs" / "1-of-1.json"
    run_slabs(manifest, stage="normalize", identity="b", shape=shape, depth=128, dtypes={"grey": np.uint16}, fill=fill)
    return SlabVolume([manifest], "grey")


def window(z: int, y: int, x: int) -> tuple[slice, slice, slice]:
    """The crop that starts at (z, y, x)."""
    return slice(z, z + DEPTH), slice(y, y + CROP), slice(x, x + CROP)


def compare(readers: dict[str, Read], shape: tuple[int, int, int], crops: int, rounds: int = 3) -> None:
    """Print crops per second of each reader and the first one's ratio to it: medians over the rounds."""
    rng = np.random.default_rng(1)
    most = [n - c + 1 for n, c in zip(shape, (DEPTH, CROP, CROP), strict=True)]
    places = [tuple(map(int, rng.integers(most))) for _ in range(crops)]
    rates: dict[str, list[float]] = {name: [] for name in readers}
    expected = [read(*places[0]) for read in readers.values()]
    assert all(np.array_equal(expected[0], other) for other in expected[1:])
    for _ in range(rounds):
        for name, read in readers.items():
            started = time.perf_counter()
            for place in places:
                read(*place)
            rates[name].append(crops / (time.perf_counter() - started))
    first = next(iter(readers))
    for name, found in rates.items():
        ratio = statistics.median(a / b for a, b in zip(rates[first], found, strict=True))
        print(f"{name:42} {statistics.median(found):8.1f} crops/s   {first} is {ratio:6.2f} ×")


def main() -> None:
    """Both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slices", type=int, default=256)
    parser.add_argument("--edge", type=int, default=1024)
    parser.add_argument("--crops", type=int, default=300)
    parser.add_argument("--wide", type=int, default=6144)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, shape = Path(name), (args.slices, args.edge, args.edge)
        slabs = cached(folder, shape)
        flat = np.memmap(folder / "flat.raw", np.uint16, "w+", shape=shape)
        shards = (min(128, args.slices), min(512, args.edge), min(512, args.edge))
        array = zarr.create_array(
            folder / "z.zarr", shape=shape, dtype="uint16", chunks=(8, 256, 256), shards=shards, compressors="auto"
        )
        for z in range(0, args.slices, shards[0]):
            flat[z : z + shards[0]] = array[z : z + shards[0]] = slabs.read(z, z + shards[0])
        flat.flush()
        readers: dict[str, Read] = {
            "cache": lambda z, y, x: slabs.read(z, z + DEPTH, slice(y, y + CROP), slice(x, x + CROP)),
            "memmap, uncompressed": lambda z, y, x: np.array(flat[window(z, y, x)]),
            "Zarr, sharded (zstd)": lambda z, y, x: np.asarray(array[window(z, y, x)]),
        }
        print(f"{args.slices}×{args.edge}², crops of {DEPTH}×{CROP}²")
        compare(readers, shape, args.crops)
    with tempfile.TemporaryDirectory() as name:
        folder, shape = Path(name), (16, args.wide, args.wide)
        wide = cached(folder, shape)
        with h5py.File(folder / "wide.h5", "w") as file:
            filters = dict(hdf5plugin.Blosc(cname="lz4", shuffle=hdf5plugin.Blosc.BITSHUFFLE))
            data = file.create_dataset("data", shape, np.uint16, chunks=(1, *shape[1:]), **filters)
            for z in range(shape[0]):
                data[z] = wide.read(z, z + 1)[0]
        with h5py.File(folder / "wide.h5") as file:
            whole = file["data"]
            readers = {
                "cache": lambda z, y, x: wide.read(z, z + DEPTH, slice(y, y + CROP), slice(x, x + CROP)),
                f"chunks of whole slices, {args.wide}²": lambda z, y, x: whole[window(z, y, x)],
            }
            print(f"{shape[0]}×{args.wide}², crops of {DEPTH}×{CROP}²")
            compare(readers, shape, max(4, args.crops // 20))


if __name__ == "__main__":
    main()
