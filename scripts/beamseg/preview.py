"""preview: every stage on a crop, so that K, grey range and preset are chosen in minutes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml

from . import figures, plots
from .clusters import CURVE, elbow, label_levels
from .config import load_runs
from .corrections import fov_of
from .errors import InputError
from .features import FeatureVolume, cluster_features, sample_features
from .fov import fov_mask
from .opened import open_sample
from .provenance import atomic_path, write_json
from .readers import known_size
from .volumes import MAX_GREY, ArrayVolume, TableVolume, Volume, normalize_block

CROP = (64, 512, 512)
LOOKS = 16
OF_THE_ROW = ("sample", "path", "dataset", "group", "truth", "bundle", "samples", "preset", "voxel_size_um")


def best_window(slices: np.ndarray, size: tuple[int, int]) -> tuple[int, int]:
    """Corner (y, x) of the window with the highest contrast: the largest spread of block means.

    Parameters
    ----------
    slices : ndarray (n, y, x)
    size : (y, x) of the window

    Notes
    -----
    Means over blocks of 8 × 8 are compared, so that noise alone does not count as contrast.
    """
    height, width = slices.shape[1] // 8 * 8, slices.shape[2] // 8 * 8
    blocks = np.nan_to_num(slices[:, :height, :width].astype(np.float32))
    blocks = blocks.reshape(len(slices), height // 8, 8, width // 8, 8).mean(axis=(2, 4))
    window = (min(size[0] // 8, blocks.shape[1]), min(size[1] // 8, blocks.shape[2]))
    best, corner = -1.0, (0, 0)
    for y in range(0, blocks.shape[1] - window[0] + 1, max(1, window[0] // 4)):
        for x in range(0, blocks.shape[2] - window[1] + 1, max(1, window[1] // 4)):
            spread = float(blocks[:, y : y + window[0], x : x + window[1]].std())
            if spread > best:
                best, corner = spread, (y * 8, x * 8)
    return corner


def cut_crop(source: Any, binning: int) -> tuple[np.ndarray, tuple[int, int, int]]:
    """The crop of highest contrast, float32 (z, y, x), and its corner in the scan; binned by block means."""
    looks = np.linspace(0, source.shape[0] - 1, min(LOOKS, source.shape[0])).astype(int)
    slices = np.concatenate([source.read(int(z), int(z) + 1) for z in looks])
    extent = [min(n, c * binning) // binning * binning for n, c in zip(source.shape, CROP, strict=True)]
    y, x = best_window(slices, (extent[1], extent[2]))
    spread = [float(np.nanstd(s[y : y + extent[1], x : x + extent[2]].astype(np.float32))) for s in slices]
    z = int(np.clip(looks[int(np.argmax(spread))] - extent[0] // 2, 0, source.shape[0] - extent[0]))
    block = source.read(z, z + extent[0], slice(y, y + extent[1]), slice(x, x + extent[2])).astype(np.float32)
    if binning > 1:
        n = [size // binning for size in block.shape]
        block = block.reshape(n[0], binning, n[1], binning, n[2], binning).mean(axis=(1, 3, 5))
    return block, (z, y, x)


def crop_fov(fov: dict[str, Any], corner: tuple[int, int, int], binning: int) -> dict[str, Any]:
    """The field of view of a scan in the pixels of its binned crop."""
    if "radius" not in fov:
        return fov
    centre = {key: (fov[key] - first) / binning for key, first in (("cy", corner[1]), ("cx", corner[2]))}
    return {**fov, **centre, "radius": fov["radius"] / binning}


def clustered(
    grey: np.ndarray, counts: np.ndarray, settings: dict[str, Any], seed: int
) -> Iterator[tuple[int, Volume]]:
    """(K, labels of the crop) for K = 2 … 8, by the labeler of the section `pseudo_label`, as one volume.

    Parameters
    ----------
    grey : ndarray, uint16, (z, y, x)
        Normalized crop.
    counts : ndarray, (65536,)
        Its voxels per grey level.
    """
    volume = ArrayVolume(grey)
    if settings["labeler"] == "features":
        sample, levels = sample_features([volume], settings["features"], seed)
        for k in CURVE:
            yield k, FeatureVolume(volume, cluster_features(sample, levels, k, settings["features"], seed)[0])
        return
    for k in CURVE:
        yield k, TableVolume(volume, label_levels(counts, {**settings, "n_clusters": k}, seed))


def preview(workdir: Path, basedir: Path, sample: str, binning: int, steps: int, train: bool = True) -> None:
    """Cut a crop, draw the contact sheet over K = 2 … 8, and run the workflow on it in `results/preview/<sample>`.

    Parameters
    ----------
    sample : str
        A row of the table.
    binning : int
        Voxels averaged along each axis.
    steps : int
        Of stage 2 and of stage 3; enough to compare settings, too few to judge the final quality.
    train : bool
        Whether to go on after the contact sheet.
    """
    runs, _ = load_runs(workdir, basedir)
    run, source, scan = open_sample(runs, sample, workdir / "results")
    block, corner = cut_crop(source, binning)
    folder = workdir / "results" / "preview" / sample
    (folder / "config").mkdir(parents=True, exist_ok=True)
    size, _ = known_size(source, run.get("voxel_size_um"))
    voxel = None if size is None else [v * binning for v in size]
    with atomic_path(folder / "crop.h5") as temporary, h5py.File(temporary, "w", track_order=False) as file:
        data = file.create_dataset("data", data=block, chunks=(1, *block.shape[1:]))
        if voxel:
            data.attrs["voxel_size_um"] = voxel
    write_json(folder / "crop.json", {"corner_zyx": list(corner), "shape": list(block.shape), "binning": binning})
    fov = crop_fov(fov_of(scan), corner, binning)
    inside = fov_mask(fov, 0, block.shape[1], 0, block.shape[2])
    seen = block if inside is None else block[:, inside]
    low, high = np.nanpercentile(seen, run.get("plan.percentiles"))
    grey = normalize_block(block, {"range": [low, high], "bits": 16, "fov": fov})
    counts = np.bincount(grey.ravel(), minlength=MAX_GREY + 1)
    z = len(grey) // 2
    labels = {k: v.read(z, z + 1)[0] for k, v in clustered(grey, counts, run.get("pseudo_label"), run.get("seed"))}
    sheet = folder / "contact_sheet.png"
    figures.contact_sheet(grey[z], labels, sheet, voxel)
    with figures.style():
        figures.save(plots.elbow(elbow(counts), run.get("pseudo_label.n_clusters")), folder / "elbow.png")
    print(f"crop at z, y, x = {corner}, shape {block.shape}; clusters for K = 2 … 8: {sheet}")
    if not train:
        return
    settings = {key: value for key, value in run.settings.items() if key not in OF_THE_ROW}
    settings["train"] = {**settings["train"], "steps": steps}
    settings["self_correct"] = {**settings["self_correct"], "steps": steps}
    # The crop is cut from the corrected scan; cupping, say, would be another one about the crop's own middle.
    settings["normalize"] = {**settings["normalize"], "shading": "none", "rings": "none", "denoise": "none"}
    # Labels are of the whole scan; the crop is trained on its clusters.
    settings["labels"] = {**settings["labels"], "path": None}
    settings["label_source"] = "clusters"
    settings["train"]["objective"] = "classification"
    settings["ingest"] = {**settings["ingest"], "axes": None, "flip": None, "level": 0}  # the crop is z, y, x
    (folder / "config" / "config.yaml").write_text(yaml.safe_dump(settings))
    (folder / "config" / "samples.tsv").write_text(f"sample\tpath\n{sample}\t../crop.h5\n")
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(basedir / "Snakefile")]
    command += ["--directory", str(folder), "--cores", str(os.cpu_count()), "--quiet", "rules", "progress"]
    command += ["--workflow-profile", str(basedir / "workflow" / "profiles" / "default")]
    if subprocess.run(command, check=False).returncode:
        raise InputError(
            folder, "the preview's workflow failed", "a run to its end", "see the messages above and its logs"
        )
    print(f"report of the crop: {folder / 'results' / sample / 'report.html'}")
