"""Bad input: each is made, and the user reads what was found where, what is wanted and what to do.

The cases are the rows of the table in docs/inputs.md.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from beamseg.config import read_table
from beamseg.errors import InputError
from beamseg.ingest import refuse_blank, refuse_thin
from beamseg.readers import open_source
from formats import write_mhd, write_mrc, write_nhdr, write_ome_zarr, write_stack, write_vol

DOCS = Path(__file__).resolve().parents[1] / "docs" / "inputs.md"
VOLUME = np.random.default_rng(0).integers(0, 1000, (12, 9, 7)).astype(np.uint16)
Case = tuple[Path, dict[str, Any]]
CASES: dict[str, tuple[Callable[[Path], Path], str, str, dict[str, Any]]] = {}


def case(name: str, found: str, remedy: str, **how: Any) -> Callable[[Callable[[Path], Path]], Callable[[Path], Path]]:
    """Register a maker of bad input: a pattern of what was found, a part of the remedy, and how it is opened."""

    def register(make: Callable[[Path], Path]) -> Callable[[Path], Path]:
        CASES[name] = (make, found, remedy, how)
        return make

    return register


def pages(path: Path, volume: np.ndarray = VOLUME, **options: Any) -> Path:
    tifffile.imwrite(path, volume, photometric="minisblack", **options)
    return path


def cut(path: Path, size: int) -> Path:
    path.write_bytes(path.read_bytes()[:size])
    return path


def h5(path: Path, **data: np.ndarray) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in data.items():
            file[name.replace("__", "/")] = array
    return path


@case("missing slice", r"^2 numbers missing between the slices: 3, 7$", "allow_gaps")
def missing_slice(folder: Path) -> Path:
    stack = write_stack(folder / "stack", VOLUME, "s_{:03d}.tif")
    (stack / "s_003.tif").unlink()
    (stack / "s_007.tif").unlink()
    return stack


@case("duplicate index", r"^numbers used twice: 5 \(s_05.tif, s_5.tif\)$", "remove the copies")
def duplicate_index(folder: Path) -> Path:
    stack = write_stack(folder / "stack", VOLUME)
    tifffile.imwrite(stack / "s_05.tif", VOLUME[5])
    return stack


@case(
    "two series in one folder",
    r"^files of 2 series: a_0.tif … \(12\), b_0.tif … \(12\)$",
    "put each series in a folder",
)
def two_series(folder: Path) -> Path:
    stack = write_stack(folder / "stack", VOLUME, "a_{}.tif")
    for z, plane in enumerate(VOLUME):
        tifffile.imwrite(stack / f"b_{z}.tif", plane)
    return stack


@case(
    "two scans of one name in one folder", r"^files of 2 series: scan_01_0000.tif … \(12\), scan_02_0000.tif", "folder"
)
def two_scans(folder: Path) -> Path:
    stack = write_stack(folder / "stack", VOLUME, "scan_01_{:04d}.tif")
    for z, plane in enumerate(VOLUME):
        tifffile.imwrite(stack / f"scan_02_{z:04d}.tif", plane)
    return stack


@case("mixed shapes", r"^a slice of shape \(5, 7\), uint16$", "remove the file or mend it")
def mixed_shapes(folder: Path) -> Path:
    stack = write_stack(folder / "stack", VOLUME)
    tifffile.imwrite(stack / "s_3.tif", VOLUME[0, :5])
    return stack


@case("mixed types", r"^a slice of shape \(9, 7\), uint8$", "remove the file or mend it")
def mixed_types(folder: Path) -> Path:
    stack = write_stack(folder / "stack", VOLUME)
    tifffile.imwrite(stack / "s_3.tif", VOLUME[0].astype(np.uint8))
    return stack


@case("colour images", r"^colour images of 3 channels$", "convert the images to grey")
def colour(folder: Path) -> Path:
    return write_stack(folder / "rgb", np.zeros((3, 8, 8, 3), np.uint8), photometric="rgb")


@case("complex numbers", r"^complex numbers$", "modulus")
def complex_numbers(folder: Path) -> Path:
    return h5(folder / "a.h5", v=VOLUME.astype(np.complex64))


@case("complex MRC", r"^mode 4, complex numbers$", "newstack")
def complex_mrc(folder: Path) -> Path:
    return write_mrc(folder / "a.mrc", VOLUME.astype(np.complex64))


@case("empty folder", r"^an empty folder$", "correct the path")
def empty_folder(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


@case("folder without images", r"^no TIFF files among 1 \(\.txt\)$", "save the slices as TIFF")
def no_images(folder: Path) -> Path:
    (folder / "notes").mkdir()
    (folder / "notes" / "a.txt").write_text("x")
    return folder / "notes"


@case("empty file", r"^an empty file \(0 bytes\)$", "copy the file again")
def empty_file(folder: Path) -> Path:
    (folder / "a.tif").write_bytes(b"")
    return folder / "a.tif"


@case("no such path", r"^no such file or folder$", "counts from the sample table")
def no_path(folder: Path) -> Path:
    return folder / "nowhere"


@case("unknown content", r"^a file of unknown content$", "header file")
def unknown(folder: Path) -> Path:
    (folder / "a.raw").write_bytes(VOLUME.tobytes())
    return folder / "a.raw"


@case("truncated TIFF", r"^a truncated file of 1000 bytes, cut after page 1$", "copy the file again")
def truncated_tiff(folder: Path) -> Path:
    return cut(pages(folder / "a.tif"), 1000)


@case("TIFF cut between pages", r"^a truncated file of \d+ bytes, cut after page \d+$", "copy the file again")
def cut_between_pages(folder: Path) -> Path:
    path = pages(folder / "a.tif", compression="deflate")
    return cut(path, path.stat().st_size // 2)


@case("multi-page TIFF that ends after one page", r"^1 slices$", "copy the file again")
def one_page(folder: Path) -> Path:
    path = pages(folder / "a.tif", compression="deflate")
    with tifffile.TiffFile(path) as file:
        second = file.pages[1].offset
    data = bytearray(path.read_bytes()[:second])
    at = data.index(struct.pack("<I", second))
    data[at : at + 4] = bytes(4)  # no next page, as a writer that died leaves it
    path.write_bytes(data)
    return path


@case("TIFF whose writing failed", r"^a page without pixels, shape \(0, 0\), in \d+ bytes$", "wait until it is written")
def failed_write(folder: Path) -> Path:
    with pytest.warns(UserWarning, match="zero-size"):
        tifffile.imwrite(folder / "a.tif", np.zeros((0,), np.uint8))
    return folder / "a.tif"


@case("several pages in a slice of a stack", r"^3 pages$", "split the file")
def paged_slice(folder: Path) -> Path:
    stack = write_stack(folder / "stack", VOLUME)
    pages(stack / "s_0.tif", VOLUME[:3])
    return stack


@case("truncated HDF5", r"^a truncated file of \d+ bytes$", "copy the file again")
def truncated_h5(folder: Path) -> Path:
    path = h5(folder / "a.h5", v=VOLUME)
    return cut(path, path.stat().st_size // 2)


def virtual(folder: Path) -> Path:
    layout = h5py.VirtualLayout(VOLUME.shape, VOLUME.dtype)
    for k in range(2):
        h5(folder / f"part_{k}.h5", v=VOLUME[6 * k : 6 * k + 6])
        layout[6 * k : 6 * k + 6] = h5py.VirtualSource(f"part_{k}.h5", "v", (6, 9, 7))
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_virtual_dataset("v", layout)
    return folder / "a.h5"


@case(
    "voxels in other files",
    r"^/v takes its values from part_0.h5 and 1 more$",
    "if you trust where the scan comes from, set `ingest: {external_links: beside}` in config.yaml",
)
def in_parts(folder: Path) -> Path:
    return virtual(folder)


@case(
    "missing part of a virtual data set",
    r"^/v takes voxels from part_1.h5, which is missing$",
    "copy that file too",
    external_links="beside",
)
def missing_part(folder: Path) -> Path:
    path = virtual(folder)
    (folder / "part_1.h5").unlink()
    return path


@case(
    "voxels from elsewhere",
    r"^/v takes voxels from .*elsewhere.h5, outside the folder of a.h5$",
    "ingest: {external_links: any}",
    external_links="beside",
)
def elsewhere(folder: Path) -> Path:
    (folder / "scan").mkdir()
    with h5py.File(folder / "elsewhere.h5", "w") as file:
        file["v"] = VOLUME
    with h5py.File(folder / "scan" / "a.h5", "w") as file:
        layout = h5py.VirtualLayout(VOLUME.shape, VOLUME.dtype)
        layout[:] = h5py.VirtualSource("../elsewhere.h5", "v", VOLUME.shape)
        file.create_virtual_dataset("v", layout)
    return folder / "scan" / "a.h5"


@case(
    "truncated part of a virtual data set",
    r"^a truncated or damaged part of 900 bytes",
    "copy the file again",
    external_links="beside",
)
def truncated_part(folder: Path) -> Path:
    path = virtual(folder)
    cut(folder / "part_1.h5", 900)
    return path


@case(
    "part without its data set",
    r"^/v takes voxels from v of part_1.h5, which is missing$",
    "copy the file again",
    external_links="beside",
)
def empty_part(folder: Path) -> Path:
    path = virtual(folder)
    h5(folder / "part_1.h5", w=VOLUME)
    return path


@case("header with a word for a number", r"^headersize is 'x'$", "mend the header")
def wrong_word(folder: Path) -> Path:
    path = write_mhd(folder / "a.mhd", VOLUME)
    path.write_text(path.read_text().replace("ElementDataFile", "HeaderSize = x\nElementDataFile"))
    return path


@case(
    "header that fits no definition", r"^a header or metadata that cannot be understood \(KeyError: 'axes'\)$", "export"
)
def no_axes(folder: Path) -> Path:
    path = write_ome_zarr(folder / "a.zarr", [VOLUME])
    group = zarr.open(str(path), mode="r+")
    ome = dict(group.attrs["ome"])
    ome["multiscales"] = [{k: v for k, v in ome["multiscales"][0].items() if k != "axes"}]
    group.attrs["ome"] = ome
    return path


@case("data set never written", r"^/v was created but never written$", "write the scan again")
def never_written(folder: Path) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("v", VOLUME.shape, "u2")
    return folder / "a.h5"


@case("missing filter", r"^/v is compressed by the filter .*\(32999\), which is not installed$", "HDF5_PLUGIN_PATH")
def missing_filter(folder: Path) -> Path:
    with h5py.File(folder / "a.h5", "w") as file:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_chunk((12, 9, 7))
        properties.set_filter(32999, h5py.h5z.FLAG_OPTIONAL)
        space = h5py.h5s.create_simple(VOLUME.shape)
        data = h5py.Dataset(h5py.h5d.create(file.id, b"v", h5py.h5t.NATIVE_UINT16, space, properties))
        data.id.write_direct_chunk((0, 0, 0), VOLUME.tobytes())
    return folder / "a.h5"


@case("ambiguous data set", r"^2 3-D data sets: /a \(12, 9, 7\) uint8, /b \(12, 9, 7\) uint16$", "column `dataset`")
def ambiguous(folder: Path) -> Path:
    return h5(folder / "a.h5", b=VOLUME, a=VOLUME.astype(np.uint8))


@case("no volume in the file", r"^no 3-D numeric data set$", "reconstructed volume")
def no_volume(folder: Path) -> Path:
    return h5(folder / "a.h5", flat=VOLUME[0])


@case(
    "raw projections, Data Exchange",
    r"^raw projections \(the file holds /exchange/data_white\)$",
    "reconstruct the scan",
)
def projections(folder: Path) -> Path:
    return h5(folder / "a.h5", exchange__data=VOLUME, exchange__data_white=VOLUME[:1])


@case("raw projections, NeXus", r"^raw projections \(the file holds /entry/data/image_key\)$", "reconstruct the scan")
def nexus_projections(folder: Path) -> Path:
    return h5(folder / "a.nxs", entry__data__data=VOLUME, entry__data__image_key=np.zeros(12))


@case("truncated MRC", r"^a truncated file of 2000 bytes$", "copy the file again")
def truncated_mrc(folder: Path) -> Path:
    return cut(write_mrc(folder / "a.mrc", VOLUME), 2000)


@case("truncated npy", r"^a truncated or damaged .npy file of 200 bytes", "copy the file again")
def truncated_npy(folder: Path) -> Path:
    np.save(folder / "a.npy", VOLUME)
    return cut(folder / "a.npy", 200)


@case("npy of two axes", r"^an array of shape \(9, 7\)$", "one volume per file")
def flat_npy(folder: Path) -> Path:
    np.save(folder / "a.npy", VOLUME[0])
    return folder / "a.npy"


@case("raw voxels that are not as many as the header says", r"^1000 bytes$", "correct its sizes")
def wrong_raw(folder: Path) -> Path:
    path = write_mhd(folder / "a.mhd", VOLUME[:1, :4, :4])
    (folder / "a.raw").write_bytes(bytes(1000))
    return path


@case("raw voxels missing", r"^no such file$", "copy that file too")
def no_raw(folder: Path) -> Path:
    path = write_nhdr(folder / "a.nhdr", VOLUME)
    (folder / "a.raw").unlink()
    return path


@case("truncated .vol", r"^a truncated file of 700 bytes$", "copy the file again")
def truncated_vol(folder: Path) -> Path:
    return cut(write_vol(folder / "a.vol", VOLUME.astype(np.float32)), 700)


@case("compressed MetaImage or NRRD", r"^encoding gzip$", "without compression")
def compressed_nrrd(folder: Path) -> Path:
    path = write_nhdr(folder / "a.nhdr", VOLUME)
    path.write_text(path.read_text().replace("encoding: raw", "encoding: gzip"))
    return path


@case("OME-Zarr of several channels", r"^axes c, z, y, x of shape \(2, 12, 9, 7\)$", "one channel")
def channels(folder: Path) -> Path:
    return write_ome_zarr(folder / "a.zarr", [np.stack([VOLUME, VOLUME])], axes=["c", "z", "y", "x"])


@case("OME-Zarr without chunks", r"^an array without a stored chunk$", "chunks included")
def no_chunks(folder: Path) -> Path:
    path = write_ome_zarr(folder / "a.zarr", [VOLUME])
    for chunk in (path / "0" / "c").rglob("*"):
        if chunk.is_file():
            chunk.unlink()
    return path


@case("several images in a Zarr store", r"^2 images: a, b$", "column `dataset`")
def two_images(folder: Path) -> Path:
    zarr.open_group(folder / "s.zarr", mode="w")
    for name in "ab":
        write_ome_zarr(folder / "s.zarr" / name, [VOLUME])
    return folder / "s.zarr"


@pytest.mark.parametrize("name", CASES)
def test_bad_input(tmp_path: Path, name: str) -> None:
    make, found, remedy, how = CASES[name]
    path = make(tmp_path)
    with pytest.raises(InputError) as error:
        open_source(path, **how)
    assert re.search(found, error.value.found), error.value.found
    assert remedy in error.value.remedy
    assert str(tmp_path) in error.value.where
    assert error.value.expected


def blank(folder: Path, value: float) -> None:
    path = h5(folder / "a.h5", v=np.full((200, 9, 7), value, np.float32))
    refuse_blank(path, open_source(path), {"kind": "full"})


def test_a_scan_without_content_is_refused_before_it_is_read_whole(tmp_path: Path) -> None:
    for value, found in ((np.nan, "no finite voxel"), (np.inf, "no finite voxel"), (3.0, "one value only, 3,")):
        with pytest.raises(InputError) as error:
            blank(tmp_path, value)
        assert error.value.found == f"{found} in the field of view of 64 slices"
        assert "ingest.fov" in error.value.remedy
    sparse = np.zeros((200, 9, 7), np.float32)
    sparse[60:64, 4, 4] = 1
    path = h5(tmp_path / "b.h5", v=sparse)
    refuse_blank(path, open_source(path), {"kind": "full"})


def test_every_case_is_a_row_of_the_documentation() -> None:
    rows = [
        line.split("|")[1].strip()
        for line in DOCS.read_text().split("## Errors")[1].splitlines()
        if line.startswith("| ")
    ]
    assert set(CASES) | OTHER_ROWS == set(rows) - {"what is wrong", "---"}


OTHER_ROWS = {
    "NaN volume",
    "constant volume",
    "labels of another shape",  # test_labels
    "full or read-only disk",  # test_provenance, test_slabs
    "file system without renames",  # test_provenance
    "file system without locks",  # test_slabs
    "file that you may not read",
    "disk error while reading",
    "wrong name of a data set",
    "OME-Zarr level that is not there",
    "chunks never written",
    "two samples of one name",
    "sample name with a path separator",
    "fewer slices than the network sees",
}


@pytest.fixture
def another_user(tmp_path: Path) -> Iterator[None]:
    """Root may read anything, so a test run as root becomes nobody."""
    if os.geteuid():
        yield
        return
    for folder in (tmp_path, *tmp_path.parents):
        if folder == Path("/tmp"):
            break
        folder.chmod(0o755)
    os.seteuid(65534)
    yield
    os.seteuid(0)


@pytest.mark.parametrize("kind", ["file", "folder", "slice"])
def test_file_that_you_may_not_read(
    tmp_path: Path, kind: str, another_user: None, request: pytest.FixtureRequest
) -> None:
    root = os.getuid() == 0
    if root:
        os.seteuid(0)
    path = h5(tmp_path / "a.h5", v=VOLUME) if kind == "file" else write_stack(tmp_path / "stack", VOLUME)
    locked = path / "s_4.tif" if kind == "slice" else path
    locked.chmod(0)
    if root:
        os.seteuid(65534)
    with pytest.raises(InputError) as error:
        open_source(path)
    locked.chmod(0o755) if not root else None
    assert error.value.found == "cannot be read (Permission denied)"
    assert "permission" in error.value.remedy


def test_disk_error_while_reading(tmp_path: Path) -> None:
    source = open_source(h5(tmp_path / "a.h5", v=VOLUME))

    def fails(*_: int) -> np.ndarray:
        raise OSError(5, "Input/output error")

    source.read_window = fails
    with pytest.raises(InputError, match=r"slices 2 to 4 cannot be read \(.*Input/output error\)"):
        source.read(2, 5)


def test_a_gap_that_is_allowed_is_a_warning(tmp_path: Path) -> None:
    source = open_source(missing_slice(tmp_path), allow_gaps=True)
    assert source.shape == (10, 9, 7)
    assert source.warnings == ["2 numbers missing between the slices: 3, 7"]


def test_slices_far_apart_are_a_warning(tmp_path: Path) -> None:
    stack = tmp_path / "stack"
    stack.mkdir()
    for z in (0, 50, 100):
        tifffile.imwrite(stack / f"s_{z}.tif", VOLUME[0])
    (warning,) = open_source(stack).warnings
    assert warning == "the slices are numbered in steps of 50: set `z_continuous: false` if they are that far apart"


def test_wrong_name_of_a_data_set(tmp_path: Path) -> None:
    path = h5(tmp_path / "a.h5", a__v=VOLUME, flat=VOLUME[0])
    for name, found in (("c", "nothing at 'c'"), ("a", "a group at 'a'"), ("flat", r"'flat' of shape (9, 7)")):
        with pytest.raises(InputError) as error:
            open_source(path, name)
        assert error.value.found == found
        assert error.value.remedy == "choose one of: /a/v (12, 9, 7) uint16"


def test_zarr_level_or_image_that_is_not_there(tmp_path: Path) -> None:
    path = write_ome_zarr(tmp_path / "a.zarr", [VOLUME, VOLUME[::2, ::2, ::2]])
    with pytest.raises(InputError) as error:
        open_source(path, level=2)
    assert error.value.found == "level 2 of 2: 0 (12, 9, 7), 1 (6, 5, 4)"
    with pytest.raises(InputError, match="choose one of"):
        open_source(path, "labels/none")


def test_chunks_never_written_are_a_warning(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        data = file.create_dataset("v", VOLUME.shape, "u2", chunks=(4, 9, 7))
        data[:4] = VOLUME[:4]
    assert open_source(tmp_path / "a.h5").warnings == ["2 of 3 chunks of /v were never written; they read as 0"]
    array = zarr.create_array(tmp_path / "b.zarr", shape=VOLUME.shape, chunks=(4, 9, 7), dtype="u2")
    array[:4] = VOLUME[:4]
    assert open_source(tmp_path / "b.zarr").warnings == ["2 of 3 chunks are not stored; they read as 0"]


def test_names_of_samples(tmp_path: Path) -> None:
    table = tmp_path / "samples.tsv"
    for names, found, remedy in (
        (("a", "b", "a"), "sample 'a' in rows 1 and 3", "rename one"),
        (("a", "x/y"), "sample 'x/y'", "letters, digits"),
        (("..",), "sample '..'", "letters, digits"),
    ):
        table.write_text("sample\tpath\n" + "".join(f"{name}\tscan.h5\n" for name in names))
        with pytest.raises(InputError) as error:
            read_table(table)
        assert error.value.found == found
        assert remedy in error.value.remedy


def test_fewer_slices_than_the_network_sees() -> None:
    refuse_thin("a.tif", (7, 9, 9), 7)
    with pytest.raises(InputError) as error:
        refuse_thin("a.tif", (6, 9, 9), 7)
    assert error.value.found == "6 slices of 9×9"
    assert "model.n_slices" in error.value.expected
