"""view: a scan and its labels in napari, with the names and colours of the classes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import dask.array as da
import pandas as pd
from dask import delayed

from .config import load_runs
from .errors import InputError
from .provenance import read_json
from .readers import Source, open_source
from .runs import Runs
from .volumes import open_scan_source

INSTALL = 'python -m pip install "napari[all]"'
VOLUMES = ("nexus", "nexus_virtual", "ome_zarr", "bigtiff", "tiff", "mrc")
DEPTH = 8  # slices that are read at once where a file is not made of slices


def view(workdir: Path, basedir: Path, sample: str) -> None:
    """Open napari with the scan and the product of a sample, and wait until it is closed.

    Raises
    ------
    InputError
        If the sample has no labels yet, or napari is not installed.
    """
    found = layers(workdir, basedir, sample)
    if importlib.util.find_spec("napari") is None:
        raise InputError("napari", "not installed", "napari in the environment of beamseg", INSTALL)
    import napari

    viewer = napari.Viewer(title=sample)
    for kind, data, options in found:
        getattr(viewer, f"add_{kind}")(data, **options)
    viewer.scale_bar.visible = True
    napari.run()


def layers(workdir: Path, basedir: Path, sample: str) -> list[tuple[str, Any, dict[str, Any]]]:
    """What napari is to show, lowest first: (kind of layer, array (z, y, x) that is read when shown, options).

    The labels are the exported ones, so what is seen is what is handed on.

    Raises
    ------
    InputError
        If there is no such sample, or it has no labels yet.
    """
    runs = Runs(load_runs(workdir, basedir)[0])
    if sample not in runs.runs:
        raise InputError("sample", repr(sample), f"one of {', '.join(runs.runs)}", "see the sample table")
    results = workdir / "results"
    manifest_path = results / sample / "labels.json"
    if not manifest_path.exists():
        raise InputError(manifest_path, "no such file", "the labels of the sample", "run the workflow first")
    manifest = read_json(manifest_path)
    exported = [name for name in VOLUMES if name in manifest["exports"]]
    if not exported:
        raise InputError(
            manifest_path, f"exports {', '.join(manifest['exports'])}", "a volume", "add tiff to export.formats"
        )
    labels = open_source(manifest_path.with_name(manifest["exports"][exported[0]]))
    scan_json = results / runs.owner("ingest", sample) / "scan.json"
    scan, plan = read_json(scan_json), read_json(results / "groups" / runs.owner("plan", sample) / "plan.json")
    size = scan["voxel_size_um"]
    place = {"scale": size or [1, 1, 1], "units": ["pixel" if size is None else "um"] * 3}
    classes = manifest["classes"]
    names = pd.DataFrame(
        {
            "index": [*(row["id"] for row in classes), manifest["outside"]],
            "class": [*(row["name"] for row in classes), "outside"],
        }
    )
    colours: dict[int | None, Any] = {row["id"]: row["colour"] for row in classes}
    colours |= dict.fromkeys((manifest["outside"], None), (0.0, 0.0, 0.0, 0.0))
    return [
        ("image", lazy(open_scan_source(scan_json)), {"name": sample, "contrast_limits": plan["range"], **place}),
        (
            "labels",
            lazy(labels).astype("uint8"),
            {"name": f"{sample}: {manifest['stage']}", "features": names, "colormap": colours, "opacity": 0.5, **place},
        ),
    ]


def lazy(source: Source) -> da.Array:
    """A source as an array of Dask that reads slices when they are shown."""
    depth, height, width = source.shape
    step = min(source.chunks[0], DEPTH)
    blocks = []
    for z0 in range(0, depth, step):
        z1 = min(depth, z0 + step)
        blocks.append(da.from_delayed(delayed(source.read)(z0, z1), (z1 - z0, height, width), source.dtype))
    return da.concatenate(blocks)
