"""Readers: every format gives the array that was written, and bad files the exact error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import hdf5plugin
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given
from hypothesis import strategies as st

from beamseg.errors import InputError
from beamseg.readers import Linked, open_labels, open_source
from beamseg.readers.numbering import natural_key
from beamseg.readers.source import combine_digests, content_digest, task_borders, to_micrometres
from formats import write_mhd, write_nhdr, write_ome_zarr

VOLUME = np.random.default_rng(0).integers(0, 1000, (12, 9, 7)).astype(np.uint16)


def write_h5(path: Path, **datasets: np.ndarray) -> Path:
    path.unlink(missing_ok=True)  # an earlier source may still be open
    with h5py.File(path, "w") as file:
        for name, data in datasets.items():
            file[name.replace("__", "/")] = data
    return path


def write_stack(folder: Path, volume: np.ndarray, name: str = "s_{}.tif", **options: object) -> Path:
    folder.mkdir()
    for z, plane in enumerate(volume):
        tifffile.imwrite(folder / name.format(z), plane, **options)
    return folder


def found(path: Path, dataset: str | None = None, **how: Any) -> str:
    with pytest.raises(InputError) as error:
        open_source(path, dataset, **how)
    return error.value.found


@pytest.mark.parametrize(
    "options",
    [{}, {"byteorder": ">"}, {"compression": "deflate"}, {"tile": (16, 16)}, {"bigtiff": True}],
)
def test_tiff_formats_read_what_was_written(tmp_path: Path, options: dict) -> None:
    stack = write_stack(tmp_path / "stack", VOLUME, **options)
    pages = tmp_path / "pages.tif"
    tifffile.imwrite(pages, VOLUME, photometric="minisblack", **options)
    for path in (stack, pages):
        source = open_source(path)
        assert source.shape == VOLUME.shape
        assert source.dtype == np.dtype("uint16")
        np.testing.assert_array_equal(source.read(0, 12), VOLUME)
        part = source.read(-3, 5, slice(2, 6), slice(1, None))
        np.testing.assert_array_equal(part, VOLUME[:5, 2:6, 1:])
        assert part.dtype.isnative
        assert source.read(12, 14).shape == (0, 9, 7)


def test_stack_is_in_natural_order_without_padding(tmp_path: Path) -> None:
    stack = write_stack(tmp_path / "stack", VOLUME)  # s_0 … s_11: lexical order would put s_10 after s_1
    assert [f.name for f in open_source(stack).files][-2:] == ["s_10.tif", "s_11.tif"]


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=20, unique=True), st.integers(1, 9))
def test_natural_key_orders_by_number(numbers: list[int], width: int) -> None:
    names = [f"scan2_{n:0{width}d}.tif" for n in numbers]
    assert sorted(names, key=natural_key) == [f"scan2_{n:0{width}d}.tif" for n in sorted(numbers)]


def test_bad_folders(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert found(tmp_path / "empty") == "an empty folder"
    (tmp_path / "jpg").mkdir()
    (tmp_path / "jpg" / "a.jpg").write_bytes(b"x")
    assert found(tmp_path / "jpg") == "no TIFF files among 1 (.jpg)"
    mixed = write_stack(tmp_path / "mixed", VOLUME)
    tifffile.imwrite(mixed / "s_3.tif", VOLUME[0, :5])
    assert found(mixed) == "a slice of shape (5, 7), uint16"
    two = write_stack(tmp_path / "two", VOLUME)
    tifffile.imwrite(two / "preview.tif", VOLUME[0])
    assert found(two) == "files of 2 series: preview.tif … (1), s_0.tif … (12)"
    cut = write_stack(tmp_path / "cut", VOLUME)
    data = (cut / "s_5.tif").read_bytes()
    (cut / "s_5.tif").write_bytes(data[:-10])
    assert found(cut) == f"a truncated file of {len(data) - 10} bytes"
    paged = write_stack(tmp_path / "paged", VOLUME)
    tifffile.imwrite(paged / "s_0.tif", VOLUME[:3], photometric="minisblack")
    assert found(paged) == "3 pages"


def test_bad_tiff_files(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, VOLUME, photometric="minisblack")
    path.write_bytes(path.read_bytes()[:1000])
    assert found(path).startswith("a truncated file of 1000 bytes")
    with tifffile.TiffWriter(path) as writer:  # a plain chain of pages, which readers follow as far as it goes
        for plane in VOLUME:
            writer.write(plane, metadata=None, contiguous=False)
    np.testing.assert_array_equal(open_source(path).read(0, 12), VOLUME)
    path.write_bytes(path.read_bytes()[:1772])
    assert found(path) == "a truncated file of 1772 bytes, cut after page 6"
    with tifffile.TiffWriter(path) as writer:
        writer.write(VOLUME[0])
        writer.write(VOLUME[0, :4])
    assert found(path) == "pages of different shapes or types: (4, 7) uint16, (9, 7) uint16"
    tifffile.imwrite(path, np.zeros((2, 4, 5, 6), np.uint8), photometric="minisblack")
    assert found(path).startswith("axes ")
    path.write_bytes(b"")
    assert found(path) == "an empty file (0 bytes)"
    path.write_bytes(b"not an image at all")
    assert found(path) == "a file of unknown content"
    assert found(tmp_path / "nowhere") == "no such file or folder"


def test_voxel_size_of_imagej(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    options = {"imagej": True, "resolution": (2.0, 2.0)}
    tifffile.imwrite(path, VOLUME, metadata={"unit": "um", "spacing": 1.5, "axes": "ZYX"}, **options)
    assert open_source(path).voxel_size_um == [1.5, 0.5, 0.5]
    tifffile.imwrite(path, VOLUME, metadata={"unit": "nm", "axes": "ZYX"}, **options)
    source = open_source(path)
    np.testing.assert_allclose(source.voxel_size_um, [5e-4] * 3)
    assert source.size_warnings == ["the file gives no distance between slices; taken as the pixel size"]
    tifffile.imwrite(path, VOLUME, metadata={"unit": "inch", "axes": "ZYX"}, **options)
    assert open_source(path).voxel_size_um is None


def test_to_micrometres() -> None:
    assert to_micrometres(2, "mm") == 2000
    assert to_micrometres(2, "cm") == 20000
    assert to_micrometres(2, "Å") == pytest.approx(2e-4)
    assert to_micrometres(2, "microns") == 2
    assert to_micrometres(2, "pixel") is None
    assert to_micrometres(0, "um") is None


def test_data_exchange(tmp_path: Path) -> None:
    path = write_h5(tmp_path / "a.h5", exchange__data=VOLUME.astype(">f4"), other=VOLUME)
    with h5py.File(path, "a") as file:
        file["exchange/data"].attrs["voxel_size_um"] = 1.17
    source = open_source(path)
    assert source.dtype == np.dtype("float32")
    assert source.voxel_size_um == [1.17] * 3
    np.testing.assert_array_equal(source.read(3, 20, slice(1, 4)), VOLUME[3:, 1:4])
    np.testing.assert_array_equal(open_source(path, "other").read(0, 12), VOLUME)
    del source
    with h5py.File(path, "a") as file:
        file["exchange/data"].attrs["voxel_size_um"] = [0.0, 1.0, 1.0]
    assert found(path) == "attribute voxel_size_um of /exchange/data is [0.0, 1.0, 1.0]"


@pytest.mark.parametrize("extra", ["exchange/data_white", "exchange/theta"])
def test_raw_projections_are_refused(tmp_path: Path, extra: str) -> None:
    path = write_h5(tmp_path / "a.h5", exchange__data=VOLUME)
    with h5py.File(path, "a") as file:
        file[extra] = np.zeros(12)
    assert found(path) == f"raw projections (the file holds /{extra})"


def test_nexus_default_and_axes(tmp_path: Path) -> None:
    path = write_h5(tmp_path / "a.nxs", other=VOLUME, entry__result__values=VOLUME + 1)
    with h5py.File(path, "a") as file:
        file.attrs["default"] = "entry"
        file["entry"].attrs["default"] = "result"
        group = file["entry/result"]
        group.attrs["NX_class"] = "NXdata"
        group.attrs["signal"] = "values"
        group.attrs["axes"] = ["z", "y", "x"]
        for name, n in zip("zyx", VOLUME.shape, strict=True):
            group[name] = np.arange(n) * 0.002
            group[name].attrs["units"] = "mm"
    source = open_source(path)
    np.testing.assert_array_equal(source.read(0, 12), VOLUME + 1)
    np.testing.assert_allclose(source.voxel_size_um, [2.0] * 3)
    del source
    with h5py.File(path, "a") as file:
        file.attrs["default"] = "gone"
    assert found(path) == "@default of / names 'gone', which is no group"


def test_only_or_ambiguous_data_set(tmp_path: Path) -> None:
    path = write_h5(tmp_path / "a.h5", deep__inside=VOLUME, flat=VOLUME[0])
    np.testing.assert_array_equal(open_source(path).read(0, 12), VOLUME)
    write_h5(path, b=VOLUME, a=VOLUME.astype(np.uint8))
    assert found(path) == "2 3-D data sets: /a (12, 9, 7) uint8, /b (12, 9, 7) uint16"
    assert found(path, "c") == "nothing at 'c'"
    write_h5(path, flat=VOLUME[0])
    assert found(path) == "no 3-D numeric data set"
    assert found(path, "flat") == "'flat' of shape (9, 7)"


def test_hdf5_that_reads_as_zeros_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("v", VOLUME.shape, "u2")
    assert found(path) == "/v was created but never written"
    with h5py.File(path, "w") as file:
        data = file.create_dataset("v", VOLUME.shape, "u2", chunks=(4, 9, 7), **hdf5plugin.Zstd())
        data[:4] = VOLUME[:4]
    source = open_source(path)
    assert source.warnings == ["2 of 3 chunks of /v were never written; they read as 0"]
    assert source.compressed
    assert source.depth == 4
    del source
    part = write_h5(tmp_path / "part.h5", v=VOLUME)
    layout = h5py.VirtualLayout(VOLUME.shape, "u2")
    layout[:] = h5py.VirtualSource("part.h5", "v", VOLUME.shape)
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("v", layout)
    assert [f.name for f in open_source(path, external_links="beside").files] == ["a.h5", "part.h5"]
    part.unlink()
    assert found(path, external_links="beside") == "/v takes voxels from part.h5, which is missing"


def test_truncated_hdf5(tmp_path: Path) -> None:
    path = write_h5(tmp_path / "a.h5", v=VOLUME)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert found(path) == f"a truncated file of {len(data) // 2} bytes"


def test_a_refused_lock_is_told_from_a_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HDF5 says with HDF5_USE_FILE_LOCKING=TRUE on a file system that refuses locks."""
    path = write_h5(tmp_path / "scan.h5", v=VOLUME)

    def refused(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Unable to synchronously open file (unable to lock file, errno = 11)")

    monkeypatch.setattr(h5py, "File", refused)
    with pytest.raises(InputError, match="no lock to be had") as caught:
        open_source(path)
    assert "unset HDF5_USE_FILE_LOCKING" in str(caught.value)


def test_content_digest_is_of_the_voxels_alone(tmp_path: Path) -> None:
    deep = tmp_path / "deep.h5"
    with h5py.File(deep, "w") as file:
        file.create_dataset("v", data=VOLUME.astype(">u2"), chunks=(12, 3, 7), compression="gzip")
    tifffile.imwrite(tmp_path / "a.tif", VOLUME, photometric="minisblack", compression="deflate")
    stack = write_stack(tmp_path / "stack", VOLUME)
    digests = {content_digest(open_source(p)) for p in (deep, tmp_path / "a.tif", stack)}
    assert len(digests) == 1
    changed = VOLUME.copy()
    changed[11, 8, 6] += 1
    assert content_digest(open_source(write_h5(tmp_path / "b.h5", v=changed))) not in digests
    assert combine_digests(["a"], (1, 2, 3), np.dtype("u1")) != combine_digests(["a"], (1, 3, 2), np.dtype("u1"))


def test_task_borders_follow_chunks(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("v", data=np.zeros((50, 4, 4), np.uint8), chunks=(12, 4, 4))
    source = open_source(tmp_path / "a.h5")
    assert task_borders(source) == [(0, 24), (24, 48), (48, 50)]
    assert task_borders(source, budget_mb=1e-5)[:2] == [(0, 8), (8, 16)]


def test_colour_masks_become_numbers(tmp_path: Path) -> None:
    colours = np.array([[0, 0, 255], [255, 0, 0], [0, 128, 0]], np.uint8)
    classes = np.random.default_rng(1).integers(0, 3, (3, 6, 5))
    stack = write_stack(tmp_path / "masks", colours[classes], photometric="rgb", compression="lzw")
    labels = open_labels(stack)
    assert labels.mapping == {0: "#0000ff", 1: "#008000", 2: "#ff0000"}
    np.testing.assert_array_equal(labels.read(0, 3), np.array([0, 2, 1])[classes])
    assert found(stack) == "colour images of 3 channels"
    noisy = np.random.default_rng(2).integers(0, 255, (3, 20, 20, 3)).astype(np.uint8)
    with pytest.raises(InputError, match="more than 64 colours"):
        open_labels(write_stack(tmp_path / "noisy", noisy, photometric="rgb"))


def test_label_values_are_kept(tmp_path: Path) -> None:
    mask = (VOLUME > 500).astype(np.uint8) * 255
    tifffile.imwrite(tmp_path / "m.tif", mask, photometric="minisblack")
    labels = open_labels(tmp_path / "m.tif")
    assert labels.mapping == {}
    np.testing.assert_array_equal(labels.read(0, 12), mask)
    whole = open_labels(write_h5(tmp_path / "f.h5", v=mask.astype(np.float32)))
    assert whole.read(0, 1).dtype == np.int64
    with pytest.raises(InputError, match="no whole numbers"):
        open_labels(write_h5(tmp_path / "g.h5", v=VOLUME + 0.5)).read(0, 1)


def test_every_data_set_of_a_part_is_looked_for(tmp_path: Path) -> None:
    layout = h5py.VirtualLayout(VOLUME.shape, VOLUME.dtype)
    half = len(VOLUME) // 2
    layout[:half] = h5py.VirtualSource("part.h5", "first", VOLUME[:half].shape)
    layout[half:] = h5py.VirtualSource("part.h5", "second", VOLUME[half:].shape)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_virtual_dataset("v", layout)
    write_h5(tmp_path / "part.h5", first=VOLUME[:half], second=VOLUME[half:])
    source = open_source(tmp_path / "a.h5", external_links="beside")
    np.testing.assert_array_equal(source.read(0, len(VOLUME)), VOLUME)
    del source
    write_h5(tmp_path / "part.h5", first=VOLUME[:half])
    assert (
        found(tmp_path / "a.h5", external_links="beside") == "/v takes voxels from second of part.h5, which is missing"
    )


def test_parts_are_looked_for_where_hdf5_does(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    layout = h5py.VirtualLayout(VOLUME.shape, VOLUME.dtype)
    layout[:] = h5py.VirtualSource("parts/p.h5", "v", VOLUME.shape)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_virtual_dataset("v", layout)
    write_h5(tmp_path / "p.h5", v=VOLUME)
    wanted = "/v takes voxels from parts/p.h5, which is missing"
    assert found(tmp_path / "a.h5", external_links="beside") == wanted


def test_bare_voxels_beside_an_hdf5_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bare.raw").write_bytes(VOLUME.tobytes())
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("v", VOLUME.shape, VOLUME.dtype, external=[("bare.raw", 0, VOLUME.nbytes)])
    monkeypatch.chdir("/")
    source = open_source(tmp_path / "a.h5", external_links="beside")
    np.testing.assert_array_equal(source.read(0, len(VOLUME)), VOLUME)
    del source
    (tmp_path / "bare.raw").write_bytes(VOLUME.tobytes()[:100])
    assert found(tmp_path / "a.h5", external_links="beside") == "a truncated file of 100 bytes"


@pytest.mark.parametrize("size", ["0.65 um", h5py.Empty("f8"), "none"])
def test_a_voxel_size_that_makes_no_sense_is_a_warning(tmp_path: Path, size: Any) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["v"] = VOLUME
        file["v"].attrs["voxel_size"] = size
    source = open_source(tmp_path / "a.h5")
    assert source.voxel_size_um is None
    (warning,) = source.size_warnings
    assert "set `voxel_size_um`" in warning


def linked_outside(folder: Path, kind: str) -> Path:
    """A scan whose voxels lie in a file outside its folder, by one of HDF5's three ways, or through a part."""
    home = folder / "scan"
    home.mkdir()
    write_h5(folder / "secret.h5", v=VOLUME)
    (folder / "secret.raw").write_bytes(VOLUME.tobytes())
    path = home / "a.h5"
    with h5py.File(path, "w") as file:
        if kind == "external link":
            file["v"] = h5py.ExternalLink("../secret.h5", "v")
        elif kind == "external storage":
            name = str(folder / "secret.raw")
            file.create_dataset("v", VOLUME.shape, VOLUME.dtype, external=[(name, 0, VOLUME.nbytes)])
        else:
            layout = h5py.VirtualLayout(VOLUME.shape, VOLUME.dtype)
            source = "../secret.h5" if kind == "virtual data set" else "part.h5"
            layout[:] = h5py.VirtualSource(source, "v", VOLUME.shape)
            file.create_virtual_dataset("v", layout)
    if kind == "link in a part":
        with h5py.File(home / "part.h5", "w") as file:
            file["v"] = h5py.ExternalLink("../secret.h5", "v")
    return path


@pytest.mark.parametrize("kind", ["external link", "external storage", "virtual data set", "link in a part"])
def test_voxels_outside_the_folder_of_a_file_are_read_only_if_asked_for(tmp_path: Path, kind: str) -> None:
    path = linked_outside(tmp_path, kind)
    with pytest.raises(Linked, match=r"a link to v in \.\./secret|takes its values from"):
        open_source(path, "v")
    with pytest.raises(InputError) as error:
        open_source(path, "v", external_links="beside")
    assert "outside the folder of a.h5" in error.value.found
    assert "set `ingest: {external_links: any}` in config.yaml" in error.value.remedy
    np.testing.assert_array_equal(open_source(path, "v", external_links="any").read(0, len(VOLUME)), VOLUME)


def leading_beside(folder: Path, kind: str) -> tuple[Path, str]:
    """A scan that leads to a file beside it, in one of the ways that HDF5 has, and how the error says so."""
    write_h5(folder / "part.h5", v=VOLUME)
    (folder / "part.raw").write_bytes(VOLUME.tobytes())
    layout = h5py.VirtualLayout(VOLUME.shape, VOLUME.dtype)
    layout[:] = h5py.VirtualSource("part.h5", "v", VOLUME.shape)
    inner = h5py.VirtualLayout(VOLUME.shape, VOLUME.dtype)
    inner[:] = h5py.VirtualSource(".", "below/v", VOLUME.shape)
    with h5py.File(folder / "a.h5", "w") as file:
        if kind == "external link":
            file["v"] = h5py.ExternalLink("part.h5", "/v")
            return folder / "a.h5", "/v is a link to /v in part.h5"
        if kind == "group behind a link":
            file["entry"] = h5py.ExternalLink("part.h5", "/")
            file["v"] = h5py.SoftLink("entry/v")
            return folder / "a.h5", "/entry is a link to / in part.h5"
        if kind == "soft link to a link":
            file["deep/er/v"] = h5py.ExternalLink("part.h5", "v")
            file["deep/in"] = h5py.SoftLink("er")
            file["v"] = h5py.SoftLink("/deep/./in/v")
            return folder / "a.h5", "/deep/er/v is a link to v in part.h5"
        if kind == "external storage":
            file.create_dataset("v", VOLUME.shape, VOLUME.dtype, external=[("part.raw", 0, VOLUME.nbytes)])
            return folder / "a.h5", "/v takes its values from part.raw"
        if kind == "virtual data set":
            file.create_virtual_dataset("v", layout)
            return folder / "a.h5", "/v takes its values from part.h5"
        file.create_virtual_dataset("v", inner)
        if kind == "virtual data set over a link":
            file["below/v"] = h5py.ExternalLink("part.h5", "v")
            return folder / "a.h5", "/below/v is a link to v in part.h5"
        file.create_virtual_dataset("below/v", layout)
        return folder / "a.h5", "/below/v takes its values from part.h5"


LEADING = (
    *("external link", "group behind a link", "soft link to a link", "external storage", "virtual data set"),
    *("virtual data set over a link", "virtual data set over a virtual one"),
)


@pytest.mark.parametrize("kind", LEADING)
def test_an_hdf5_file_leads_to_another_only_if_asked_for(tmp_path: Path, kind: str) -> None:
    path, wanted = leading_beside(tmp_path, kind)
    for name in ("v", None):
        with pytest.raises(Linked) as error:
            open_source(path, name)
        assert error.value.found == wanted
        assert error.value.where == str(path)
        assert error.value.expected == "voxels in the file itself, as long as `ingest.external_links` is none"
        assert error.value.remedy == (
            "if you trust where the scan comes from, set `ingest: {external_links: beside}` in config.yaml; "
            "labels, truths and movies have to be whole in one file"
        )
        assert [file.name for file in error.value.files] == [wanted.rsplit(" ", 1)[1]]
    with pytest.raises(Linked):
        open_labels(path, "v")
    for value in ("beside", "any"):
        np.testing.assert_array_equal(open_source(path, "v", external_links=value).read(0, len(VOLUME)), VOLUME)


def test_a_link_is_refused_without_a_look_at_the_other_file(tmp_path: Path) -> None:
    """A pipe there would keep whoever opens it waiting."""
    os.mkfifo(tmp_path / "part.h5")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["entry"] = h5py.ExternalLink("part.h5", "/")
    words = f"from beamseg.readers import open_source; open_source({str(tmp_path / 'a.h5')!r})"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, timeout=120)
    assert "/entry is a link to / in part.h5" in done.stderr


def test_links_that_the_voxels_do_not_need_stay_shut(tmp_path: Path) -> None:
    """What is looked for at a link is refused, also a voxel size; a link elsewhere in the file is nothing."""
    path = write_h5(tmp_path / "a.h5", exchange__data=VOLUME)
    with h5py.File(path, "a") as file:
        file["raw"] = h5py.ExternalLink("gone.h5", "/")
    np.testing.assert_array_equal(open_source(path).read(0, len(VOLUME)), VOLUME)
    with h5py.File(path, "a") as file:
        file["measurement"] = h5py.ExternalLink("gone.h5", "/")
    with pytest.raises(Linked, match="/measurement is a link"):
        open_source(path)


def test_a_file_with_a_volume_of_its_own_and_a_link_says_that_it_may_be_named(tmp_path: Path) -> None:
    path = write_h5(tmp_path / "a.h5", preview=VOLUME)
    with h5py.File(path, "a") as file:
        file["scan"] = h5py.ExternalLink("/data/scan.h5", "v")
    with pytest.raises(Linked, match="/scan is a link to v in /data/scan") as error:
        open_source(path)
    assert "{external_links: any}` in config.yaml, or name a data set of the file itself" in error.value.remedy
    np.testing.assert_array_equal(open_source(path, "preview").read(0, len(VOLUME)), VOLUME)


def test_links_in_circles_are_nothing(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["v"], file["w"] = h5py.SoftLink("/w"), h5py.SoftLink("/v")
    assert "too many links" in found(tmp_path / "a.h5", dataset="v")


def naming(path: Path, voxels: Path, name: str) -> Path:
    """A scan at `path`, of the format of its suffix, whose voxels lie in the file or folder `voxels`, called `name`."""
    path.parent.mkdir(exist_ok=True)
    voxels.parent.mkdir(exist_ok=True)
    if path.suffix == ".zarr":
        write_ome_zarr(voxels, [VOLUME])
        group = zarr.open_group(write_ome_zarr(path, [VOLUME]), mode="r+")
        described = dict(group.attrs["ome"])
        described["multiscales"][0]["datasets"][0]["path"] = f"{name}/0" if Path(name).is_absolute() else f"../{name}/0"
        group.attrs["ome"] = described
    elif path.suffix == ".tif":
        tifffile.imwrite(voxels, VOLUME, compression="deflate", photometric="minisblack", metadata=None)
        pages = "".join(
            f'<TiffData IFD="{z}" FirstZ="{z}" PlaneCount="1"><UUID FileName="{name}">urn:uuid:2</UUID></TiffData>'
            for z in range(len(VOLUME))
        )
        sizes = 'SizeX="7" SizeY="9" SizeZ="12" SizeC="1" SizeT="1"'
        text = (
            '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
            f'UUID="urn:uuid:1"><Image ID="I"><Pixels ID="P" DimensionOrder="XYZCT" Type="uint16" {sizes}>{pages}'
            "</Pixels></Image></OME>"
        )
        tifffile.imwrite(path, VOLUME[0], description=text, metadata=None)
    else:
        {".mhd": write_mhd, ".nhdr": write_nhdr}[path.suffix](path, VOLUME)
        path.with_suffix(".raw").rename(voxels)
        path.write_text(path.read_text().replace(f"{path.stem}.raw", name))
    return path


@pytest.mark.filterwarnings("ignore:.*reading array from closed file")  # tifffile opens the other file anew
@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("suffix", ["zarr", "mhd", "nhdr", "tif"])
def test_files_that_a_header_names_are_read_beside_and_below_and_elsewhere_only_if_asked_for(
    tmp_path: Path, suffix: str, absolute: bool
) -> None:
    home, outside = tmp_path / "home", tmp_path / "secret"
    path = naming(home / f"a.{suffix}", outside, str(outside) if absolute else "../secret")
    with pytest.raises(InputError, match=f"outside the folder of a.{suffix}") as error:
        open_source(path)
    assert "ingest: {external_links: any}" in error.value.remedy
    np.testing.assert_array_equal(open_source(path, external_links="any").read(0, len(VOLUME)), VOLUME)
    inside = home / "below" / "voxels"
    path = naming(home / f"b.{suffix}", inside, str(inside) if absolute else "below/voxels")
    np.testing.assert_array_equal(open_source(path).read(0, len(VOLUME)), VOLUME)


def test_an_image_inside_a_store_may_name_levels_outside_only_if_asked_for(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "home" / "store.zarr", mode="w")
    naming(tmp_path / "home" / "store.zarr" / "image.zarr", tmp_path / "secret", "../../secret")
    with pytest.raises(InputError, match=r"outside the folder of store\.zarr"):
        open_source(tmp_path / "home" / "store.zarr")
    found = open_source(tmp_path / "home" / "store.zarr", external_links="any")
    np.testing.assert_array_equal(found.read(0, len(VOLUME)), VOLUME)


def test_a_symbolic_link_to_voxels_outside_is_followed_only_if_asked_for(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    path = write_mhd(tmp_path / "home" / "a.mhd", VOLUME)
    path.with_suffix(".raw").rename(tmp_path / "secret")
    path.with_suffix(".raw").symlink_to(tmp_path / "secret")
    assert "a.raw, outside the folder of a.mhd" in found(path)


def test_a_virtual_data_set_that_leads_to_itself_is_refused(tmp_path: Path) -> None:
    for one, other in (("a", "b"), ("b", "a")):
        layout = h5py.VirtualLayout(VOLUME.shape, VOLUME.dtype)
        layout[:] = h5py.VirtualSource(f"{other}.h5", "v", VOLUME.shape)
        with h5py.File(tmp_path / f"{one}.h5", "w") as file:
            file.create_virtual_dataset("v", layout)
    with pytest.raises(InputError, match="leads through more than 8 files"):
        open_source(tmp_path / "a.h5", "v", external_links="beside")
