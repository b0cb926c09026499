"""The workflow on labels by hand, pixels in rounds and whole slices: what the user says reaches every stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from beamseg.annotate import annotate
from beamseg.provenance import read_json
from beamseg.slabs import SlabVolume
from workflow import BASEDIR, Workflow

SHAPE = (16, 64, 64)
SHORT: dict[str, Any] = {
    "samples": "config/samples.tsv",
    "pseudo_label": {"n_clusters": 2},
    "stage3": "unbiased_teacher",
    "refine": ["mpp", "scm"],
    "model": {"widths": [8, 16]},
    "train": {"steps": 4, "batch": 2, "crop": 32},
    "self_correct": {"steps": 2, "batch": 2},
    "refine_scm": {"steps": 2, "batch": 2, "crop": 32, "adjacent_slices": 3, "width": 8},
    "slab_depth": 8,
}


def truth() -> np.ndarray:
    """A column of class 1 through all slices."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, 16:40, 20:48] = 1
    return labels


def workflow(folder: Path, preset: str, file: str = "", **changes: Any) -> Workflow:
    """A working directory with a scan, its truth, and a configuration that takes seconds."""
    grey = 100 + 40 * truth() + np.random.default_rng(0).normal(0, 10, SHAPE)
    np.save(folder / "scan.npy", grey.astype(np.float32))
    np.save(folder / "truth.npy", truth())
    table = f"sample\tpath\ttruth\tlabels\na\t../scan.npy\t../truth.npy\t{file}\n"
    return Workflow(folder, {**SHORT, "preset": preset, **changes}, table)


def stage(folder: Path, name: str) -> np.ndarray:
    """Labels that a stage of sample a left, uint8 (z, y, x)."""
    return SlabVolume(sorted((folder / "results/a" / name).glob("*-of-*.json")), "labels").read(0, SHAPE[0])


def keeps(folder: Path, user: np.ndarray) -> None:
    """The run is complete, refinement keeps what the user labelled (255: nothing), and evaluation leaves it out."""
    given = user != 255
    assert (stage(folder, "segment/stage2")[given] != user[given]).any()
    for name in ("refine_mpp", "refine_scm"):
        np.testing.assert_array_equal(stage(folder, name)[given], user[given])
    metrics = read_json(folder / "results/a/metrics.json")
    assert set(metrics["stages"]) == {"stage2", "stage3", "mpp", "scm"}
    assert "labelled" in metrics["verdict"]["watch"]["start"]
    assert metrics["excluded"]["trained_on"] == given.sum()


def test_pixels_painted_in_two_rounds(tmp_path: Path) -> None:
    train = {**SHORT["train"], "contrastive": {"classifier_steps": 4, "pixels": 32}}
    made = workflow(tmp_path, "pixels", train=train)
    user = np.full(SHAPE, 255, np.uint8)
    for number in (1, 2):
        folder = annotate(tmp_path, BASEDIR, "a", 2, 32)
        painted = np.zeros((2, 32, 32), np.uint8)
        for page, (z, y, x) in zip(painted, read_json(folder / "regions.json")["corners"], strict=True):
            window = np.s_[z, y : y + 32 : 3, x : x + 32 : 2]
            page[::3, ::2] = 1 + truth()[window]
            user[window] = truth()[window]
        tifffile.imwrite(folder / "painted" / f"{number}.tif", painted, photometric="minisblack")
    made.run("results/a/metrics.json")
    keeps(tmp_path, user)
    (entry,) = read_json(tmp_path / "results/groups/a/rounds/rounds.json")["rounds"]
    assert entry["round"] == 1


def drop(folder: Path, pages: np.ndarray) -> None:
    """Save painted regions of a round as napari or Fiji would."""
    tifffile.imwrite(folder / "painted" / "mine.tif", pages, photometric="minisblack")


def windows(folder: Path, size: int = 32) -> list[Any]:
    """Where the pages of a round lie in the scan."""
    return [np.s_[z, y : y + size, x : x + size] for z, y, x in read_json(folder / "regions.json")["corners"]]


def test_annotate_look_correct_and_again(tmp_path: Path) -> None:
    """The loop that a user goes through: paint, run, correct what is prefilled, paint another scan, run once more."""
    train = {**SHORT["train"], "contrastive": {"classifier_steps": 4, "pixels": 32}}
    made = workflow(tmp_path, "pixels", train=train, stage3="none", refine=[])
    np.save(tmp_path / "other.npy", np.load(tmp_path / "scan.npy")[::-1])
    table = "sample\tpath\ttruth\tgroup\na\t../scan.npy\t../truth.npy\tg\nb\t../other.npy\t\tg\n"
    (tmp_path / "config/samples.tsv").write_text(table)
    first = annotate(tmp_path, BASEDIR, "a", 2, 32)
    pages = np.zeros((2, 32, 32), np.uint8)
    for page, window in zip(pages, windows(first), strict=True):
        page[::3, ::2] = 1 + truth()[window][::3, ::2]
    drop(first, pages)
    made.run("results/a/metrics.json")

    second = annotate(tmp_path, BASEDIR, "a", 1, 32)
    (window,) = windows(second)
    (prefilled,) = np.atleast_3d(tifffile.imread(second / "labels.tif")).reshape(1, 32, 32)
    found = stage(tmp_path, "segment/stage2")[window]
    np.testing.assert_array_equal(prefilled, found + 1)
    corrected = prefilled.copy()
    corrected[:16] = 1 + truth()[window][:16]
    corrected[16:] = 0  # nobody looked there
    drop(second, corrected[None])
    beside = annotate(tmp_path, BASEDIR, "b", 1, 32)
    assert not tifffile.imread(beside / "labels.tif").any()  # only `a` was asked for
    strokes = np.zeros((1, 32, 32), np.uint8)
    strokes[0, :4] = 1 + truth()[::-1][windows(beside)[0]][:4]
    drop(beside, strokes)
    made.run("results/a/metrics.json")

    assert "the weights of the previous round" in (tmp_path / "logs/groups/g/train.log").read_text()
    one, two = read_json(tmp_path / "results/groups/g/rounds/rounds.json")["rounds"]
    assert (one["round"], one["new"], two["round"]) == (1, None, 2)
    assert two["new"]["before"]["painted"] == two["new"]["after"]["painted"] == 16 * 32 + 4 * 32
    assert two["all"]["before"]["painted"] == two["all"]["after"]["painted"] == np.count_nonzero(pages) + 20 * 32
    metrics = read_json(tmp_path / "results/a/metrics.json")
    assert metrics["excluded"]["trained_on"] == np.count_nonzero(pages) + 16 * 32


def test_labelled_slices(tmp_path: Path) -> None:
    chosen = [2, 6, 10, 14]
    np.save(tmp_path / "labels.npy", 1 - truth()[chosen])  # against the grey levels, so that nobody guesses it
    names = {"truth_names": {1: "column"}}
    made = workflow(tmp_path, "slices", "../labels.npy", labels={"slices": chosen}, evaluate=names)
    made.run("results/a/labels.json", "results/groups/a/methods.md")
    user = np.full(SHAPE, 255, np.uint8)
    user[chosen] = 1 - truth()[chosen]
    keeps(tmp_path, user)
    # Classes, not clusters; what is handed on beside the scan's own files knows no truth.
    assert [row["name"] for row in read_json(tmp_path / "results/a/labels.json")["classes"]] == ["class 0", "column"]
    methods = (tmp_path / "results/groups/a/methods.md").read_text()
    assert "| id | name | classes of the labels |\n|---|---|---|\n| 0 | class 0 | 0 |\n| 1 | class 1 | 1 |" in methods
