"""A finished group of one scan, as the workflow leaves it: what the tests of view and archive share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile

from beamseg.bundle import bundle
from beamseg.export import export
from beamseg.palette import class_table
from beamseg.provenance import write_json
from beamseg.volumes import ArrayVolume

SIZE = [2.0, 0.5, 0.25]


def finished_group(folder: Path, formats: tuple[str, ...] = ("tiff",)) -> tuple[np.ndarray, np.ndarray]:
    """Write configuration, scan and results of sample `a`; (scan, labels), both (z, y, x)."""
    rng = np.random.default_rng(0)
    scan = rng.integers(0, 99, (10, 6, 9)).astype(np.uint16)
    labels = rng.choice(np.array([0, 1, 255], np.uint8), scan.shape)
    (folder / "config").mkdir(parents=True)
    (folder / "config" / "config.yaml").write_text("pseudo_label: {n_clusters: 2}\n")
    (folder / "config" / "samples.tsv").write_text("sample\tpath\ttruth\na\t../secret/scan.tif\t../secret/truth.tif\n")
    (folder / "secret").mkdir()
    tifffile.imwrite(folder / "secret" / "scan.tif", scan, photometric="minisblack")
    results, group = folder / "results" / "a", folder / "results" / "groups" / "a"
    about = {"name": "a", "shape": list(scan.shape), "dtype": "uint16", "voxel_size_um": SIZE}
    where = {"path": str(folder / "secret" / "scan.tif"), "dataset": None, "axes": None, "flip": None}
    write_json(results / "scan.json", about)
    write_json(results / "source.json", {**where, "level": 0, "allow_gaps": False, "files": []})
    counts = {"edges": np.arange(100.0), "counts": np.full(99, 5), "underflow": 0, "overflow": 0}
    np.savez(results / "histogram.npz", content=np.array("0123abcd"), **counts)
    write_json(results / "provenance.json", {"seed": 0})
    write_json(results / "metrics.json", {"product": {"stage": "scm"}})
    write_json(group / "plan.json", {"range": [1.0, 90.0]})
    write_json(group / "classes.json", {})
    np.save(group / "table.npy", np.zeros(3, np.uint8))
    (group / "stage2.safetensors").write_bytes(b"weights")
    (group / "train.csv").write_text("step,loss\n1,0.5\n")
    table = class_table(2, {"pores": {"clusters": [0], "colour": "#112233"}})
    export(
        ArrayVolume(labels),
        table=table,
        stage={"stage": "scm", "reason": "last"},
        voxel_size_um=SIZE,
        folder=results / "labels",
        out_json=results / "labels.json",
        formats=formats,
    )
    bundle(
        group / "bundle" / "bundle.json",
        weights=group / "stage2.safetensors",
        plan=group / "plan.json",
        classes=group / "classes.json",
        table=group / "table.npy",
        curves=group / "train.csv",
        scans=[results / "scan.json"],
        histograms=[results / "histogram.npz"],
        class_table=table,
        settings={},
        verdict=None,
    )
    return scan, labels
