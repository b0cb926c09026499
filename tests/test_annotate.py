"""An afternoon of annotation: which regions are exported, and that painted ones come back, however they were saved."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
import yaml

from beamseg.annotate import annotate, describe, instructions, most_different, starts
from beamseg.annotations import files_of, open_annotations, rounds
from beamseg.config import load_runs
from beamseg.errors import InputError
from beamseg.labels import open_truth, open_user_labels
from beamseg.provenance import read_json, write_json
from beamseg.runs import Runs
from beamseg.slabs import run_slabs
from workflow import BASEDIR

SHAPE = (12, 64, 80)
CONFIG = {"samples": "config/samples.tsv", "preset": "pixels", "pseudo_label": {"n_clusters": 3}}
LABELS: dict[str, Any] = {
    **dict.fromkeys(("dataset", "slices", "unlabelled", "offset", "axes", "flip")),
    **{"map": {}, "pool": 0, "rate": 1},
}


def scan() -> np.ndarray:
    """Plain noise, but for one bright corner in slice 7 and stripes in slice 3."""
    grey = np.random.default_rng(0).normal(100, 5, SHAPE).astype(np.float32)
    grey[7, 32:, 40:] += 200
    grey[3, :32, :40:4] += 60
    return grey


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text(yaml.safe_dump({**CONFIG, "label_source": "clusters"}))
    with h5py.File(tmp_path / "scan.h5", "w") as file:
        file["data"] = scan()
    (tmp_path / "config" / "samples.tsv").write_text("sample\tpath\na\t../scan.h5\n")
    text = yaml.safe_dump({**CONFIG, "label_source": "clusters", "train": {"objective": "classification"}})
    (tmp_path / "config" / "config.yaml").write_text(text)
    return tmp_path


def test_regions_cover_the_whole_slice() -> None:
    for extent, size in ((1000, 512), (1024, 512), (600, 512), (512, 512), (40, 40), (1500, 512)):
        found = starts(extent, size)
        covered = np.zeros(extent, bool)
        for first in found:
            covered[first : first + size] = True
        assert covered.all()
        assert len(found) == -(-extent // size)


def test_farthest_first_finds_the_odd_ones() -> None:
    features = np.zeros((20, 2))
    features[4], features[9] = [10, 0], [0, 10]
    assert set(most_different(features, 3)[1:]) == {4, 9}
    assert len(most_different(features, 50)) == 20
    weight = np.ones(20)
    weight[4], weight[7] = 0, 2
    assert most_different(features, 2, weight) == [7, 9]


def test_before_a_run_the_regions_that_differ(workdir: Path) -> None:
    folder = annotate(workdir, BASEDIR, "a", 3, 40)
    (own,) = rounds(workdir / "annotations" / "a")
    assert own.folder == folder
    assert own.shape == SHAPE
    assert own.size == (40, 40)
    assert (7, 24, 40) in own.corners
    assert any(z == 3 for z, _, _ in own.corners)
    images, labels = (tifffile.imread(folder / name) for name in ("images.tif", "labels.tif"))
    assert images.shape == labels.shape == (3, 40, 40)
    assert images.dtype == labels.dtype == np.uint8
    assert not labels.any()
    z, y, x = own.corners[0]
    grey = scan()[z, y : y + 40, x : x + 40]
    assert np.corrcoef(grey.ravel(), images[0].ravel())[0, 1] > 0.95
    text = (folder / "README.md").read_text()
    assert f"| 0 | {z} | {y} | {x} |" in text
    assert "painted/" in text
    assert "up to 3" in text
    again = annotate(workdir, BASEDIR, "a", 3, 40)
    assert again.name == "round-2"
    first, second = rounds(workdir / "annotations" / "a")
    assert not set(first.corners) & set(second.corners)


def test_regions_without_grey_levels_are_not_offered(workdir: Path) -> None:
    grey = scan()
    grey[:6] = np.nan
    grey[8, 3, 3] = np.inf
    with h5py.File(workdir / "scan.h5", "w") as file:
        file["data"] = grey
    annotate(workdir, BASEDIR, "a", 6, 40)
    (own,) = rounds(workdir / "annotations" / "a")
    assert len(own.corners) == 6
    assert min(z for z, _, _ in own.corners) >= 6
    assert all(np.isfinite(describe(grey[z, y : y + 40, x : x + 40])).all() for z, y, x in own.corners if z != 8)
    thin = describe(np.random.default_rng(0).random((6, 30)))
    assert np.isfinite(thin).all()


def test_regions_of_one_round_do_not_overlap(workdir: Path) -> None:
    annotate(workdir, BASEDIR, "a", 100, 48)
    (own,) = rounds(workdir / "annotations" / "a")
    for i, (z, y, x) in enumerate(own.corners):
        for other in own.corners[:i]:
            assert z != other[0] or abs(y - other[1]) >= 48 or abs(x - other[2]) >= 48
    assert len(own.corners) == 12


@pytest.mark.parametrize(("count", "size", "key"), [(0, 40, "--count"), (3, 0, "--size"), (3, -5, "--size")])
def test_absurd_options(workdir: Path, count: int, size: int, key: str) -> None:
    with pytest.raises(InputError, match=f"^{key}\n"):
        annotate(workdir, BASEDIR, "a", count, size)


def test_after_a_run_the_uncertain_ones_with_the_prediction(workdir: Path) -> None:
    runs, _ = load_runs(workdir, BASEDIR)
    assert Runs(runs).owner("segment_stage2", "a") == "a"
    labels = np.ones(SHAPE, np.uint8)
    confidence = np.full(SHAPE, 250, np.uint8)
    confidence[5, :, :40], labels[5, :, :40], labels[5, 0, 0] = 100, 2, 255

    def fill(z0: int, z1: int, writer: Any) -> None:
        writer.put("labels", z0, labels[z0:z1])
        writer.put("confidence", z0, confidence[z0:z1])

    run_slabs(
        workdir / "results/a/segment/stage2/1-of-1.json",
        stage="stage2",
        identity="x",
        shape=SHAPE,
        depth=SHAPE[0],
        dtypes={"labels": np.uint8, "confidence": np.uint8},
        fill=fill,
        part="1-of-1",
    )
    write_json(workdir / "results/a/metrics.json", {"product": {"stage": "stage2"}, "verdict": None})
    folder = annotate(workdir, BASEDIR, "a", 1, 40)
    (own,) = rounds(workdir / "annotations" / "a")
    assert own.corners == [(5, 0, 0)]
    prefilled = tifffile.imread(folder / "labels.tif")
    assert prefilled[0, 0] == 0
    assert (prefilled.ravel()[1:] == 3).all()
    assert "correct it" in (folder / "README.md").read_text()


def write_round(workdir: Path, number: int, corners: list[tuple[int, int, int]], size: tuple[int, int]) -> Path:
    folder = workdir / "annotations" / "a" / f"round-{number}"
    (folder / "painted").mkdir(parents=True)
    write_json(folder / "regions.json", {"shape": SHAPE, "size": size, "corners": corners})
    return folder / "painted"


def pages(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4, (count, 20, 30))


CORNERS = [(2, 0, 0), (2, 40, 50), (7, 10, 20), (9, 0, 50)]
ZLIB: dict[str, Any] = {"compression": "zlib", "compressionargs": {"level": 1}}
SAVED = {
    # napari's writer: tifffile with zlib, the type of the layer; three or four pages of uint8 look like colours.
    "napari int32": lambda path, a: tifffile.imwrite(path, a.astype(np.int32), **ZLIB),
    "napari uint8": lambda path, a: tifffile.imwrite(path, a.astype(np.uint8), **ZLIB),
    "napari uint8 as colours": lambda path, a: tifffile.imwrite(
        path, a.astype(np.uint8), **ZLIB, photometric="rgb", planarconfig="separate"
    ),
    "napari uint16": lambda path, a: tifffile.imwrite(path, a.astype(np.uint16), **ZLIB),
    "napari int64": lambda path, a: tifffile.imwrite(path, a.astype(np.int64), **ZLIB),
    # Fiji's: big-endian, a description of its own, 8, 16 or 32 bits (floats).
    "Fiji 8 bits": lambda path, a: tifffile.imwrite(path, a.astype(np.uint8), imagej=True, byteorder=">"),
    "Fiji 16 bits": lambda path, a: tifffile.imwrite(path, a.astype(np.uint16), imagej=True, byteorder=">"),
    "Fiji 32 bits": lambda path, a: tifffile.imwrite(path, a.astype(np.float32), imagej=True, byteorder=">"),
}


@pytest.mark.parametrize("how", SAVED)
@pytest.mark.parametrize("count", [1, 3, 4])
def test_painted_labels_come_back(tmp_path: Path, how: str, count: int) -> None:
    if how.endswith("colours") and count == 1:
        pytest.skip("one page is never taken for colours")
    painted = write_round(tmp_path, 1, CORNERS[:count], (20, 30))
    made = pages(count)
    SAVED[how](painted / "Labels.tif", made if count > 1 or "napari" not in how else made[0])
    labels = open_user_labels(LABELS, tmp_path / "annotations" / "a", SHAPE, n_classes=3, painted=True)
    expected = np.full(SHAPE, 255, np.uint8)
    for (z, y, x), page in zip(CORNERS[:count], made, strict=True):
        expected[z, y : y + 20, x : x + 30] = np.where(page > 0, page - 1, 255)
    np.testing.assert_array_equal(labels.read(0, 12), expected)
    np.testing.assert_array_equal(labels.read(1, 9, slice(5, 60), slice(15, 70)), expected[1:9, 5:60, 15:70])
    assert labels.slices == sorted({z for z, _, _ in CORNERS[:count]})
    assert sum(labels.counts.values()) == (expected != 255).sum()


PAINTED = sorted((Path(__file__).parent / "painted").glob("*.tif"))


@pytest.mark.parametrize("file", PAINTED, ids=lambda file: file.stem)
def test_what_other_programs_saved_comes_back(tmp_path: Path, file: Path) -> None:
    """Files that ImageJ and napari themselves wrote; see `painted/paint.ijm`, `painted/paint.py`."""
    count = int(file.stem[-1])
    shutil.copy(file, write_round(tmp_path, 1, CORNERS[:count], (20, 30)))
    labels = open_user_labels(LABELS, tmp_path / "annotations" / "a", SHAPE, n_classes=2, painted=True)
    expected = np.full(SHAPE, 255, np.uint8)
    for i, (z, y, x) in enumerate(CORNERS[:count], start=1):
        expected[z, y + 3 : y + 7, x + 2 : x + 7] = 0
        expected[z, y + 8 : y + 14, x + 10 + i : x + 13 + i] = 1
    np.testing.assert_array_equal(labels.read(0, 12), expected)


def test_rounds_add_up_and_the_last_word_counts(tmp_path: Path) -> None:
    first, second = pages(1), pages(1, seed=1)
    tifffile.imwrite(write_round(tmp_path, 2, [(2, 10, 10)], (20, 30)) / "a.tif", second[0])
    tifffile.imwrite(write_round(tmp_path, 1, [(2, 0, 0)], (20, 30)) / "a.tif", first[0])
    write_round(tmp_path, 10, [(4, 0, 0)], (20, 30))  # nothing dropped yet
    labels, slices = open_annotations(tmp_path / "annotations" / "a", SHAPE)
    assert slices == [2]
    expected = np.zeros(SHAPE[1:], int)
    expected[:20, :30] = first[0]
    expected[10:30, 10:40] = np.where(second[0] > 0, second[0], expected[10:30, 10:40])
    np.testing.assert_array_equal(labels.read(0, 1)[0], expected)


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    painted = write_round(tmp_path, 1, CORNERS[:2], (20, 30))
    folder = tmp_path / "annotations" / "a"
    with pytest.raises(InputError, match="nothing dropped"):
        open_annotations(folder, SHAPE)
    tifffile.imwrite(painted / "a.tif", pages(3).astype(np.uint16), photometric="minisblack")
    with pytest.raises(InputError, match=r"(?s)shape \(3, 20, 30\).*2 pages of 20 x 30"):
        open_annotations(folder, SHAPE)
    tifffile.imwrite(painted / "a.tif", pages(2) + 0.5)
    with pytest.raises(InputError, match="no whole numbers"):
        open_annotations(folder, SHAPE)
    (painted / "a.tif").write_bytes(b"no picture")
    with pytest.raises(InputError, match="not readable as TIFF"):
        open_annotations(folder, SHAPE)
    tifffile.imwrite(painted / "a.tif", pages(2))
    with pytest.raises(InputError, match="regions of a scan of shape"):
        open_annotations(folder, (12, 64, 81))
    tifffile.imwrite(painted / "b.TIF", pages(2))
    with pytest.raises(InputError, match="2 files"):
        open_annotations(folder, SHAPE)


def test_what_was_dropped_is_found_without_a_cell(workdir: Path) -> None:
    config = workdir / "config" / "config.yaml"
    config.write_text(yaml.safe_dump(CONFIG))
    runs, _ = load_runs(workdir, BASEDIR)
    with pytest.raises(InputError, match=r"(?s)empty cell.*beamseg annotate a"):
        Runs(runs)
    painted = write_round(workdir, 1, CORNERS, (20, 30))
    tifffile.imwrite(painted / "x.tif", pages(4), photometric="minisblack")
    runs, _ = load_runs(workdir, BASEDIR)
    assert runs["a"].origins["labels.path"] == "annotations/a"
    assert runs["a"].file("labels.path") == workdir / "annotations" / "a"
    assert files_of(workdir / "annotations" / "a") == [painted / "x.tif"]
    Runs(runs)


def test_rounds_are_read_in_one_way_whatever_the_configuration_says(tmp_path: Path) -> None:
    made = pages(4)
    tifffile.imwrite(write_round(tmp_path, 1, CORNERS, (20, 30)) / "a.tif", made, photometric="minisblack")
    folder = tmp_path / "annotations" / "a"
    plain = open_user_labels(LABELS, folder, SHAPE, n_classes=3)
    named = open_user_labels({**LABELS, "unlabelled": 0}, folder, SHAPE, n_classes=3)
    np.testing.assert_array_equal(named.read(0, 12), plain.read(0, 12))
    assert sorted(named.counts) == [0, 1, 2]
    for key, value in {
        "map": {"0": 0},
        "unlabelled": 3,
        "dataset": "labels",
        "slices": [2, 7, 9],
        "offset": [0, 0, 0],
        "axes": "zyx",
        "flip": ["z"],
    }.items():
        with pytest.raises(InputError, match=rf"rounds of annotation, and labels\.{key}: ") as caught:
            open_user_labels({**LABELS, key: value}, folder, SHAPE, n_classes=3)
        assert "1 is class 0" in caught.value.expected
    with pytest.raises(InputError, match=r"evaluate\.truth_map"):
        open_truth(folder, None, SHAPE, renumber={1: 0})


def test_strokes_of_a_scan_that_was_turned_since_are_refused(workdir: Path) -> None:
    folder = annotate(workdir, BASEDIR, "a", 2, 40)
    tifffile.imwrite(folder / "painted" / "a.tif", np.ones((2, 40, 40), np.uint8), photometric="minisblack")
    config = workdir / "config" / "config.yaml"
    config.write_text(yaml.safe_dump(CONFIG))
    runs, _ = load_runs(workdir, BASEDIR)
    Runs(runs)
    labels, _ = open_annotations(workdir / "annotations" / "a", SHAPE)
    assert labels.source.warnings == []
    config.write_text(yaml.safe_dump({**CONFIG, "ingest": {"flip": ["y"]}}))
    runs, _ = load_runs(workdir, BASEDIR)
    for act in (lambda: Runs(runs), lambda: annotate(workdir, BASEDIR, "a", 2, 40)):
        with pytest.raises(InputError, match=r"(?s)round-1.*flip \['y'\].*flip None, as when") as caught:
            act()
        assert "annotate anew" in caught.value.remedy
    # What was exported before that was written down is believed, and the log says so.
    entry = read_json(folder / "regions.json")
    assert entry.pop("ingest") == {"dataset": None, "axes": None, "flip": None, "level": 0}
    write_json(folder / "regions.json", entry)
    Runs(runs)
    (warning,) = open_annotations(workdir / "annotations" / "a", SHAPE)[0].source.warnings
    assert warning.startswith("round-1: regions.json does not say how the scan was read")


def test_labels_of_a_scan_that_training_does_not_draw_from(workdir: Path) -> None:
    (workdir / "config" / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    table = "sample\tpath\tgroup\treference\tlabels\na\tx.h5\tg\ttrue\tl.tif\nb\tx.h5\tg\tfalse\tl.tif\n"
    (workdir / "config" / "samples.tsv").write_text(table)
    with pytest.raises(InputError, match=r"(?s)labels of b.*draws from a alone"):
        Runs(load_runs(workdir, BASEDIR)[0])


def test_the_command_of_the_instructions_is_one_line() -> None:
    text = instructions([(1, 0, 0)], (8, 8), 2, prefilled=False)
    (line,) = [line for line in text.splitlines() if "napari.run()" in line]
    assert line.startswith("    python -c ")
    compile(line.split('"', 1)[1].rsplit('"', 1)[0], "one line", "exec")
