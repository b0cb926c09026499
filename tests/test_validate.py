"""Points for blind labelling: how they are drawn, what a person sees, and what is made of the answers."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beamseg import validate
from beamseg.config import Run
from beamseg.errors import InputError
from beamseg.finished import Finished
from beamseg.points import allocate, cut_strata, draw
from beamseg.provenance import read_json
from beamseg.runs import Runs
from beamseg.validate import export_points, judge, picture, read_answers, read_form, text_of
from beamseg.volumes import ArrayVolume

BASEDIR = Path(__file__).resolve().parents[1]
SHAPE = (20, 30, 34)
NAMES = ["pore", "glass"]


def labels_and_confidence() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    labels = (rng.random(SHAPE) < 0.3).astype(np.uint8)
    labels[:, :3] = 255
    return labels, rng.integers(100, 256, SHAPE).astype(np.uint8)


@pytest.fixture
def done(tmp_path: Path) -> Finished:
    labels, confidence = labels_and_confidence()
    grey = np.where(labels == 255, 0, 20000 + 20000 * labels.astype(np.uint16)).astype(np.uint16)
    metrics: dict[str, Any] = {
        "classes": [{"id": i, "name": name, "clusters": [i]} for i, name in enumerate(NAMES)],
        "product": {"stage": "scm"},
        "stages": {"scm": {"fractions": {"pore": 0.7, "glass": 0.3}}},
    }
    product = ArrayVolume(labels)
    run = Run("a", "a", {"seed": 0}, {}, tmp_path)
    return Finished(run, tmp_path / "a", metrics, product, product, ArrayVolume(confidence), ArrayVolume(grey), None)


def filled(form: Path, answer: Any) -> None:
    """Write `answer(point)` into every row of a form."""
    with open(form, newline="") as file:
        rows = list(csv.reader(file))
    with open(form, "w", newline="") as file:
        csv.writer(file).writerows([rows[0], *([row[0], answer(row[0])] for row in rows[1:])])


def test_strata_by_class_and_confidence() -> None:
    counts = np.zeros((3, 256), np.int64)
    counts[0, [10, 20, 30]] = 10, 30, 60
    counts[2, 200] = 5
    strata = cut_strata(counts)
    assert strata[0, [10, 20, 30]].tolist() == [0, 1, 2]
    assert strata[2, 200] == 3
    assert (strata >= 0).sum() == 4


def test_points_are_shared_and_every_stratum_gets_two() -> None:
    sizes = np.array([900000, 90000, 9000, 1])
    n = allocate(sizes, 100)
    assert n.sum() == 100
    assert (n[0] > n[1] > n[2] >= 2, n[3]) == (True, 1)
    assert allocate(np.array([3, 4]), 100).tolist() == [3, 4]
    with pytest.raises(InputError, match="8 or more: two for each of 4 strata"):
        allocate(sizes, 7)


def test_points_are_drawn_without_replacement_from_their_strata_and_not_where_training_looked() -> None:
    labels, confidence = labels_and_confidence()
    known = np.full(SHAPE, 255, np.uint8)
    known[4:9] = 0
    sizes, points = draw(ArrayVolume(labels), ArrayVolume(confidence), 2, 60, 0, ArrayVolume(known))
    drawable = (labels != 255) & (known == 255)
    assert sizes.sum() == drawable.sum()
    assert len({(p["z"], p["y"], p["x"]) for p in points}) == len(points) == 60
    assert all(drawable[p["z"], p["y"], p["x"]] for p in points)
    counts = np.zeros((2, 256), np.int64)
    np.add.at(counts, (labels[drawable], confidence[drawable]), 1)
    strata = cut_strata(counts)
    for p in points:
        at = p["z"], p["y"], p["x"]
        assert strata[labels[at], confidence[at]] == p["stratum"]
    again = draw(ArrayVolume(labels), ArrayVolume(confidence), 2, 60, 0, ArrayVolume(known))[1]
    other = draw(ArrayVolume(labels), ArrayVolume(confidence), 2, 60, 1, ArrayVolume(known))[1]
    assert points == again != other
    # The order, which is the order of the form, follows neither place nor stratum.
    assert [p["stratum"] for p in points] != sorted(p["stratum"] for p in points)
    assert [p["z"] for p in points] != sorted(p["z"] for p in points)


def test_every_voxel_of_a_stratum_is_as_likely() -> None:
    labels = np.zeros((17, 4, 4), np.uint8)
    volume, sure = ArrayVolume(labels), ArrayVolume(np.full(labels.shape, 9, np.uint8))
    counts = np.zeros(labels.shape, int)
    for seed in range(400):
        for p in draw(volume, sure, 1, 34, seed)[1]:
            counts[p["z"], p["y"], p["x"]] += 1
    # 400 draws at one in eight: 50 ± 6.6 each; the mean of a slice is known to a quarter of that.
    assert np.abs(counts.mean(axis=(1, 2)) - 50).max() < 5 * 6.6 / 4
    assert counts.min() > 20


def test_the_picture_shows_the_voxel_in_the_middle_of_its_planes() -> None:
    grey = np.full((9, 11, 13), 100, np.uint16)
    grey[0, 10, 5] = 200
    shown = picture(ArrayVolume(grey), (0, 10, 5), (100.0, 200.0))
    zoom, half = 6, 24
    edge = (2 * half + 1) * zoom
    for plane in range(3):
        tile = shown[:edge, plane * (edge + 6) : plane * (edge + 6) + edge]
        bright = np.argwhere((tile == 255).all(axis=2))
        assert (bright.min(axis=0).tolist(), bright.max(axis=0).tolist()) == ([144, 144], [149, 149])


def test_what_the_person_gets_holds_no_label_and_the_answers_come_back(done: Finished) -> None:
    blind = export_points(done, 60)
    key = read_json(blind.parent / "key.json")
    assert sorted(path.name for path in blind.glob("*.png")) == [f"{n:03d}.png" for n in range(1, 61)]
    assert sorted(path.name for path in blind.iterdir() if path.suffix != ".png") == [
        "README.txt",
        "classes.csv",
        "form.csv",
    ]
    form = (blind / "form.csv").read_text()
    assert form == "point,class\n" + "".join(f"{n:03d},\n" for n in range(1, 61))
    assert (blind / "classes.csv").read_text() == 'class,"clusters, 0 is the darkest"\npore,0\nglass,1\n'

    at = {p["point"]: (p["z"], p["y"], p["x"]) for p in key["points"]}
    labels, _ = labels_and_confidence()

    def answer(point: str) -> str:
        if point in ("001", "002"):
            return "unsure"
        label = int(labels[at[point]])
        return "" if point == "003" else NAMES[1 - label if point == "004" else label].upper()

    filled(blind / "form.csv", answer)
    found = read_answers(done, blind / "form.csv")
    assert found["points"] == {"drawn": 60, "answered": 57, "unsure": 2, "unanswered": 1, "trained_on": 0, "errors": 1}
    strata = np.array([p["stratum"] for p in key["points"]])
    sizes, wrong = np.array(key["strata"]), key["points"][3]["stratum"]
    n = np.bincount(strata[3:], minlength=len(sizes))
    assert found["accuracy"]["value"] == pytest.approx(1 - sizes[wrong] / n[wrong] / sizes.sum())
    assert found["unsure_as_errors"]["value"] < found["accuracy"]["value"]
    assert found["mapped"] == {"pore": 0.7, "glass": 0.3}
    assert found["calibration"]["temperature"] is None
    assert read_json(blind.parent / "validate.json") == found
    assert "57 points answered, 2 unsure, 1 not answered; 1 of them" in text_of(found)
    rows = list(csv.reader((blind.parent / "validate.csv").read_text().splitlines()))
    assert rows[1][:2] == ["accuracy", "all"]
    with pytest.raises(InputError, match="59 answers"):
        export_points(done, 60)


@pytest.mark.parametrize(
    "config", ["label_source: slices\nlabels: {unlabelled: 0, map: {1: 0, 2: 1}}\n", "label_source: pixels\n"]
)
def test_the_command_draws_no_point_where_training_looked(
    done: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str
) -> None:
    painted = np.zeros(SHAPE, np.uint8)
    painted[4:9], painted[6, 10:] = 1, 2
    np.save(tmp_path / "painted.npy", painted)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text(config)
    (tmp_path / "config" / "samples.tsv").write_text("sample\tpath\tlabels\na\ta.h5\t../painted.npy\n")

    def finished(runs: Runs, name: str, results: Path) -> Finished:
        return dataclasses.replace(done, run=runs.runs[name])

    monkeypatch.setattr(validate, "open_finished", finished)
    assert validate.validate(tmp_path, BASEDIR, "a", points=60).startswith("60 points")
    points = read_json(done.folder / "validate" / "key.json")["points"]
    assert len(points) == 60
    assert all(painted[p["z"], p["y"], p["x"]] == 0 for p in points)


def test_points_serve_a_later_product_too(done: Finished) -> None:
    blind = export_points(done, 60)
    labels, _ = labels_and_confidence()
    at = {p["point"]: (p["z"], p["y"], p["x"]) for p in read_json(blind.parent / "key.json")["points"]}
    filled(blind / "form.csv", lambda point: NAMES[int(labels[at[point]])])
    assert read_answers(done, blind / "form.csv")["accuracy"]["value"] == 1
    labels[labels != 255] = 0
    done.product.array[:] = labels
    found = read_answers(done, blind / "form.csv")
    true, _ = labels_and_confidence()
    # All is pore now: right where the person says pore, which is the fraction of pore.
    assert found["accuracy"]["value"] == pytest.approx(found["classes"]["pore"]["fraction"]["value"])
    low, high = found["classes"]["pore"]["fraction"]["interval"]
    assert low < (true == 0).sum() / (true != 255).sum() < high
    assert found["classes"]["glass"]["users_accuracy"] is None


def test_points_that_were_labelled_for_training_since_are_left_out(done: Finished) -> None:
    blind = export_points(done, 60)
    labels, _ = labels_and_confidence()
    points = read_json(blind.parent / "key.json")["points"]
    at = {p["point"]: (p["z"], p["y"], p["x"]) for p in points}
    filled(blind / "form.csv", lambda point: NAMES[int(labels[at[point]])])
    painted = np.full(SHAPE, 255, np.uint8)
    for point in ("001", "002", "030"):
        painted[at[point]] = labels[at[point]]
    found = read_answers(done, blind / "form.csv", ArrayVolume(painted))
    assert found["points"] == {"drawn": 60, "answered": 57, "unsure": 0, "unanswered": 0, "trained_on": 3, "errors": 0}
    assert found["notes"][0] == "3 answers are at voxels that were labelled for training since, and are left out"
    with pytest.raises(InputError, match="no answer beside 60 at voxels that are trained on"):
        read_answers(done, blind / "form.csv", ArrayVolume(np.zeros(SHAPE, np.uint8)))


def test_forms_as_spreadsheets_leave_them(tmp_path: Path) -> None:
    form = tmp_path / "form.csv"
    form.write_bytes(b"\xef\xbb\xbfpoint;class\r\n1; pore \r\n12;\r\n")
    assert read_form(form) == {"001": "pore", "012": ""}
    form.write_text("point,class\n1,pore\n001,glass\n")
    with pytest.raises(InputError, match="point 001 twice"):
        read_form(form)
    form.write_text("point,klass\n1,pore\n")
    with pytest.raises(InputError, match="a column 'class'"):
        read_form(form)


def test_unknown_points_and_classes_are_named(tmp_path: Path) -> None:
    key = {"points": [{"point": "001"}]}
    with pytest.raises(InputError) as error:
        judge({"001": "quartz"}, key, NAMES, "form.csv")
    assert (error.value.where, error.value.found) == ("form.csv, point 001", "class 'quartz'")
    assert error.value.expected == "one of pore, glass, or unsure, or nothing"
    with pytest.raises(InputError, match="points 001 to 001"):
        judge({"002": "pore"}, key, NAMES, "form.csv")


def test_classes_of_labels_are_listed_as_such(done: Finished) -> None:
    blind = export_points(dataclasses.replace(done, metrics=done.metrics | {"word": "class"}), 60)
    assert (blind / "classes.csv").read_text() == "class,classes of the labels\npore,0\nglass,1\n"


def test_no_key_and_no_answer(done: Finished) -> None:
    with pytest.raises(InputError, match="draw them: beamseg validate a"):
        read_answers(done, "form.csv")
    blind = export_points(done, 60)
    with pytest.raises(InputError, match="no answer"):
        read_answers(done, blind / "form.csv")
