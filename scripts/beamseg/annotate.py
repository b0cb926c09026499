"""annotate: choose regions worth painting, export them, and say how the painted ones come back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from .annotations import FOLDER, PAINTED, REGIONS, Round, check_reading, reading, rounds
from .config import Run, load_runs
from .corrections import fov_of
from .errors import InputError
from .fov import fov_mask
from .label_values import UNLABELLED
from .opened import open_sample
from .provenance import atomic_path, read_json, write_json
from .runs import Runs
from .slabs import SlabVolume
from .volumes import Volume

LOOKS = 32
"""Slices that regions are looked for in, evenly spaced."""
LEAST = 16
"""Pixels that a region's edge has at least."""
TEXTURE = (1, 2, 4, 8)
"""Distances in pixels of the differences that tell textures apart."""


def describe(tile: np.ndarray) -> np.ndarray:
    """What a region looks like, float (13,): nine quantiles of its grey, and its spread at the distances TEXTURE.

    Parameters
    ----------
    tile : ndarray, float, (y, x)
        Grey levels 0 … 1, NaN outside the field of view. Where it is too thin for a distance, its spread there is 0.
    """
    levels = np.nanquantile(tile, np.linspace(0.02, 0.98, 9))
    apart = [np.abs(tile[step:, step:] - tile[:-step, :-step]) for step in TEXTURE]
    rough = [float(np.nanmean(d)) if np.isfinite(d).any() else 0.0 for d in apart]
    return np.concatenate([levels, rough])


def most_different(
    features: np.ndarray,
    count: int,
    weight: np.ndarray | None = None,
    clash: Callable[[int, int], bool] = lambda a, b: False,
) -> list[int]:
    """Indices of the items that differ most from each other, the most telling first.

    Parameters
    ----------
    features : ndarray, (n, f)
        Standardized here.
    count : int
        At most so many.
    weight : ndarray, (n,), optional
        How much an item is worth by itself, 0 or more (its uncertainty, say).
    clash : function, optional
        Of two indices: whether only one of them may be chosen.

    Notes
    -----
    Farthest first (Gonzalez 1985): the item nearest the mean, or of greatest weight, then again and again the one with
    the greatest distance to those chosen, times its weight. Items that `clash` with a chosen one are passed over.
    """
    spread = features.std(axis=0)
    scaled = (features - features.mean(axis=0)) / np.where(spread > 0, spread, 1)
    value = np.ones(len(features)) if weight is None else weight
    first = int(np.argmin(np.linalg.norm(scaled, axis=1))) if weight is None else int(np.argmax(value))
    chosen = [first]
    distance = np.linalg.norm(scaled - scaled[first], axis=1)
    free = np.ones(len(features), bool)
    while len(chosen) < count:
        free &= [not (i == chosen[-1] or clash(i, chosen[-1])) for i in range(len(features))]
        if not free.any():
            break
        chosen.append(int(np.argmax(np.where(free, distance * value, -1))))
        distance = np.minimum(distance, np.linalg.norm(scaled - scaled[chosen[-1]], axis=1))
    return chosen


def starts(extent: int, size: int) -> list[int]:
    """First pixels of regions that together cover the extent, evenly spread; they overlap where it is no multiple."""
    last = extent - size
    return np.linspace(0, last, 1 + -(-last // size)).round().astype(int).tolist()


def predicted(run: Run, runs: dict[str, Run], results: Path) -> tuple[Volume, Volume] | None:
    """Labels of a run's product and the confidence of its network; None before there are any."""
    metrics = results / run.name / "metrics.json"
    if not metrics.exists():
        return None
    found, graph = read_json(metrics), Runs(runs)
    stage = found["product"]["stage"]
    network = "stage3" if (found.get("verdict") or {}).get("use") == "stage3" else "stage2"
    folders = {
        "stage2": ("segment_stage2", "segment/stage2"),
        "stage3": ("segment_stage3", "segment/stage3"),
        "mpp": ("refine_mpp", "refine_mpp"),
        "scm": ("refine_scm", "refine_scm"),
    }

    def manifests(name: str) -> list[Path]:
        rule, folder = folders[name]
        return sorted((results / graph.owner(rule, run.name) / folder).glob("*-of-*.json"))

    if stage not in folders or not manifests(stage) or not manifests(network):
        return None
    return SlabVolume(manifests(stage), "labels"), SlabVolume(manifests(network), "confidence")


def candidates(
    source: Any, fov: dict[str, Any], size: tuple[int, int], taken: list[Round], confidence: Volume | None
) -> tuple[list[tuple[int, int, int]], np.ndarray, np.ndarray, tuple[float, float]]:
    """Corners of regions, their descriptions, their uncertainty 0 … 1, and the grey range p0.1 … p99.9.

    Regions overlap no earlier one's, and lie in the field of view by half at least, or as far as any does; half of
    what lies there has finite grey levels.
    """
    depth, height, width = source.shape
    looks = sorted({int((i + 0.5) * depth / min(LOOKS, depth)) for i in range(min(LOOKS, depth))})
    inside = fov_mask(fov, 0, height, 0, width)
    inside = np.ones((height, width), bool) if inside is None else inside
    rows, columns = (starts(extent, edge) for extent, edge in zip((height, width), size, strict=True))
    tiles = [(y, x) for y in rows for x in columns]
    share = {(y, x): inside[y : y + size[0], x : x + size[1]].mean() for y, x in tiles}
    tiles = [tile for tile in tiles if share[tile] >= min(0.5, max(share.values()))]
    sample = [source.read(z, z + 1)[0][inside] for z in looks[:: max(1, len(looks) // 8)]]
    levels = np.concatenate([s.astype(np.float32) for s in sample])
    levels = levels[np.isfinite(levels)]
    if not levels.size:
        return [], np.empty((0, 0)), np.empty(0), (0.0, 1.0)
    low, high = (float(v) for v in np.percentile(levels, (0.1, 99.9)))
    corners, features, unsure = [], [], []
    for z in looks:
        grey = (source.read(z, z + 1)[0].astype(np.float32) - low) / max(high - low, 1e-12)
        grey[~(inside & np.isfinite(grey))] = np.nan
        trust = None if confidence is None else confidence.read(z, z + 1)[0]
        for y, x in tiles:
            if any(_overlap((z, y, x), size, corner, own.size) for own in taken for corner in own.corners):
                continue
            window = np.s_[y : y + size[0], x : x + size[1]]
            if 2 * np.isfinite(grey[window]).sum() < max(1, inside[window].sum()):
                continue
            corners.append((z, y, x))
            features.append(describe(grey[window]))
            unsure.append(1.0 if trust is None else 1.0 - float(trust[window][inside[window]].mean()) / 255)
    return corners, np.array(features), np.array(unsure), (low, high)


def _overlap(a: tuple[int, int, int], size: tuple[int, int], b: tuple[int, int, int], other: tuple[int, int]) -> bool:
    return (
        a[0] == b[0]
        and a[1] < b[1] + other[0]
        and b[1] < a[1] + size[0]
        and a[2] < b[2] + other[1]
        and b[2] < a[2] + size[1]
    )


def annotate(workdir: Path, basedir: Path, sample: str, count: int, size: int) -> Path:
    """Export regions of a sample for painting; the folder of the round.

    Before a run these are the regions that differ most; after one, those that are uncertain and differ, with the labels
    of the product to correct.

    Raises
    ------
    InputError
        For an unknown sample or a missing scan, a size or count below 1, or if no region is left.
    """
    for option, value, least in (("--count", count, 1), ("--size", size, LEAST)):
        if value < least:
            raise InputError(option, str(value), f"{least} or more", "leave it out, the default serves most scans")
    runs, _ = load_runs(workdir, basedir)
    run, source, scan = open_sample(runs, sample, workdir / "results")
    edge = (min(size, source.shape[1]), min(size, source.shape[2]))
    earlier = rounds(workdir / FOLDER / sample)
    check_reading(workdir / FOLDER / sample, reading(run.get("dataset"), run.get("ingest")))
    known = predicted(run, runs, workdir / "results")
    corners, features, unsure, (low, high) = candidates(
        source, fov_of(scan), edge, earlier, None if known is None else known[1]
    )
    if not corners:
        raise InputError(sample, "every region is annotated", "regions that are not", "choose a smaller --size")
    order = most_different(
        features,
        count,
        None if known is None else unsure,
        lambda a, b: _overlap(corners[a], edge, corners[b], edge),
    )
    picked = sorted(corners[i] for i in order)
    number = 1 + max((int(own.folder.name[6:]) for own in earlier), default=0)
    folder = workdir / FOLDER / sample / f"round-{number}"
    (folder / PAINTED).mkdir(parents=True, exist_ok=True)
    images, labels = (np.zeros((len(picked), *edge), np.uint8) for _ in range(2))
    for i, (z, y, x) in enumerate(picked):
        window = slice(y, y + edge[0]), slice(x, x + edge[1])
        grey = (source.read(z, z + 1, *window)[0].astype(np.float32) - low) / max(high - low, 1e-12)
        images[i] = np.rint(255 * np.nan_to_num(grey, posinf=1, neginf=0).clip(0, 1))
        if known is not None:
            found = known[0].read(z, z + 1, *window)[0]
            labels[i] = np.where(found == UNLABELLED, 0, found + 1)
    for name, pages in (("images.tif", images), ("labels.tif", labels)):
        with atomic_path(folder / name) as temporary:
            tifffile.imwrite(temporary, pages, imagej=True, metadata={"axes": "ZYX"})
    n_classes = run.get("pseudo_label.n_clusters")
    with atomic_path(folder / "README.md") as temporary:
        temporary.write_text(instructions(picked, edge, n_classes, known is not None))
    where = {"shape": list(source.shape), "size": list(edge), "corners": [list(c) for c in picked]}
    write_json(folder / REGIONS, where | {"ingest": reading(run.get("dataset"), run.get("ingest"))})
    return folder


NAPARI = (
    "python -c \"import napari, tifffile; v = napari.Viewer(); v.add_image(tifffile.imread('images.tif')); "
    "v.add_labels(tifffile.imread('labels.tif'), name='labels'); napari.run()\""
)


def instructions(corners: list[tuple[int, int, int]], size: tuple[int, int], n_classes: int, prefilled: bool) -> str:
    """The README of a round."""
    where = "\n".join(f"| {i} | {z} | {y} | {x} |" for i, (z, y, x) in enumerate(corners))
    if prefilled:
        task = "`labels.tif` holds the prediction: correct it, and set to 0 whatever you did not look at."
    else:
        task = "Paint a few strokes, patches or points of every class; what you leave at 0 is not taken for anything."
    return f"""# {len(corners)} regions to paint

{task}
Class 0 of the configuration is painted as 1, class 1 as 2 and so on up to {n_classes}; background is a class too.

napari, in this folder:

    {NAPARI}

Select the layer `labels`, paint, and save it with File > Save Selected Layer(s)… into `{PAINTED}/`, under any name
that ends in .tif.

Fiji: open `images.tif` and `labels.tif`, paint in `labels.tif` with the class number as colour, and save it with
File > Save As > Tiff… into `{PAINTED}/`.

Then start the workflow: with `label_source: pixels` and an empty cell `labels` the files dropped are found.

| page | z | y | x |
|---|---|---|---|
{where}

Each region is {size[0]} x {size[1]} pixels; z, y, x is its first voxel, counted from 0.
"""
