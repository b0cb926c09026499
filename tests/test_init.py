"""init: finds scans, adds new ones, leaves edited rows alone."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import yaml

from beamseg import init as module
from beamseg.config import NAME, read_table
from beamseg.errors import InputError
from beamseg.init import candidates, init, quiet_s, sample_name
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


def test_large_scans_are_worked_on_in_parts(scans: Path, tmp_path: Path) -> None:
    tifffile.imwrite(scans / "large.tif", np.random.default_rng(0).integers(0, 9, (40, 16, 18)).astype(np.uint8))
    samples = tmp_path / "config" / "samples"
    added, _ = init(
        scans, tmp_path / "config" / "samples.tsv", own={"reference": False}, part_gvoxels=20 * 16 * 18 / 1e9
    )
    told = {path.stem: yaml.safe_load(path.read_text()) for path in samples.iterdir()}
    assert told["large"] == {"parts": 2, "reference": False}
    assert told["pages"] == {"reference": False}
    assert [line.split(":")[0] for line in added if line.endswith(", in 2 parts")] == ["large"]


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
    for value, shape in (("beside", "20×16×18"), ("none", "unknown")):
        table = tmp_path / value / "samples.tsv"
        added, refused = init(folder, table, external_links=value, part_gvoxels=1e-6)
        assert refused == []
        names = {row["sample"] for row in read_table(table)}
        assert names == {"cell", "bone", "rock", "array", "deep_pyramid", "tomo"}
        assert len(added) == 6
        assert f"/tomo.h5\t\t\t\t\t\t\t{shape}\t" in table.read_text()
        (line,) = (line for line in added if line.startswith("tomo:"))
        told = "takes its values from tomo_parts/p0.h5 and 1 more; if you trust where the scan comes from, set"
        assert (f"{told} `ingest: {{external_links: beside}}` in config.yaml" in line) == (value == "none")
        assert (table.parent / "samples" / "tomo.yaml").exists() == (value == "beside")  # its parts, if they are known
    (folder / "tomo_parts" / "p1.h5").unlink()
    missing = f"{folder / 'tomo.h5'}: needs {folder / 'tomo_parts/p1.h5'}, which is missing"
    _, refused = init(folder, tmp_path / "again" / "samples.tsv")
    assert refused == [missing]


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


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        np.save(file, np.random.default_rng(0).integers(0, 99, (20, 16, 18)).astype(np.uint8))


@pytest.mark.parametrize("name", ["groups", "preview", "Preview", "index.html", "INDEX.html", "summary.csv"])
def test_a_reserved_name_is_given_a_number(name: str, tmp_path: Path) -> None:
    save(tmp_path / "scans" / f"{name}.npy")
    init(tmp_path / "scans", tmp_path / "samples.tsv")
    assert [row["sample"] for row in read_table(tmp_path / "samples.tsv")] == [f"{name}_2"]


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\f", "\n", "\r", "\t", "\x1b", "\x1c", "\x7f"])
def test_a_name_that_no_row_can_hold_is_passed_over(mark: str, tmp_path: Path) -> None:
    folder, table = tmp_path / "scans", tmp_path / "samples.tsv"
    save(folder / "good.npy")
    save(folder / f"sc{mark}an.npy")
    save(folder / f"fol{mark}der" / "inside.npy")
    for _ in range(2):
        _, refused = init(folder, table)
        assert [row["sample"] for row in read_table(table)] == ["good"]
        assert len(refused) == 2
        assert all("rename it" in line and line.isprintable() for line in refused)


def test_names_that_are_not_utf8_are_passed_over(tmp_path: Path) -> None:
    folder, table = tmp_path / "scans", tmp_path / "samples.tsv"
    save(folder / "good.npy")
    save(Path(os.fsdecode(os.fsencode(folder) + b"/Stra\xdfe.npy")))
    Path(os.fsdecode(os.fsencode(folder) + b"/no_scan_\xff.h5")).write_bytes(b"nothing")
    _, refused = init(folder, table)
    assert [row["sample"] for row in read_table(table)] == ["good"]
    assert len(refused) == 2
    assert "\\udcdf" in "".join(refused)
    assert "".join(refused).encode()


def test_a_folder_of_slices_whose_name_ends_in_a_blank_is_not_taken_in_again_and_again(tmp_path: Path) -> None:
    write_png_stack(tmp_path / "scans" / "stack ", np.zeros((12, 9, 7), np.uint8))
    _, refused = init(tmp_path / "scans", tmp_path / "samples.tsv")
    assert "rename it" in refused[0]
    assert not (tmp_path / "samples.tsv").exists()


@pytest.mark.parametrize("name", ["a b", "größe", "走査", "\u3000wide", 'say "x"', "#1", "a\u00a0b"])
def test_other_names_are_read_back_as_they_were(name: str, tmp_path: Path) -> None:
    path, table = tmp_path / "scans" / f"{name}.npy", tmp_path / "samples.tsv"
    save(path)
    init(tmp_path / "scans", table)
    assert [row["path"] for row in read_table(table)] == [str(path)]
    assert init(tmp_path / "scans", table)[0] == []


def test_long_paths_give_names_that_fit_and_differ(tmp_path: Path) -> None:
    folder, table = tmp_path / "scans", tmp_path / "samples.tsv"
    for first in "ab":
        save(folder / (first * 200) / ("c" * 150) / "scan.npy")
    (tmp_path / "samples").mkdir()
    init(folder, table)
    names = [row["sample"] for row in read_table(table)]
    assert len(set(names)) == 2
    assert all(NAME.fullmatch(name) and name.startswith("ccc") for name in names)
    assert NAME.fullmatch(sample_name(Path("/", "x" * 91 + "_" * 9 + "y" * 85), Path("/"), set()))


def test_names_that_differ_in_case_alone_get_a_number() -> None:
    assert sample_name(Path("/d/scan.h5"), Path("/d"), {"Scan"}) == "scan_2"


def test_a_scan_that_vanishes_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, table = tmp_path / "scans", tmp_path / "samples.tsv"
    for name in ("gone", "here"):
        save(folder / f"{name}.npy")

    def look(source):
        (folder / "gone.npy").unlink(missing_ok=True)
        return quiet_s(source) + 1000

    monkeypatch.setattr(module, "quiet_s", look)
    _, refused = init(folder, table, settle_s=5)
    assert [row["sample"] for row in read_table(table)] == ["here"]
    assert refused == [f"{folder / 'gone.npy'}: cannot be looked at any more (No such file or directory)"]


def test_a_folder_that_cannot_be_looked_into_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, table = tmp_path / "scans", tmp_path / "samples.tsv"
    save(folder / "here.npy")
    (folder / "shut").mkdir()
    listed = Path.iterdir

    def iterdir(path):
        if path.name == "shut":
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    _, refused = init(folder, table)
    assert [row["sample"] for row in read_table(table)] == ["here"]
    assert len(refused) == 1
    assert "shut" in refused[0]


def test_a_table_that_would_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    table, text = tmp_path / "samples.tsv", "sample\tpath\tgroup\nold\told.h5\tg\n"
    table.write_text(text)
    save(tmp_path / "scans" / "new.npy")
    for group in ("a\nb", " a"):
        with pytest.raises(InputError, match="the table is as it was"):
            init(tmp_path / "scans", table, columns={"group": group})
        assert table.read_text() == text


@pytest.mark.parametrize("header", ["sample\tpath\r\n", '"sample"\t"path"\n'])
def test_rows_join_a_table_as_spreadsheets_write_it(header: str, tmp_path: Path) -> None:
    table = tmp_path / "samples.tsv"
    table.write_bytes(f"{header}old\told.h5\r\n".encode())
    save(tmp_path / "scans" / "new.npy")
    init(tmp_path / "scans", table)
    assert table.read_bytes().startswith(f"{header}old\told.h5\r\n".encode())
    assert [row["sample"] for row in read_table(table)] == ["old", "new"]
