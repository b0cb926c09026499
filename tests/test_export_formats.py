"""Every format as another program finds it: the voxels the right way round, their size, and the names of classes."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import h5py
import mrcfile
import numpy as np
import pytest
import tifffile
import trimesh
from PIL import Image
from skimage.measure import marching_cubes

from beamseg.errors import InputError
from beamseg.export import FORMATS, export
from beamseg.export.labels import Labels
from beamseg.export.surfaces import pieces
from beamseg.palette import class_table
from beamseg.readers import open_source
from beamseg.volumes import ArrayVolume

TABLE = class_table(3, {"grains": {"clusters": [1], "colour": "#112233"}})
SIZE = (2.0, 0.5, 0.25)
OME_ZARR = Path(sys.prefix) / "ome-zarr" / "bin" / "python"
VOLUMES = ("tiff", "bigtiff", "nexus", "nexus_virtual", "mrc", "ome_zarr")


def labels_of(shape: tuple[int, int, int] = (11, 6, 9)) -> np.ndarray:
    """Labels that no mirroring or turning leaves as they are, all of 0, 1, 2 and 255 among them."""
    return np.random.default_rng(0).choice(np.array([0, 1, 2, 255], np.uint8), shape)


def run(folder: Path, labels: np.ndarray, *formats: str, **options: Any) -> dict[str, Any]:
    options = {"table": TABLE, "voxel_size_um": SIZE, "stage": {"stage": "scm", "reason": "last"}} | options
    volume = ArrayVolume(labels)
    return export(volume, folder=folder / "labels", out_json=folder / "labels.json", formats=formats, **options)


def path_of(folder: Path, name: str) -> Path:
    return folder / f"labels{FORMATS[name][1]}"


@pytest.mark.parametrize("size", [SIZE, None])
@pytest.mark.parametrize("name", VOLUMES)
def test_the_projects_own_readers_find_the_labels_again(tmp_path: Path, name: str, size: Any) -> None:
    labels = labels_of()
    manifest = run(tmp_path, labels, name, voxel_size_um=size)
    assert manifest["exports"] == {name: path_of(tmp_path, name).name}
    source = open_source(path_of(tmp_path, name), external_links="beside")
    np.testing.assert_array_equal(source.read(0, 11), labels)
    assert source.voxel_size_um == (None if size is None else list(size))


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("budget", [1e-6, 0.012])
def test_blocks_of_any_size_give_equal_bytes(tmp_path: Path, name: str, budget: float) -> None:
    labels = labels_of((37, 6, 9))
    run(tmp_path / "whole", labels, name)
    run(tmp_path / "blocks", labels, name, mem_budget_mb=budget)
    wholes = sorted(path for path in (tmp_path / "whole").rglob("*") if path.is_file())
    blocks = sorted(path for path in (tmp_path / "blocks").rglob("*") if path.is_file())
    assert [p.relative_to(tmp_path / "whole") for p in wholes] == [p.relative_to(tmp_path / "blocks") for p in blocks]
    for whole, block in zip(wholes, blocks, strict=True):
        if name in ("ply", "stl"):  # blocks come one after the other, their triangles in no order
            assert whole.stat().st_size == block.stat().st_size
        else:
            assert whole.read_bytes() == block.read_bytes()


@pytest.mark.parametrize("name", ["nexus", "nexus_virtual"])
def test_a_second_later_the_same_bytes_are_written(tmp_path: Path, name: str) -> None:
    once, again = tmp_path / "once", tmp_path / "again"
    run(once, labels_of(), name)
    time.sleep(1.1)  # HDF5 keeps whole seconds
    run(again, labels_of(), name)
    assert path_of(once, name).read_bytes() == path_of(again, name).read_bytes()


def test_formats_no_longer_asked_for_are_removed_and_other_files_stay(tmp_path: Path) -> None:
    run(tmp_path, labels_of(), *FORMATS)
    (tmp_path / "labels_ply" / "mine.txt").write_text("")
    run(tmp_path, labels_of(), "mrc")
    left = sorted(path.name for path in tmp_path.rglob("*"))
    assert left == ["labels.json", "labels.mrc", "labels_ply", "mine.txt"]


def test_pillow_opens_bigtiff_and_its_description_holds_size_and_names(tmp_path: Path) -> None:
    labels = labels_of()
    run(tmp_path, labels, "bigtiff")
    path = tmp_path / "labels.ome.tif"
    with Image.open(path) as image:
        assert image.n_frames == 11
        for z in (0, 7):
            image.seek(z)
            np.testing.assert_array_equal(np.asarray(image), labels[z])
    with tifffile.TiffFile(path) as file:
        assert file.is_bigtiff
        text = file.ome_metadata or ""
        assert file.series[0].axes == "ZYX"
    for words in ('PhysicalSizeX="0.25"', 'PhysicalSizeY="0.5"', 'PhysicalSizeZ="2.0"', "1: grains"):
        assert words in text


class Large:
    """4.3 GB of labels that are not kept: every slice holds its number in one place."""

    shape = (1030, 2048, 2048)

    def read(self, z0: int, z1: int, y: slice = slice(None), x: slice = slice(None)) -> np.ndarray:
        block = np.zeros((min(z1, self.shape[0]) - z0, *self.shape[1:]), np.uint8)
        for z, plane in enumerate(block, start=z0):
            plane[z, 3] = 1
        return block[:, y, x]


@pytest.mark.slow
def test_labels_over_4_gib(tmp_path: Path) -> None:
    assert np.prod(Large.shape) > 2**32
    options: dict[str, Any] = {"table": TABLE, "voxel_size_um": SIZE, "stage": {"stage": "scm", "reason": ""}}
    export(
        Large(),
        folder=tmp_path / "labels",
        out_json=tmp_path / "a.json",
        formats=("bigtiff", "mrc"),
        mem_budget_mb=64,
        **options,
    )
    assert path_of(tmp_path, "mrc").stat().st_size > 2**33
    with Image.open(path_of(tmp_path, "bigtiff")) as image:
        image.seek(1029)
        assert np.argwhere(np.asarray(image)).tolist() == [[1029, 3]]
    with mrcfile.mmap(path_of(tmp_path, "mrc"), mode="r") as file:
        assert np.argwhere(file.data[1029][::-1]).tolist() == [[1029, 3]]


@pytest.mark.parametrize("name", ["nexus", "nexus_virtual"])
def test_a_nexus_reader_is_led_to_the_labels(tmp_path: Path, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from nexusformat.nexus import nxload
    labels = labels_of()
    run(tmp_path, labels, name)
    root = nxload(path_of(tmp_path, name))
    data = root.get_default()
    assert data.nxname == "labels"
    np.testing.assert_array_equal(np.asarray(data.nxsignal[:]), labels)
    assert [axis.nxname for axis in data.nxaxes] == ["z", "y", "x"]
    assert [float(axis.nxdata[1]) for axis in data.nxaxes] == list(SIZE)
    assert {axis.attrs["units"] for axis in data.nxaxes} == {"um"}
    assert root["entry/voxel_size"].nxdata.tolist() == list(SIZE)
    assert [name.decode() for name in root["entry/classes/name"].nxdata] == ["cluster 0", "grains", "cluster 2"]
    assert root["entry/classes/colour"].nxdata[1] == b"#112233"
    assert root["entry/classes/id"].nxdata.tolist() == [0, 1, 2]


@pytest.mark.parametrize("budget", [100, 1e-6])
def test_a_virtual_data_set_moves_with_its_slabs_and_says_what_is_missing(tmp_path: Path, budget: float) -> None:
    labels = labels_of((300, 4, 5))
    run(tmp_path, labels, "nexus_virtual", mem_budget_mb=budget)
    (tmp_path / "elsewhere").mkdir()
    for name in ("labels_virtual.h5", "labels_virtual"):
        (tmp_path / name).rename(tmp_path / "elsewhere" / name)
    slabs = sorted((tmp_path / "elsewhere" / "labels_virtual").iterdir())
    assert [slab.name for slab in slabs] == ["slab_000000.h5", "slab_000128.h5", "slab_000256.h5"]
    with h5py.File(slabs[1]) as file:
        first = file["labels"].id.get_offset()
    mapped = np.memmap(slabs[1], np.uint8, "r", first, (128, 4, 5))
    np.testing.assert_array_equal(mapped, labels[128:256])
    slabs[1].unlink()
    with h5py.File(tmp_path / "elsewhere" / "labels_virtual.h5") as file:
        found = file["entry/labels/labels"][:]
    assert (found[128:256] == 255).all()
    np.testing.assert_array_equal(np.delete(found, slice(128, 256), 0), np.delete(labels, slice(128, 256), 0))


def test_a_virtual_data_set_that_is_no_longer_asked_for_goes_with_its_slabs(tmp_path: Path) -> None:
    run(tmp_path, labels_of(), "nexus_virtual")
    run(tmp_path, labels_of(), "nexus")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["labels.h5", "labels.json"]


def test_mrcfile_finds_a_valid_header_and_rows_from_below(tmp_path: Path) -> None:
    labels = labels_of()
    run(tmp_path, labels, "mrc")
    path = path_of(tmp_path, "mrc")
    said = io.StringIO()
    assert mrcfile.validate(path, print_file=said), said.getvalue()
    with mrcfile.open(path) as file:
        np.testing.assert_array_equal(file.data[:, ::-1], labels)
        assert file.is_volume()
        assert [float(file.voxel_size[axis]) for axis in "zyx"] == [20000, 5000, 2500]  # ångström
        assert [float(file.header.origin[axis]) for axis in "xyz"] == [0, 0, 0]
        assert file.get_labels() == ["beamseg 0: cluster 0", "beamseg 1: grains", "beamseg 2: cluster 2"]


def test_ome_zarr_meets_the_schemas_of_the_specification(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import ngff_zarr
    labels = labels_of((70, 20, 600))
    run(tmp_path, labels, "ome_zarr", mem_budget_mb=0.5)
    path = path_of(tmp_path, "ome_zarr")
    attributes = json.loads((path / ".zattrs").read_text())
    for model in ("image", "label"):
        ngff_zarr.validate(attributes, version="0.4", model=model, strict=True)
    images = ngff_zarr.from_ngff_zarr(str(path), validate=True).images
    assert [image.data.shape for image in images] == [(70, 20, 600), (35, 10, 300), (18, 5, 150)]
    for number, image in enumerate(images):
        assert image.scale == {axis: size * 2**number for axis, size in zip("zyx", SIZE, strict=True)}
        np.testing.assert_array_equal(np.asarray(image.data), labels[tuple([slice(None, None, 2**number)] * 3)])
    assert {"label-value": 1, "rgba": [0x11, 0x22, 0x33, 255]} in attributes["image-label"]["colors"]
    assert {"label-value": 1, "name": "grains"} in attributes["image-label"]["properties"]


@pytest.mark.skipif(not OME_ZARR.exists(), reason="ome-zarr-py's own environment is not there; `make test` makes it")
def test_ome_zarr_py_reads_voxels_names_and_colours(tmp_path: Path) -> None:
    labels = labels_of((70, 20, 600))
    run(tmp_path, labels, "ome_zarr")
    script = Path(__file__).with_name("read_ome_zarr.py")
    command = [OME_ZARR, script, path_of(tmp_path, "ome_zarr"), tmp_path / "level.npy"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_array_equal(np.load(tmp_path / "level.npy"), labels[::2, ::2, ::2])
    assert found["scales"][1] == [4.0, 1.0, 0.5]
    np.testing.assert_allclose(found["color"]["1"], np.array([0x11, 0x22, 0x33, 255]) / 255, atol=1e-6)
    assert found["color"]["255"][3] == 0
    assert found["properties"]["1"] == {"name": "grains"}


@pytest.mark.parametrize("kind", ["ply", "stl"])
def test_the_surface_of_one_voxel_is_an_octahedron_around_it(tmp_path: Path, kind: str) -> None:
    labels = np.zeros((3, 4, 5), np.uint8)
    labels[0, 1, 3] = 1
    run(tmp_path, labels, kind)
    mesh: Any = trimesh.load(tmp_path / f"labels_{kind}" / f"class_1.{kind}")
    assert mesh.is_watertight
    assert mesh.volume == pytest.approx(2 * 0.5 * 0.25 / 6)  # positive: faces look outwards
    np.testing.assert_allclose(mesh.bounds, [[0.625, 0.25, -1], [0.875, 0.75, 1]])
    if kind == "ply":
        assert mesh.visual.vertex_colors[0].tolist() == [0x11, 0x22, 0x33, 255]
    assert sorted(path.name for path in (tmp_path / f"labels_{kind}").iterdir()) == [
        f"class_0.{kind}",
        f"class_1.{kind}",
    ]


@pytest.mark.parametrize("budget", [100, 0.1, 1e-6])
def test_blocks_join_to_the_surface_of_the_whole(budget: float) -> None:
    mask = np.random.default_rng(1).random((40, 9, 7)) < 0.4
    labels = Labels(ArrayVolume(mask.astype(np.uint8)), TABLE, None, budget)
    found = list(pieces(labels, 1))
    assert (len(found) > 1) == (budget < 1)
    vertices = np.concatenate([piece.vertices[piece.is_new] for piece in found])
    faces = np.concatenate([piece.numbers[piece.faces] for piece in found])
    wanted, triangles, _, _ = marching_cubes(np.pad(mask, 1), 0.5)
    assert len(vertices) == len(wanted)

    def corners(points: np.ndarray, indices: np.ndarray) -> list[Any]:
        return sorted(map(tuple, np.sort(points[indices].view("f4,f4,f4")[..., 0], axis=1).tolist()))

    assert corners(vertices, faces) == corners(np.ascontiguousarray((wanted - 1)[:, ::-1]), triangles)


@pytest.mark.parametrize("name", VOLUMES)
def test_a_disk_that_fills_up_is_said_in_words_and_leaves_the_old_file(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = labels_of()
    run(tmp_path, labels, name)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        run(tmp_path, 0 * labels, name)
    monkeypatch.undo()
    again = open_source(path_of(tmp_path, name), external_links="beside")
    np.testing.assert_array_equal(again.read(0, 11), labels)
    assert not list(tmp_path.rglob("*.tmp"))


def test_too_little_room_is_found_before_the_first_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 100})())
    with pytest.raises(InputError, match="GB to write"):
        run(tmp_path, labels_of(), "mrc")
    assert list(tmp_path.iterdir()) == []
