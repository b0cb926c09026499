"""Frames and their masks: pairing by name, split by block, sizes, scale bars, the table of a movie."""

import json
from pathlib import Path

import imagecodecs
import mrcfile
import numpy as np
import pandas as pd
import pytest
import tifffile
import yaml
from PIL import Image

from beamseg.config import load_runs
from beamseg.contact_angle import DROPLET, WIRE, smoothed
from beamseg.errors import InputError
from beamseg.evaluate_frames import evaluate_frames
from beamseg.frame_input import prepared, resized_mask, shrunk
from beamseg.frames import (
    Frames,
    burnt_in,
    class_of_grey,
    describe,
    frames_by_part,
    named_files,
    open_frames,
    paired,
    read_mask,
    split,
)
from beamseg.layers import defaults
from beamseg.measure_frames import masks_of, measure_frames
from beamseg.provenance import write_json
from beamseg.report_frames import report_frames
from beamseg.segment_frames import without_bars
from beamseg.simulate_frames import DEFECTS, make_frame, simulate_frames
from formats import write_dm4

BASEDIR = Path(__file__).parents[1]
SETTINGS = defaults(yaml.safe_load((BASEDIR / "workflow" / "schemas" / "frames.yaml").read_text()))
MAP = {0: 0, 127: 1, 255: 2}


def png(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(image)))


@pytest.fixture(scope="module")
def movie(tmp_path_factory):
    folder = tmp_path_factory.mktemp("movie")
    simulate_frames(folder, {"frames": 11, "size": 128, "labelled": 6, "noise": 0.1, "defects": True}, 0)
    return folder


def test_frames_of_a_folder_may_have_several_sizes(tmp_path):
    for name, shape in (("f_10", (20, 30)), ("f_9", (20, 30)), ("f_11", (10, 12))):
        png(tmp_path / f"{name}.png", np.full(shape, 7, np.uint8))
    frames = open_frames(tmp_path)
    assert frames.names == ["f_9", "f_10", "f_11"]
    assert frames.read("f_11").shape == (10, 12)
    assert [row["height"] for row in describe(frames)] == [20, 20, 10]


def test_movies_of_tiff_and_mrc_are_frames_by_number(tmp_path):
    movie = np.arange(3 * 6 * 7, dtype=np.uint8).reshape(3, 6, 7)
    options = {"photometric": "minisblack", "resolution": (2e7, 2e7), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "m.tif", movie, **options)
    with mrcfile.new(tmp_path / "m.mrc", movie[:, ::-1].astype(np.int16)) as file:
        file.voxel_size = 5.0
    for name in ("m.tif", "m.mrc"):
        frames = open_frames(tmp_path / name)
        assert frames.names == ["000000", "000001", "000002"]
        assert np.array_equal(frames.read("000001"), movie[1])
        assert frames.pixel_nm == pytest.approx(0.5)


def test_masks_are_paired_by_name_and_strays_are_named(tmp_path):
    for name in ("a", "b", "c"):
        png(tmp_path / "frames" / f"{name}.png", np.zeros((4, 4), np.uint8))
    png(tmp_path / "masks" / "c.tif.png", np.zeros((4, 4), np.uint8))
    png(tmp_path / "masks" / "b.png", np.zeros((4, 4), np.uint8))
    frames = open_frames(tmp_path / "frames")
    with pytest.raises(InputError, match=r"1 masks without a frame: c\.tif"):
        paired(frames.names, tmp_path / "masks")
    (tmp_path / "masks" / "c.tif.png").unlink()
    assert list(paired(frames.names, tmp_path / "masks")) == ["b"]


def test_a_name_given_twice_is_refused(tmp_path):
    png(tmp_path / "a.png", np.zeros((4, 4), np.uint8))
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4), np.uint8))
    with pytest.raises(InputError, match=r"a\.(png|tif) and a\.(png|tif)"):
        named_files(tmp_path)


def test_grey_values_of_masks_are_classes_by_the_map(tmp_path):
    png(tmp_path / "m.png", np.array([[0, 127, 255]], np.uint8))
    assert read_mask(tmp_path / "m.png", MAP, 3).tolist() == [[0, 1, 2]]
    png(tmp_path / "m.png", np.array([[0, 128]], np.uint8))
    with pytest.raises(InputError, match="grey value 128") as caught:
        read_mask(tmp_path / "m.png", MAP, 3)
    assert "0, 127, 255" in caught.value.expected


def test_the_split_is_by_blocks_of_neighbours_and_seeded():
    names = [f"{i:03d}" for i in range(40)]
    settings = {"block": 5, "validation": 0.12, "test": 0.2, "hidden": 0}
    parts = split(names, 0, settings)
    assert sorted(name for found in parts.values() for name in found) == names
    assert {part: len(found) for part, found in parts.items()} == {
        **{"train": 25, "validation": 5, "test": 10},
        "hidden": 0,
    }
    for found in parts.values():
        blocks = {int(name) // 5 for name in found}
        assert len(found) == 5 * len(blocks)
    assert split(names[::-1], 0, settings) == parts
    assert any(split(names, seed, settings) != parts for seed in range(1, 5))


def test_labels_may_be_hidden_by_blocks():
    names = [f"{i:03d}" for i in range(40)]
    parts = split(names, 0, {"block": 5, "validation": 0.12, "test": 0.2, "hidden": 0.25})
    assert {part: len(found) for part, found in parts.items()} == {
        **{"train": 15, "validation": 5, "test": 10},
        "hidden": 10,
    }


def test_frames_between_two_parts_are_in_none():
    names = list("abcdefghijk")
    parts = {"train": ["b", "d", "j"], "test": ["f", "h"]}
    assert frames_by_part(names, parts) == {"train": ["a", "b", "c", "d", "j", "k"], "test": ["f", "g", "h"]}


def test_masks_are_found_by_the_names_of_their_frames(tmp_path):
    names = [f"f{i}" for i in range(1, 13)]  # in another order as words
    for i, name in enumerate(names):
        mask = np.zeros((4, 4), np.uint8)
        mask.ravel()[:i] = 255
        png(tmp_path / f"{name}.png", mask)
    content = {"frames": {name: {"file": f"{name}.png"} for name in names}, "grey": {"0": 0, "255": 2}}
    write_json(tmp_path / "m.json", content)
    assert [int((mask == 2).sum()) for mask in masks_of(tmp_path / "m.json", names)] == list(range(12))


def test_frames_of_several_pixel_sizes_have_none(tmp_path):
    image = np.zeros((8, 8), np.uint8)
    for name, per_cm in (("a", (2e7, 2e7)), ("b", (2e7, 2e7))):
        tifffile.imwrite(tmp_path / f"{name}.tif", image, resolution=per_cm, resolutionunit="CENTIMETER")
    assert open_frames(tmp_path).pixel_nm == pytest.approx(0.5)
    for per_cm in ((1e7, 1e7), (1e7, 2e7)):
        tifffile.imwrite(tmp_path / "b.tif", image, resolution=per_cm, resolutionunit="CENTIMETER")
        assert open_frames(tmp_path).pixel_nm is None
    (tmp_path / "a.tif").unlink()
    assert open_frames(tmp_path).pixel_nm is None  # twice as wide as high


@pytest.mark.parametrize(("image", "share"), [
    (np.where(np.arange(100).reshape(10, 10) < 60, 4095, 7).astype(np.uint16), 0.6),
    (np.where(np.arange(100).reshape(10, 10) < 25, 0, np.arange(100).reshape(10, 10)).astype(np.float32), 0.01),
    (np.where(np.arange(100).reshape(10, 10) < 30, np.nan, np.arange(100).reshape(10, 10)), 0.31),
    (np.full((10, 10), 3.0), 1.0),
])  # fmt: skip
def test_saturated_is_what_has_the_frames_largest_value(image, share):
    (row,) = describe(Frames(["a"], lambda name: image, None))
    assert row["saturated"] == pytest.approx(share)


def test_too_few_blocks_for_the_parts_are_refused():
    with pytest.raises(InputError, match="6 labelled frames in 2 blocks of 3"):
        split(list("abcdef"), 0, {"block": 3, "validation": 0.1, "test": 0.1, "hidden": 0})


def test_frames_are_shrunk_in_their_own_proportions():
    assert shrunk((1024, 768), 512) == (512, 384)
    assert shrunk((100, 60), 512) == (100, 60)
    image = prepared(np.linspace(0, 1000, 200 * 100).reshape(200, 100), 50)
    assert tuple(image.shape) == (1, 50, 25)
    assert image.dtype.is_floating_point
    assert str(image.dtype) == "torch.float32"
    assert 0 <= float(image.min()) < float(image.max()) <= 1
    mask = np.kron(np.array([[0, 1], [2, 1]], np.uint8), np.ones((4, 4), np.uint8))
    assert resized_mask(mask, (2, 2)).tolist() == [[0, 1], [2, 1]]


def test_a_burnt_in_bar_is_found_and_does_not_become_an_object():
    frame, labels, _ = make_frame(0, {"frames": 20, "size": 160, "noise": 0.1, "defects": False}, 0)
    bars = burnt_in(frame)
    assert np.array_equal(bars, frame == 255)
    wrong = labels.copy()
    wrong[bars] = WIRE
    assert np.array_equal(without_bars(wrong, bars), labels)


def test_a_bar_over_a_large_object_leaves_it():
    labels = np.full((40, 60), DROPLET, np.uint8)
    bars = np.zeros(labels.shape, bool)
    bars[30:33, 5:25] = True
    assert np.array_equal(without_bars(labels, bars), labels)


def test_the_smoothed_curve_follows_a_slope_and_bridges_what_is_short():
    line = 100 + 2.0 * np.arange(9)
    values, widths = line.copy(), np.ones(9)
    values[[3, 6, 7, 8]] = widths[[3, 6, 7, 8]] = np.nan
    found = smoothed(values, widths, 5)
    assert found[:5] == pytest.approx(line[:5])
    assert np.isnan(found[5:]).all()  # two frames in the window
    off = values.copy()
    off[2] += 10
    widths[2] = 100
    assert smoothed(off, widths, 5)[2] == pytest.approx(line[2], abs=0.05)


def as_manifest(movie, folder):
    """The true masks as if a network had drawn them."""
    files = {f.stem: f for part in ("labels", "truth") for f in (movie / part).iterdir()}
    for name, file in files.items():
        (folder / "masks").mkdir(exist_ok=True)
        (folder / "masks" / f"{name}.png").write_bytes(file.read_bytes())
    frames = {name: {"file": f"masks/{name}.png"} for name in sorted(files)}
    write_json(folder / "masks.json", {"frames": frames, "grey": {str(g): c for g, c in MAP.items()}})
    about = {"name": "m", "pixel_nm": 0.25, "frames": describe(open_frames(movie / "frames"))}
    write_json(folder / "frames.json", about)
    return files


def test_every_frame_has_a_row_and_the_unmeasurable_ones_a_reason(movie, tmp_path):
    files = as_manifest(movie, tmp_path)
    measure_frames(tmp_path / "frames.json", tmp_path / "masks.json", tmp_path / "g.csv", SETTINGS, 0)
    table = pd.read_csv(tmp_path / "g.csv", dtype={"frame": str})
    truth = pd.read_csv(movie / "angles.csv")["angle_deg"]
    whole = len(table) - len(DEFECTS)
    assert len(table) == 11
    assert table["reason"][:whole].isna().all()
    assert table["angle_deg"][:whole].to_numpy() == pytest.approx(truth[:whole].to_numpy(), abs=1.5)
    reasons = dict(zip(DEFECTS, table["reason"][whole:], strict=True))
    assert reasons["no_wire"] == "no wire and no droplet"
    assert reasons["no_droplet"] == "no droplet"
    assert reasons["two_droplets"] == "two droplets"
    assert reasons["saturated"].startswith("saturated: ")
    assert reasons["other_size"] == "other size: 112 × 160 pixels, most are 128 × 160; no lengths in nm"
    last = table.iloc[-1]
    assert last["angle_deg"] == pytest.approx(truth.iloc[-1], abs=1.5)
    assert np.isnan(last["radius_nm"])
    assert table["radius_nm"][0] == pytest.approx(0.25 * table["radius_px"][0], rel=1e-4)

    tested = {name: files[name] for name in ("000000", "000003")}
    paths = (tmp_path / "masks.json", tmp_path / "g.csv", tested, tmp_path / "m.json")
    evaluate_frames(*paths, grey_to_class=MAP, seed=0)
    found = json.loads((tmp_path / "m.json").read_text())
    assert found["stages"]["frames"]["mean_iou"] == 1
    assert found["stages"]["frames"]["accuracy"] == 1
    assert found["angle"]["mse"] == pytest.approx(0, abs=1e-6)  # six digits in the table
    assert found["angle"]["covered"] == 2

    (tmp_path / "c.csv").write_text("phase,epoch,validation\nsupervised,1,0.5\n")
    report_frames(
        frames=open_frames(movie / "frames"),
        scan=tmp_path / "frames.json",
        masks=tmp_path / "masks.json",
        geometry=tmp_path / "g.csv",
        metrics=tmp_path / "m.json",
        curves=tmp_path / "c.csv",
        settings=SETTINGS,
        out_angle=tmp_path / "angle.png",
        out_sheet=tmp_path / "sheet.png",
        out_movie=tmp_path / "movie.gif",
        out_html=tmp_path / "report.html",
    )
    page = (tmp_path / "report.html").read_text()
    assert "7 of 11 measured" in page
    assert "two droplets" in page
    with Image.open(tmp_path / "movie.gif") as gif:
        assert gif.n_frames == 11


def load(tmp_path, **settings):
    (tmp_path / "config").mkdir(exist_ok=True)
    (tmp_path / "config" / "config.yaml").write_text(yaml.safe_dump(settings))
    (tmp_path / "config" / "samples.tsv").write_text("sample\tpath\nm\tphantom\n")
    return load_runs(tmp_path, BASEDIR)[0]["m"]


@pytest.mark.parametrize("letter", "abcdef")
def test_presets_of_the_six_models_are_valid(tmp_path, letter):
    run = load(tmp_path, preset=f"nanowires_{letter}")
    assert run.get("kind") == "images"
    assert class_of_grey(run.get("labels.map")) == MAP


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"refine": ["mpp"]}, "['mpp'] with kind: images"),
        ({"stage3": "unbiased_teacher"}, "unbiased_teacher with kind: images"),
        ({"label_source": "clusters"}, "clusters with kind: images"),
        ({"kind": "volume"}, "images with kind: volume"),
        ({"train_frames": {"pretrain": True}}, "true with frame_unet"),
        (
            {"train_frames": {"objective": "cross_consistency", "perturbations": ["adversarial"]}},
            "adversarial with frame_unet",
        ),
    ],
)
def test_combinations_without_a_meaning_are_refused(tmp_path, settings, found):
    with pytest.raises(InputError) as caught:
        load(tmp_path, preset="nanowires_d", **settings)
    assert caught.value.found == found


def test_frames_of_a_user_need_masks(tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text("preset: nanowires_d\n")
    (tmp_path / "config" / "samples.tsv").write_text("sample\tpath\nm\tframes\n")
    with pytest.raises(InputError, match="labels"):
        load_runs(tmp_path, BASEDIR)


def test_frames_of_an_electron_microscopes_own_files(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 9000, (2, 20, 30)).astype(np.uint16)
    for name, image in zip(("f2", "f10"), images, strict=True):
        write_dm4(tmp_path / f"{name}.dm4", image, ("nm", "nm"))
    frames = open_frames(tmp_path)
    assert (frames.names, frames.pixel_nm) == (["f2", "f10"], 0.5)
    np.testing.assert_array_equal(frames.read("f10"), images[1])
    movie = open_frames(write_dm4(tmp_path / "movie.dm4", images, ("nm", "nm", "s")))
    assert (movie.names, movie.pixel_nm) == (["000000", "000001"], 0.5)


def test_keys_of_the_map_are_text_as_the_configuration_has_them() -> None:
    assert class_of_grey({"0": 0, "127": 1, "255": None}) == {0: 0, 127: 1, 255: 255}
    with pytest.raises(InputError, match="name each grey value"):
        class_of_grey({"0": 0, "rest": 1})
