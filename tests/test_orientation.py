"""Orientation: an asymmetric scan goes through every format, export and a painted label file to the same voxels."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile

from beamseg.export import export
from beamseg.histogram import histogram
from beamseg.ingest import ingest
from beamseg.inputs import user_labels
from beamseg.provenance import read_json
from beamseg.readers import open_source
from beamseg.volumes import ArrayVolume, open_scan_source
from formats import write_mrc, write_ome_zarr, write_stack

FOV = {"kind": "full", "cy": None, "cx": None, "radius": None, "value": None}
LABELS = {"dataset": None, "unlabelled": 255, "slices": None, "axes": None, "flip": None, "offset": None, "map": {}}
CLASSES = [{"id": k, "name": f"c{k}", "colour": "#000000", "clusters": [k]} for k in range(2)]


def phantom() -> np.ndarray:
    """(z, y, x) = (4, 5, 6) zeros and, in one corner, a 1 that no mirroring or turning leaves in place."""
    volume = np.zeros((4, 5, 6), np.uint8)
    volume[1, 0, 4] = 1
    return volume


def test_mrc_to_export_to_painted_labels_and_back(tmp_path: Path) -> None:
    scan = phantom()
    # As IMOD shows it: the first stored row is the lowest, so what lies at the top is stored in the last row.
    path = write_mrc(tmp_path / "scan.mrc", scan[:, ::-1])
    settings = {"fov": FOV, "slab_depth": 0, "axes": None, "flip": None}
    ingest(path, None, settings, tmp_path / "scan.json", tmp_path / "source.json", name="a")
    assert read_json(tmp_path / "scan.json")["flip"] == ["y"]
    source = open_scan_source(tmp_path / "scan.json")
    np.testing.assert_array_equal(source.read(0, 4), scan)
    export(
        ArrayVolume(source.read(0, 4)),
        table=CLASSES,
        stage={"stage": "stage2", "reason": ""},
        voxel_size_um=None,
        folder=tmp_path / "labels",
        out_json=tmp_path / "labels.json",
    )
    # The user opens an exported slice, paints the pixel that shows the 1, and saves all slices as TIFF.
    shown = tifffile.imread(tmp_path / "labels" / "z_000001.tif")
    assert np.argwhere(shown == 1).tolist() == [[0, 4]]
    painted = np.full(scan.shape, 255, np.uint8)
    painted[1][shown == 1] = 1
    files = {
        "tif": write_stack(tmp_path / "painted", painted),
        "mrc": write_mrc(tmp_path / "painted.mrc", painted[:, ::-1].astype(np.int16)),
        "zarr": write_ome_zarr(tmp_path / "painted.zarr", [painted]),
    }
    for kind, file in files.items():
        settings = {"labels": LABELS, "label_source": "slices", "seed": 0}
        labels = user_labels(settings, str(file), source.shape)
        assert labels is not None
        assert (source.read(0, 4)[labels.read(0, 4) == 1] == 1).all(), kind
        assert labels.counts == {1: 1}, kind


@pytest.mark.parametrize("axes", ["".join(order) for order in itertools.permutations("zyx")])
@pytest.mark.parametrize("flip", [(), ("y",), ("z", "x")])
def test_axes_and_flip_of_the_configuration(tmp_path: Path, axes: str, flip: tuple[str, ...]) -> None:
    volume = np.arange(4 * 5 * 6, dtype=np.uint16).reshape(4, 5, 6)
    turned = volume[tuple(slice(None, None, -1 if a in flip else 1) for a in "zyx")]
    stored = turned.transpose(["zyx".index(a) for a in axes])
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("v", data=stored, chunks=(2, 3, 4))
        file["v"].attrs["voxel_size_um"] = [{"z": 3.0, "y": 2.0, "x": 1.0}[a] for a in axes]
    for path in (tmp_path / "a.h5", write_mrc(tmp_path / "a.mrc", stored)):
        source = open_source(path, axes=axes, flip=flip)
        assert source.shape == volume.shape
        np.testing.assert_array_equal(source.read(0, 4), volume)
        np.testing.assert_array_equal(source.read(1, 3, slice(1, 4), slice(2, None)), volume[1:3, 1:4, 2:])
    source = open_source(tmp_path / "a.h5", axes=axes, flip=flip)
    assert source.voxel_size_um == [3.0, 2.0, 1.0]
    assert source.depth == (2, 3, 4)[axes.index("z")]


def test_flipped_input_is_another_content(tmp_path: Path) -> None:
    """A change of `flip` alone reruns what depends on the voxels."""
    path = write_mrc(tmp_path / "scan.mrc", phantom() + np.arange(4, dtype=np.uint8)[:, None, None])
    names = tmp_path / "scan.json", tmp_path / "source.json"

    def taken(flip: list[str] | None) -> dict[str, Any]:
        settings = {"fov": FOV, "slab_depth": 0, "flip": flip}
        return ingest(path, None, settings, *names, name="a", histogram=tmp_path / "histogram.npz")

    taken(None)
    histogram(names[0], tmp_path / "histogram.npz")
    assert "content" not in taken(["y"])
    assert "content" in taken([])
    assert "content" not in taken(None)
