"""Formats: what was written is read, in z, y, x, with the voxel size that the file gives."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import zarr

from beamseg.errors import InputError
from beamseg.readers import Source, known_size, open_source
from beamseg.readers.source import content_digest
from formats import (
    write_dm4,
    write_mhd,
    write_mrc,
    write_nhdr,
    write_ome_zarr,
    write_png_stack,
    write_raw,
    write_stack,
    write_vol,
)

VOLUME = np.random.default_rng(0).integers(0, 250, (12, 9, 7)).astype(np.uint8)
SHORT = VOLUME.astype(np.uint16) * 200
FLOAT = VOLUME.astype(np.float32) / 7


def same(source: Source, volume: np.ndarray) -> None:
    """The source holds the volume: whole, in a window, and its digest is that of the array."""
    assert source.shape == volume.shape
    assert source.dtype == volume.dtype
    np.testing.assert_array_equal(source.read(0, 99), volume)
    np.testing.assert_array_equal(source.read(3, 7, slice(2, 6), slice(1, None)), volume[3:7, 2:6, 1:])
    assert source.read(5, 6).dtype.isnative


@pytest.mark.parametrize(
    "name",
    [
        "scan_01_{:04d}.tif",
        "AN37_1{:04d}.rec.8bit.tif",
        "sample1{:04d}.tif",
        "s_{}.TIFF",
        "{:05d}.tif",
        "a{:02d}_of_99.tif",
    ],
)
@pytest.mark.parametrize("start", [0, 1, 95])
def test_names_of_slices(tmp_path: Path, name: str, start: int) -> None:
    source = open_source(write_stack(tmp_path / "stack", SHORT, name, start))
    same(source, SHORT)
    assert source.warnings == []


def test_numbers_of_slice_and_height_vary_together(tmp_path: Path) -> None:
    folder = tmp_path / "stack"
    folder.mkdir()
    for z, plane in enumerate(VOLUME):
        tifffile.imwrite(folder / f"slice_{z:03d}_z{z * 0.65:.2f}.tif", plane)
    same(open_source(folder), VOLUME)


def test_uncompressed_slices_are_read_in_place(tmp_path: Path) -> None:
    """Only the rows that are wanted are taken from the file."""
    source = open_source(write_stack(tmp_path / "stack", SHORT))
    assert not source.compressed
    assert source.chunks == (1, 1, 7)
    for path in source.files:
        path.write_bytes(path.read_bytes()[: -2 * 7 * 2])  # the last two rows go
    np.testing.assert_array_equal(source.read(0, 12, slice(0, 7)), SHORT[:, :7])


def test_imagej_file_over_4_gb_has_one_directory(tmp_path: Path) -> None:
    path = tmp_path / "big.tif"
    with pytest.warns(UserWarning, match="truncating ImageJ"):
        tifffile.imwrite(path, shape=(9, 16384, 16384), dtype="u2", imagej=True)  # a sparse file
    assert path.stat().st_size > 2**32
    with open(path, "r+b") as file:
        file.seek(-2, 2)
        file.write(b"\1\1")
    source = open_source(path)
    assert source.shape == (9, 16384, 16384)
    assert source.read(8, 9, slice(-1, None), slice(-2, None)).tolist() == [[[0, 257]]]
    path.unlink()


@pytest.mark.parametrize("options", [{"bigtiff": True}, {"compression": "zlib"}, {"tile": (16, 16)}])
def test_ome_tiff(tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "a.ome.tif"
    sizes = {"PhysicalSizeX": 650, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.65, "PhysicalSizeZ": 1.3}
    metadata = {"axes": "TZCYX", **sizes}
    tifffile.imwrite(path, SHORT[None, :, None], ome=True, photometric="minisblack", metadata=metadata, **options)
    source = open_source(path)
    same(source, SHORT)
    assert source.voxel_size_um == [1.3, 0.65, 0.65]


@pytest.mark.parametrize(
    ("volume", "fields"),
    [
        (FLOAT, {}),
        (FLOAT.astype(np.float16), {}),
        (SHORT, {}),
        (VOLUME.astype(np.int16), {}),
        ((VOLUME - 125).astype(np.int8), {}),
    ],
)
def test_mrc_modes(tmp_path: Path, volume: np.ndarray, fields: dict[str, Any]) -> None:
    source = open_source(write_mrc(tmp_path / "a.mrc", volume[:, ::-1], 4.6))
    same(source, volume)
    np.testing.assert_allclose(source.voxel_size_um, [4.6e-4] * 3, rtol=1e-6)


@pytest.mark.parametrize("volume", [FLOAT, SHORT, VOLUME.astype(np.int16), VOLUME.astype(np.uint8)])
def test_dm4_series_of_every_type(tmp_path: Path, volume: np.ndarray) -> None:
    source = open_source(write_dm4(tmp_path / "a.dm4", volume))
    same(source, volume)
    assert (source.format, source.voxel_size_um, known_size(source)[1]) == ("dm", [5e-4] * 3, [])


def test_dm4_movies_single_images_and_names_without_a_suffix(tmp_path: Path) -> None:
    movie = open_source(write_dm4(tmp_path / "a.dm4", SHORT, ("nm", "nm", "s")))
    assert movie.voxel_size_um == [5e-4] * 3
    assert "third dimension is given in 's'" in known_size(movie)[1][0]
    image = open_source(write_dm4(tmp_path / "b", SHORT[3]))
    same(image, SHORT[3:4])
    reciprocal = open_source(write_dm4(tmp_path / "c.dm4", SHORT, ("1/nm",) * 3))
    assert reciprocal.voxel_size_um is None


def test_dm4_that_cannot_be_read(tmp_path: Path) -> None:
    path = write_dm4(tmp_path / "a.dm4", SHORT)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"truncated|damaged DM file"):
        open_source(path)
    path.write_bytes(whole[:12] + (0).to_bytes(4, "big") + whole[16:])
    with pytest.raises(InputError, match="big-endian"):
        open_source(path)
    write_dm4(path, SHORT.astype(np.complex64))
    with pytest.raises(InputError, match="complex numbers"):
        open_source(path)


def test_mrc_bytes_of_imod_and_by_their_range(tmp_path: Path) -> None:
    """Mode 0 is signed by the standard; IMOD says otherwise in its flags, others by a maximum beyond 127."""
    signed = VOLUME.view(np.int8)
    path = write_mrc(tmp_path / "a.rec", signed[:, ::-1], dmax=249.0)
    same(open_source(path), VOLUME)
    write_mrc(path, signed[:, ::-1], dmax=100.0)
    same(open_source(path), signed)
    for flags, expected in ((0, VOLUME), (1, signed)):
        head = bytearray(path.read_bytes())
        head[152:160] = np.array([1146047817, flags], "<i4").tobytes()
        path.write_bytes(head)
        same(open_source(path), expected)


def test_mrc_header_order_extended_header_and_old_files(tmp_path: Path) -> None:
    # Sections along y, rows along z: mapc, mapr, maps = 1, 3, 2.
    path = write_mrc(tmp_path / "a.mrc", SHORT.transpose(1, 0, 2)[::-1], mapc=1, mapr=3, maps=2)
    same(open_source(path), SHORT)
    path = write_mrc(tmp_path / "b.mrc", SHORT[:, ::-1])
    data = bytearray(path.read_bytes())
    data[92:96] = np.array(96, "<i4").tobytes()
    path.write_bytes(data[:1024] + bytes(96) + data[1024:])
    same(open_source(path), SHORT)
    old = bytearray(write_mrc(tmp_path / "c.rec", SHORT[:, ::-1]).read_bytes())
    old[208:216] = bytes(8)  # neither stamp nor byte order, as before MRC 2000
    (tmp_path / "c.rec").write_bytes(old)
    same(open_source(tmp_path / "c.rec"), SHORT)


def test_mrc_of_imod_before_trimvol_asks_for_axes(tmp_path: Path) -> None:
    path = write_mrc(tmp_path / "full.rec", np.zeros((30, 8, 32), np.int16))
    (warning,) = open_source(path).warnings
    assert "ingest.axes: yzx" in warning
    assert open_source(path, axes="yzx").shape == (8, 30, 32)


def test_npy(tmp_path: Path) -> None:
    for volume in (FLOAT, np.asfortranarray(SHORT), VOLUME.astype(">i2")):
        np.save(tmp_path / "a.npy", volume)
        same(open_source(tmp_path / "a.npy"), volume.astype(volume.dtype.newbyteorder("=")))


@pytest.mark.parametrize("volume", [FLOAT, SHORT, VOLUME])
def test_raw_volumes_with_a_header(tmp_path: Path, volume: np.ndarray) -> None:
    same(open_source(write_mhd(tmp_path / "a.mhd", volume)), volume)
    same(open_source(write_nhdr(tmp_path / "b.nhdr", volume)), volume)
    path = write_vol(tmp_path / "c.vol", volume)
    same(open_source(path), volume)
    same(open_source(tmp_path / "c.vol.info"), volume)


def test_headers_and_voxels_in_one_file_and_big_endian(tmp_path: Path) -> None:
    big = SHORT.astype(">u2")
    path = write_mhd(tmp_path / "a.mhd", SHORT, BinaryDataByteOrderMSB="True")
    write_raw(tmp_path / "a.raw", big)
    same(open_source(path), SHORT)
    head = path.read_bytes().replace(b"ElementDataFile = a.raw", b"ElementDataFile = LOCAL")
    (tmp_path / "a.mha").write_bytes(head + big.tobytes())
    same(open_source(tmp_path / "a.mha"), SHORT)
    head = write_nhdr(tmp_path / "b.nhdr", SHORT).read_bytes().replace(b"data file: b.raw\n", b"\n")
    (tmp_path / "b.nrrd").write_bytes(head.replace(b"little", b"big") + big.tobytes())
    same(open_source(tmp_path / "b.nrrd"), SHORT)
    path = write_vol(tmp_path / "c.vol", FLOAT.astype(">f4"), order="HIGHBYTEFIRST")
    same(open_source(path), FLOAT)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_levels_and_both_scales(tmp_path: Path, version: str) -> None:
    levels = [SHORT, SHORT[::2, ::2, ::2]]
    scales, whole = [[2, 0.5, 0.5], [4, 1, 1]], [1, 1.3, 1.3]
    path = write_ome_zarr(tmp_path / "a.zarr", levels, version, scales=scales, whole=whole)
    source = open_source(path)
    same(source, SHORT)
    np.testing.assert_allclose(source.voxel_size_um, [2, 0.65, 0.65])
    coarse = open_source(path, level=1)
    same(coarse, levels[1])
    np.testing.assert_allclose(coarse.voxel_size_um, [4, 1.3, 1.3])


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_ome_zarr_of_five_axes_and_other_orders(tmp_path: Path, version: str) -> None:
    axes, scale = ["t", "c", "z", "y", "x"], [[1, 1, 3, 2, 2]]
    path = write_ome_zarr(tmp_path / "a.zarr", [SHORT[None, None]], version, axes, "nanometer", scale)
    source = open_source(path)
    same(source, SHORT)
    np.testing.assert_allclose(source.voxel_size_um, [3e-3, 2e-3, 2e-3])
    path = write_ome_zarr(tmp_path / "b.zarr", [SHORT.transpose(2, 1, 0)], version, ["x", "y", "z"], scales=[[2, 3, 4]])
    same(open_source(path), SHORT)
    assert open_source(path).voxel_size_um == [4, 3, 2]


def test_ome_zarr_shards_labels_inside_and_bare_arrays(tmp_path: Path) -> None:
    path = write_ome_zarr(tmp_path / "a.zarr", [SHORT], shards=(12, 9, 7))
    same(open_source(path), SHORT)
    write_ome_zarr(path / "labels" / "cells", [VOLUME])
    same(open_source(path, "labels/cells"), VOLUME)
    same(open_source(path), SHORT)
    same(open_source(path / "0"), SHORT)


@pytest.mark.parametrize("version", [2, 3])
def test_a_bare_array_that_names_its_axes(tmp_path: Path, version: int) -> None:
    names = {"dimension_names": ["x", "y", "z"]} if version == 3 else {"attributes": {"_ARRAY_DIMENSIONS": list("xyz")}}
    array = zarr.create_array(tmp_path / "a", shape=(7, 9, 12), dtype="u2", zarr_format=version, **names)
    array[:] = SHORT.transpose(2, 1, 0)
    same(open_source(tmp_path / "a"), SHORT)


def test_ome_zarr_in_metres_keeps_its_digits(tmp_path: Path) -> None:
    path = write_ome_zarr(tmp_path / "a.zarr", [SHORT], unit="meter", scales=[[1.4567e-10] * 3])
    assert open_source(path).voxel_size_um == [1.4567e-4] * 3


def test_nrrd_with_a_unit_for_each_axis(tmp_path: Path) -> None:
    path = write_nhdr(tmp_path / "a.nhdr", SHORT, "spacings: 500 0.5 2", 'units: "nm" "um" "um"')
    assert open_source(path).voxel_size_um == [2, 0.5, 0.5]


def test_tiff_pages_that_were_written_one_by_one(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        for plane in SHORT:
            writer.write(plane)
    same(open_source(tmp_path / "a.tif"), SHORT)


def test_ome_tiff_over_several_files_names_them_all(tmp_path: Path) -> None:
    text = (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels ID="Pixels:0" '
        f'DimensionOrder="XYZCT" Type="uint16" SizeX="7" SizeY="9" SizeZ="{len(SHORT)}" SizeC="1" SizeT="1">'
    )
    for z in range(len(SHORT)):
        place = f'FirstZ="{z}" IFD="0" PlaneCount="1"'
        text += f'<TiffData {place}><UUID FileName="z{z:02d}.ome.tif">urn:uuid:{z:036d}</UUID></TiffData>'
    for z, plane in enumerate(SHORT):
        one = text.replace("<OME ", f'<OME UUID="urn:uuid:{z:036d}" ') + "</Pixels></Image></OME>"
        options = {"description": one.encode(), "metadata": None, "compression": "zlib"}
        tifffile.imwrite(tmp_path / f"z{z:02d}.ome.tif", plane, **options)
    source = open_source(tmp_path / "z00.ome.tif")
    same(source, SHORT)
    assert [file.name for file in source.files] == [f"z{z:02d}.ome.tif" for z in range(len(SHORT))]


@pytest.mark.parametrize("options", [{"compression": "zlib"}, {"tile": (16, 16)}])
def test_threads_may_read_one_tiff_together(tmp_path: Path, options: dict[str, Any]) -> None:
    volume = np.random.default_rng(0).integers(0, 60000, (64, 128, 128)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", volume, photometric="minisblack", **options)
    source = open_source(tmp_path / "a.tif")
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            planes = list(pool.map(lambda z: source.read(z, z + 1)[0], range(len(volume))))
            np.testing.assert_array_equal(planes, volume)


def test_png_stack(tmp_path: Path) -> None:
    same(open_source(write_png_stack(tmp_path / "a", SHORT)), SHORT)


def h5(path: Path, data: dict[str, np.ndarray], attrs: dict[str, dict[str, Any]] | None = None) -> Path:
    path.unlink(missing_ok=True)
    with h5py.File(path, "w") as file:
        for name, array in data.items():
            file[name] = array
        for name, values in (attrs or {}).items():
            for key, value in values.items():
                file.require_group(name) if name not in file else None
                file[name].attrs[key] = value
    return path


def test_savu_output_has_its_vertical_axis_second(tmp_path: Path) -> None:
    """(voxel_x, voxel_y, voxel_z), and voxel_y is the vertical one; linked from another file, beside raw data."""
    stored = SHORT.transpose(1, 0, 2)
    attrs = {"signal": "data", "axes": ["voxel_x", "voxel_y", "voxel_z"], "NX_class": "NXdata"}
    h5(tmp_path / "recon.h5", {"3-AstraReconCpu-tomo/data": stored}, {"3-AstraReconCpu-tomo": attrs})
    path = h5(tmp_path / "scan_processed.nxs", {"entry/raw/data": np.zeros((3, 4, 5))}, {"entry/raw": {"x": 1}})
    with h5py.File(path, "a") as file:
        file["entry/final_result_tomo"] = h5py.ExternalLink("recon.h5", "/3-AstraReconCpu-tomo")
    same(open_source(path, external_links="beside"), SHORT)
    same(open_source(tmp_path / "recon.h5"), SHORT)
    assert {file.name for file in open_source(path, external_links="beside").files} == {
        "scan_processed.nxs",
        "recon.h5",
    }


def test_httomo_output_has_its_vertical_axis_second(tmp_path: Path) -> None:
    cube = np.arange(9 * 4 * 9, dtype=np.float32).reshape(4, 9, 9)
    data = {"data": cube.transpose(1, 0, 2), "angles": np.zeros(181), "data_dims/detector_x_y": np.array([9, 4])}
    same(open_source(h5(tmp_path / "6-httomolibgpu-FBP-gridrec.h5", data)), cube)
    projections = {**data, "data": np.zeros((181, 4, 9), np.float32)}
    with pytest.raises(InputError, match="raw projections"):
        open_source(h5(tmp_path / "2-normalize.h5", projections))


def test_nexus_axes_named_x_y_z(tmp_path: Path) -> None:
    data = {f"entry/data/{a}": np.arange(n) * s for a, n, s in (("x", 7, 2e-6), ("y", 9, 2e-6), ("z", 12, 5e-6))}
    attrs = {"entry/data": {"NX_class": "NXdata", "signal": "data", "axes": ["x", "y", "z"]}}
    units = {name: {"units": "m"} for name in data}
    path = h5(tmp_path / "a.nxs", {**data, "entry/data/data": SHORT.transpose(2, 1, 0)}, attrs | units)
    source = open_source(path)
    same(source, SHORT)
    np.testing.assert_allclose(source.voxel_size_um, [5, 2, 2])


def test_nabu_volume_over_parts(tmp_path: Path) -> None:
    name, options = "reconstruction/results/data", "reconstruction/configuration/processing_options/reconstruction"
    layout = h5py.VirtualLayout(SHORT.shape, SHORT.dtype)
    for k in range(3):
        h5(tmp_path / f"rec_{k}.hdf5", {f"entry0000/{name}": SHORT[4 * k : 4 * k + 4]})
        layout[4 * k : 4 * k + 4] = h5py.VirtualSource(f"rec_{k}.hdf5", f"entry0000/{name}", (4, 9, 7))
    path = h5(tmp_path / "rec.hdf5", {f"entry0000/{options}/voxel_size_cm": np.array([1e-4, 6.5e-5, 6.5e-5])})
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset(f"entry0000/{name}", layout)
    source = open_source(path, external_links="beside")
    same(source, SHORT)
    assert source.voxel_size_um == [1, 0.65, 0.65]
    assert [file.name for file in source.files] == ["rec.hdf5", "rec_0.hdf5", "rec_1.hdf5", "rec_2.hdf5"]
    del source
    with h5py.File(path, "a") as file:
        file[f"entry0001/{name}"] = SHORT
    with pytest.raises(InputError) as error:
        open_source(path, external_links="beside")
    assert error.value.found.startswith("2 3-D data sets: /entry0000/reconstruction/results/data (12, 9, 7) uint16, ")


def test_tomocupy_volume(tmp_path: Path) -> None:
    """Meta data of the raw file beside the volume; the command line says how the reconstruction was binned."""
    pixel = "measurement/instrument/detection_system/objective/resolution"
    attrs = {
        "exchange/data": {"axes": "z:y:x", "command": "tomocupy recon --binning 1"},
        pixel: {"units": np.bytes_("microns")},
    }
    path = h5(tmp_path / "a_rec.h5", {"exchange/data": FLOAT, pixel: np.array([0.69])}, attrs)
    source = open_source(path)
    same(source, FLOAT)
    np.testing.assert_allclose(source.voxel_size_um, [1.38] * 3)


def sized(folder: Path, kind: str, value: float | str) -> Path:
    """A scan whose file gives one voxel size, in the unit that the format has."""
    if kind == "mrc":
        return write_mrc(folder / "a.mrc", SHORT, float(value))
    if kind == "mhd":
        return write_mhd(folder / "a.mhd", SHORT, [float(value)] * 3)
    if kind == "nhdr":
        vectors = " ".join(f"({v})" for v in (f"{value},0,0", f"0,{value},0", f"0,0,{value}"))
        return write_nhdr(folder / "a.nhdr", SHORT, "space: left-posterior-superior", f"space directions: {vectors}")
    if kind == "vol":
        return write_vol(folder / "a.vol", SHORT, str(value))
    if kind == "zarr":
        return write_ome_zarr(folder / "a.zarr", [SHORT], unit="millimeter", scales=[[float(value)] * 3])
    if kind == "h5":
        attrs = {"v": {"voxel_size": float(value), "voxel_size_units": "nm"}}
        return h5(folder / "a.h5", {"v": SHORT}, attrs)
    options = {"resolution": (1 / float(value), 1 / float(value)), "photometric": "minisblack"}
    if kind == "imagej":
        metadata = {"unit": "micron", "spacing": float(value)}
        tifffile.imwrite(folder / "a.tif", SHORT, imagej=True, metadata=metadata, **options)
    else:
        tifffile.imwrite(folder / "a.tif", SHORT, resolutionunit="CENTIMETER", **options)
    return folder / "a.tif"


UNITS = {"mrc": 1e-4, "mhd": 1e3, "nhdr": 1e3, "vol": 1, "zarr": 1e3, "h5": 1e-3, "imagej": 1, "tags": 1e4}


@pytest.mark.parametrize("kind", UNITS)
def test_voxel_size_and_its_unit(tmp_path: Path, kind: str) -> None:
    source = open_source(sized(tmp_path, kind, 0.00065 if kind == "tags" else 0.65))
    expected = UNITS[kind] * (0.00065 if kind == "tags" else 0.65)
    np.testing.assert_allclose(known_size(source)[0], [expected] * 3, rtol=1e-6)
    assert known_size(source, [3.0, 2.0, 1.0]) == ([3.0, 2.0, 1.0], [])  # the configuration wins


@pytest.mark.parametrize("kind", UNITS)
def test_a_voxel_size_of_exactly_one_is_doubted(tmp_path: Path, kind: str) -> None:
    size, doubts = known_size(open_source(sized(tmp_path, kind, 1.0)))
    if kind == "tags":
        assert size is None
    else:
        np.testing.assert_allclose(size, [UNITS[kind]] * 3)
        assert "exactly 1" in doubts[0]


@pytest.mark.parametrize("dpi", [72, 96, 300])
def test_resolutions_of_printers_are_no_voxel_sizes(tmp_path: Path, dpi: int) -> None:
    for unit, value in (("CENTIMETER", dpi), ("CENTIMETER", dpi / 2.54), ("INCH", dpi), ("INCH", 25400 / 0.65)):
        tifffile.imwrite(
            tmp_path / "a.tif", SHORT, photometric="minisblack", resolution=(value, value), resolutionunit=unit
        )
        source = open_source(tmp_path / "a.tif")
        assert known_size(source) == (
            None,
            ["the file gives no voxel size; set `voxel_size_um`, else lengths are in voxels"],
        )


def test_a_spacing_without_a_unit_is_not_used(tmp_path: Path) -> None:
    path = write_nhdr(tmp_path / "a.nhdr", SHORT, "spacings: 0.65 0.65 2")
    assert known_size(open_source(path)) == (
        None,
        ["the file gives the voxel size without a unit: 2; set `voxel_size_um`"],
    )


def test_the_content_is_the_same_in_every_format(tmp_path: Path) -> None:
    """So that a converted scan is the same scan."""
    paths = [
        write_mrc(tmp_path / "a.mrc", SHORT[:, ::-1]),
        write_mhd(tmp_path / "a.mhd", SHORT),
        write_ome_zarr(tmp_path / "a.zarr", [SHORT[None]], axes=["c", "z", "y", "x"]),
        write_stack(tmp_path / "stack", SHORT),
        h5(tmp_path / "a.h5", {"v": SHORT}),
    ]
    assert len({content_digest(open_source(path)) for path in paths}) == 1
