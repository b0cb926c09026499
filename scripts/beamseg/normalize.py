"""Normalize: uint16 slabs of a scan, a cache of what the source and the plan give."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import numpy as np

from .corrections import corrected
from .errors import InputError
from .provenance import read_json, write_json
from .readers.source import Source, task_borders
from .slabs import SlabWriter, most_bytes, parse_part, run_slabs, slab_borders
from .volumes import GREY_TYPES, normalize_block, open_scan_source, plan_entry

SCRATCH_MB = "BEAMSEG_SCRATCH_MB"  # environment variable by which the Snakefile hands on `--resources disk_mb`


def worth_materializing(source: Source, settings: dict[str, Any], is_corrected: bool) -> bool:
    """Whether to write the cache.

    `always` and `never` are plain. `auto` leaves it out only where consumers read the source as fast and can hold
    the normalized volume in memory: uncompressed 8- or 16-bit integers whose uint16 volume fits `mem_budget_mb`.
    A corrected scan always gets a cache, since a window of it costs whole slices.
    """
    choice = settings["materialize"]
    if is_corrected:
        return True
    if choice != "auto":
        return bool(choice == "always")
    fits = np.prod(source.shape, dtype=float) * 2 <= settings["mem_budget_mb"] * 2**20
    plain = not source.compressed and source.dtype.kind in "iu" and source.dtype.itemsize <= 2
    return not (fits and plain)


def scratch_mb() -> float:
    """Budget of all scans' caches together, MiB; infinite where none is set."""
    return float(os.environ.get(SCRATCH_MB, math.inf))


def cache_bytes(folder: Path) -> int:
    """What the cache of a scan takes, or will take once the job that writes it is done."""
    stored, reserved = 0, 0
    for path in folder.glob("*"):
        with contextlib.suppress(FileNotFoundError):  # released, or finished, this moment
            if path.suffix == ".reserved":
                reserved = max(reserved, read_json(path)["bytes"])
            elif path.name.startswith("slab_"):
                stored += path.stat().st_size
    return max(stored, reserved)


def scratch_left(budget_mb: float, folder: Path) -> float:
    """Bytes that the caches of the scans beside this one leave of the budget."""
    others = (other for other in folder.parents[1].glob("*/normalize") if other != folder)
    return budget_mb * 2**20 - sum(map(cache_bytes, others))


@contextlib.contextmanager
def reserved(manifest: Path, needed: int) -> Iterator[None]:
    """Let jobs of other scans count the cache of this one while it grows."""
    path = manifest.with_suffix(".reserved")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"bytes": needed})
    try:
        yield
    finally:
        path.unlink()


def normalize(
    manifest: str | Path,
    scan_json: str | Path,
    plan_json: str | Path,
    settings: dict[str, Any],
    part: str,
    identity: str,
    threads: int = 1,
) -> dict[str, Any]:
    """Write one part of the normalized volume of a scan: slab files and their manifest.

    Parameters
    ----------
    manifest : path
        `…/normalize/<part>.json`; slab files go beside it, array `grey`, uint16 or, where the plan says 8 bits, uint8.
    scan_json, plan_json : path
    settings : dict
        `normalize.materialize`, `mem_budget_mb`, and `scratch_mb`, the budget of all scans' caches together.
    part : str
        `k-of-n`.
    identity : str
        Of settings and inputs; finished slabs that bear it are kept.
    threads : int
        Dask threads that read, decode and normalize; one thread writes.

    Returns
    -------
    dict
        The manifest. Without a cache it lists no slabs and says `released`; `volumes.open_normalized` then reads
        the source. There is none either where it would not fit `scratch_mb`.

    Raises
    ------
    InputError
        If the cache does not fit the disk, or a corrected scan's does not fit `scratch_mb`.
    """
    scan = read_json(scan_json)
    source = corrected(open_scan_source(scan_json), scan)
    entry = plan_entry(read_json(plan_json), scan)
    dtypes = {"grey": GREY_TYPES[entry["bits"]]}
    needed = most_bytes(dtypes, math.prod(source.shape))
    with reserved(Path(manifest), needed):
        left = scratch_left(settings["scratch_mb"], Path(manifest).parent)
        if needed > left and scan.get("correction"):
            raise InputError(
                "--resources disk_mb",
                f"{left / 2**20:.0f} MiB left by other scans' caches, "
                f"and a corrected scan that needs {needed / 2**20:.0f}",
                "room for the cache of a corrected scan",
                "start the same command again once the others are released, or raise disk_mb",
            )
        if needed > left or not worth_materializing(source, settings, bool(scan.get("correction"))):
            return without_cache(Path(manifest), source.shape, scan["slab_depth"], part, identity, dtypes)
        reads = task_borders(source)

        def fill(z0: int, z1: int, writer: SlabWriter) -> None:
            blocks = [(max(a, z0), min(b, z1)) for a, b in reads if a < z1 and b > z0]
            for start in range(0, len(blocks), threads):
                batch = [dask.delayed(levels)(source, entry, a, b) for a, b in blocks[start : start + threads]]
                for (a, _), grey in zip(
                    blocks[start:], dask.compute(*batch, scheduler="threads", num_workers=threads), strict=False
                ):
                    writer.put("grey", a, grey)

        return run_slabs(
            manifest,
            stage="normalize",
            identity=identity,
            shape=source.shape,
            depth=scan["slab_depth"],
            dtypes=dtypes,
            fill=fill,
            part=part,
        )


def without_cache(
    manifest: Path, shape: tuple[int, int, int], depth: int, part: str, identity: str, dtypes: dict[str, np.dtype]
) -> dict[str, Any]:
    """Delete what slabs there are of a part, and write a manifest that sends readers to the source."""
    index, count = parse_part(part)
    for z0, _ in slab_borders(shape[0], depth)[index::count]:
        (manifest.parent / f"slab_{z0:06d}.h5").unlink(missing_ok=True)
    content = {
        "stage": "normalize",
        "identity": identity,
        "shape": list(shape),
        "part": part,
        "arrays": {name: np.dtype(dtype).name for name, dtype in dtypes.items()},
        "slabs": [],
        "released": True,
    }
    write_json(manifest, content)
    return content


def levels(source: Source, entry: dict[str, Any], z0: int, z1: int) -> np.ndarray:
    """Grey levels of slices z0 … z1; tiled so that the float intermediates of a tile stay in the cache."""
    raw = source.read(z0, z1)
    grey = np.empty(raw.shape, GREY_TYPES[entry["bits"]])
    rows = max(1, 2**17 // raw.shape[2])
    for z in range(len(raw)):
        for y in range(0, raw.shape[1], rows):
            grey[z : z + 1, y : y + rows] = normalize_block(raw[z : z + 1, y : y + rows], entry, y, 0)
    return grey
