"""init: finds scans, adds new ones, leaves edited rows alone."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from beamseg.config import read_table
from beamseg.errors import InputError
from beamseg.init import candidates, init
from formats import write_dm4, write_mhd, write_mrc, write_ome_zarr, write_png_stack, write_vol


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "beamtime"
    volume = np.random.default_rng(0).integers(0, 200, (20, 16, 18)).astype(np.uint8)
    (folder / "stack").mkdir(parents=True)
    for z, image in enumerate(volume):
        tifffile.imwrite(folder / "stack" / f"slice_{z:04d}.tif", image)
    tifffile.imwrite(folder / "pages.tif", volume)
    with h5py.File(folder / "scan 1.h5", "w") as file:
        file["exchange/data"] = volume.astype(np.float32)
    (folder / "broken.h5").write_bytes(b"nothing")
    return folder


def test_files_and_folders_of_slices_are_one_input_each(scans: Path) -> None:
    names = {path.name for path in candidates(scans)}
    assert names == {"stack", "pages.tif", "scan 1.h5", "broken.h5"}


def test_init_writes_rows_that_the_table_reader_takes(scans: Path, tmp_path: Path) -> None:
    table = tmp_path / "config" / "samples.tsv"
    added, refused = init(scans, table)
    rows = {row["sample"]: row for row in read_table(table)}
    assert set(rows) == {"stack", "pages", "scan_1"}
    assert Path(rows["stack"]["path"]) == scans / "stack"
    assert len(added) == 3
    assert len(refused) == 1
    assert "broken.h5" in refused[0]
    assert "20×16×18" in table.read_text()


def test_a_second_call_adds_new_scans_and_keeps_edited_rows(scans: Path, tmp_path: Path) -> None:
    table = tmp_path / "config" / "samples.tsv"
    init(scans, table)
    edited = table.read_text().replace("pages\t", "weave\t").rstrip("\n")
    table.write_text(edited)
    assert init(scans, table)[0] == []
    assert table.read_text() == edited
    tifffile.imwrite(scans / "later.tif", np.zeros((20, 8, 8), np.uint8) + np.arange(8, dtype=np.uint8))
    init(scans, table)
    assert table.read_text().startswith(edited)
    assert {row["sample"] for row in read_table(table)} == {"stack", "weave", "scan_1", "later"}


def test_the_shipped_table_of_the_demo_is_begun_anew(scans: Path, tmp_path: Path) -> None:
    table, shipped = tmp_path / "samples.tsv", tmp_path / "shipped.tsv"
    for path in (table, shipped):
        path.write_text("sample\tpath\ndemo\tphantom\n")
    init(scans, table, shipped)
    assert "demo" not in {row["sample"] for row in read_table(table)}


def test_scans_of_every_format_are_found_once(tmp_path: Path) -> None:
    folder = tmp_path / "beamtime"
    (folder / "tomo_parts").mkdir(parents=True)
    volume = np.random.default_rng(0).integers(0, 200, (20, 16, 18)).astype(np.uint8)
    write_mrc(folder / "cell.rec", volume)
    write_mhd(folder / "bone.mhd", volume)
    write_vol(folder / "rock.vol", volume)
    np.save(folder / "array.npy", volume)
    write_ome_zarr(folder / "deep" / "pyramid.zarr", [volume, volume[::2, ::2, ::2]])
    layout = h5py.VirtualLayout(volume.shape, volume.dtype)
    for k in range(2):
        with h5py.File(folder / "tomo_parts" / f"p{k}.h5", "w") as file:
            file["exchange/data"] = volume[10 * k : 10 * k + 10]
        layout[10 * k : 10 * k + 10] = h5py.VirtualSource(f"tomo_parts/p{k}.h5", "exchange/data", (10, 16, 18))
    with h5py.File(folder / "tomo.h5", "w") as file:
        file.create_virtual_dataset("exchange/data", layout)
    added, refused = init(folder, tmp_path / "samples.tsv")
    assert refused == []
    names = {row["sample"] for row in read_table(tmp_path / "samples.tsv")}
    assert names == {"cell", "bone", "rock", "array", "deep_pyramid", "tomo"}
    assert len(added) == 6


def test_a_stray_image_among_slices_is_one_refused_scan(scans: Path, tmp_path: Path) -> None:
    tifffile.imwrite(scans / "stack" / "preview.tif", np.zeros((16, 18), np.uint8))
    _, refused = init(scans, tmp_path / "samples.tsv")
    assert {row["sample"] for row in read_table(tmp_path / "samples.tsv")} == {"pages", "scan_1"}
    assert any("stack: files of 2 series" in line for line in refused)


def test_volumes_that_are_numbered_are_no_slices(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).integers(0, 200, (12, 9, 7)).astype(np.uint8)
    for k in (1, 2):
        tifffile.imwrite(tmp_path / f"scan_{k}.tif", volume)
    write_dm4(tmp_path / "series.dm4", volume.astype(np.uint16))
    write_png_stack(tmp_path / "painted", volume)
    init(tmp_path, tmp_path / "samples.tsv")
    names = {row["sample"] for row in read_table(tmp_path / "samples.tsv")}
    assert names == {"scan_1", "scan_2", "series", "painted"}


def test_no_such_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        init(tmp_path / "nowhere", tmp_path / "samples.tsv")
