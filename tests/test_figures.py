"""Building blocks of pictures: colours where they belong, lengths, and files of bounded size and equal bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from beamseg import figures, plots
from beamseg.palette import COLOURS


def test_overlay_paints_classes_and_leaves_the_unlabelled() -> None:
    grey = np.array([[1000, 3000, 0]], np.uint16)
    picture = figures.grey_picture(grey, (1000, 3000))
    assert picture[0].tolist() == [[0] * 3, [255] * 3, list(figures.OUTSIDE)]
    labels = np.array([[1, 255, 255]], np.uint8)
    painted = figures.overlay(picture, labels, ["#000000", "#FF0000"], 0.5)
    assert painted[0].tolist() == [[127, 0, 0], [255] * 3, list(figures.OUTSIDE)]


def test_grey_range_leaves_the_outside_out() -> None:
    grey = np.concatenate([np.zeros(5000), np.linspace(100, 200, 1001)]).astype(np.uint16)
    low, high = figures.grey_range(grey)
    assert (low, high) == (pytest.approx(100, abs=1), pytest.approx(199, abs=1))
    assert figures.grey_range(np.zeros(4)) == (0.0, 1.0)
    assert figures.grey_range(np.full(4, 7)) == (7.0, 8.0)


@pytest.mark.parametrize(
    ("extent", "length"), [(100, 20), (10, 2), (0.41, 0.1), (1300, 200), (2000, 500), (4, 1), (399, 50)]
)
def test_scale_bars_have_round_lengths(extent: float, length: float) -> None:
    assert figures.nice_length(extent) == pytest.approx(length)


def test_figures_for_print_are_the_same_twice(tmp_path: Path) -> None:
    for name in ("a", "b"):
        figure = Figure(figsize=(1, 1))
        figure.subplots().plot([0, 1])
        figures.save_for_print(figure, tmp_path / name, ["pdf", "png"])
    for kind in ("pdf", "png"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    with Image.open(tmp_path / "a.png") as image:
        assert image.size == (300, 300)


def test_thinned_pictures_are_no_longer_than_asked() -> None:
    image = np.zeros((1000, 333))
    assert max(figures.thin(image, 640).shape) == 500
    assert figures.thin(image, 1000).shape == image.shape


def test_files_are_bounded_and_equal_inputs_give_equal_bytes(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (400, 400, 3)).astype(np.uint8)
    for name in ("a.png", "b.png"):
        figure = Figure(figsize=(4, 4))
        figures.show(figure.subplots(), noise, "noise", unit="µm")
        figures.save(figure, tmp_path / name, max_kb=60)
    assert (tmp_path / "a.png").stat().st_size <= 60_000
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_contact_sheet_shows_every_k(tmp_path: Path) -> None:
    grey = np.linspace(1, 65535, 48 * 64).reshape(48, 64).astype(np.uint16)
    labels = {k: (grey.astype(int) * k // 65536).astype(np.uint8) for k in range(2, 9)}
    figures.contact_sheet(grey, labels, tmp_path / "sheet.png", (1, 0.5, 0.5))
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.width > 1000
        found = {tuple(c) for c in np.array(image.convert("RGB")).reshape(-1, 3)[::7].tolist()}
    assert len(found) > 50


def test_bars_of_the_histogram_have_the_colours_of_their_clusters() -> None:
    counts = np.zeros(256)
    counts[[40, 200]] = 1000
    table = [{"name": "a", "colour": COLOURS[1], "clusters": [0]}, {"name": "b", "colour": COLOURS[2], "clusters": [1]}]
    clusters = [{"id": 0, "intervals": [[1, 32767]]}, {"id": 1, "intervals": [[32768, 65535]]}]
    figure = plots.histogram(np.arange(257.0), counts, (0.0, 256.0), table, clusters)
    bars = [bar for bar in figure.axes[0].patches if bar.get_height() >= 1000]
    assert [bar.get_facecolor()[:3] for bar in sorted(bars, key=lambda bar: bar.get_x())] == [
        pytest.approx(tuple(v / 255 for v in figures.rgb(COLOURS[1]))),
        pytest.approx(tuple(v / 255 for v in figures.rgb(COLOURS[2]))),
    ]
    cuts = [line.get_xdata()[0] for line in figure.axes[0].lines if len(line.get_xdata()) == 2]
    assert cuts == [pytest.approx(128, abs=0.01)]


def test_fewer_colours_keep_those_of_the_classes(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (400, 400, 3)).astype(np.uint8)
    figure = Figure(figsize=(4, 4))
    figures.show(figure.subplots(), noise)
    figures.legend(figure, ["a", "b"], ["#12A4F7", COLOURS[7]])
    figures.save(figure, tmp_path / "a.png", ["#12A4F7", COLOURS[7]], max_kb=100)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P"
        found = image.convert("RGB").getcolors(1_000_000)
    counts = {colour: n for n, colour in found}
    assert counts[figures.rgb("#12A4F7")] > 30
    assert counts[figures.rgb(COLOURS[7])] > 30


@pytest.mark.parametrize("n", [2, 5, 12])
def test_legends_stay_inside_the_figure(n: int) -> None:
    figure = Figure(figsize=(6, 4), layout="constrained")
    figure.subplots()
    figures.legend(figure, [f"cluster {k} (background)" for k in range(n)], ["#112233"] * n)
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.width
    assert box.y0 >= 0
