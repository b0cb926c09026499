"""The report: what its page says first, that it needs nothing outside, and that it reads slices only."""

from __future__ import annotations

import html.parser
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from beamseg import figures
from beamseg.captions import captions
from beamseg.clusters import elbow
from beamseg.figures import FALSE, HIT, MISSED
from beamseg.metrics import disputed, percent
from beamseg.models import build_model, save_weights
from beamseg.palette import CLASS
from beamseg.provenance import read_json, write_json
from beamseg.report import FIGURES, curve_panels, report
from beamseg.report_view import densest_window, truth_display
from beamseg.shading import QUANTILES
from beamseg.units import volume_text
from beamseg.verdicts import answer, verdicts
from beamseg.volumes import ArrayVolume
from test_evaluate import K, phantom
from test_evaluate import run as evaluate

CAPTIONS = Path(__file__).parents[1] / "workflow" / "report"


class SliceVolume(ArrayVolume):
    """A volume that refuses to hand out more than one whole slice's voxels at once."""

    def read(self, z0: int, z1: int, y: slice = slice(None), x: slice = slice(None)) -> np.ndarray:
        block = super().read(z0, z1, y, x)
        assert block.size <= self.shape[1] * self.shape[2], f"{block.shape} were read at once"
        return block


def run(
    tmp_path: Path,
    truth: bool = True,
    voxel: list[float] | None = None,
    weights: dict[str, Path] | None = None,
    quantities: Path | None = None,
    settings: dict[str, Any] | None = None,
    compared: Path | None = None,
    **options: Any,
) -> str:
    """A report of the test phantom; returns the page."""
    stages, values = phantom()
    if options.get("word") == CLASS:
        del stages["pseudo_labels"]
    rng = np.random.default_rng(3)
    grey = (1 + values.astype(int) * 15000 + rng.integers(0, 4000, values.shape)).astype(np.uint16)
    grey[stages["scm"] == 255] = 0
    confidence = rng.integers(100, 256, values.shape).astype(np.uint8)
    evaluate(
        tmp_path,
        stages,
        truth=values if truth else None,
        confidence=confidence,
        out_truth=tmp_path / "truth.npz",
        **options,
    )
    shape = list(values.shape)
    write_json(
        tmp_path / "scan.json",
        {
            "name": "rock <1>",
            "shape": shape,
            "voxel_size_um": voxel,
            "warnings": ["dark"],
            "fov": {"kind": "full"},
        },
    )
    write_json(tmp_path / "plan.json", {"range": [0.0, 1.0], "clipped": {"low": 0.001, "high": 0.0}, "warnings": []})
    cuts = [1, 16384, 32768, 49152, 65536]
    clusters = [{"id": k, "intervals": [[cuts[k], cuts[k + 1] - 1]]} for k in range(K)]
    found = elbow(np.bincount(grey.ravel(), minlength=65536))
    described = {"n_clusters": K, "clusters": clusters, "elbow": found, "warnings": ["cluster 3 holds no voxel"]}
    write_json(tmp_path / "classes.json", described)
    counts, edges = np.histogram(grey[grey > 0] / 65535, 512, (0, 1))
    profiles = {
        "slice_mean": np.linspace(0.2, 0.6, shape[0]),
        "slice_quantiles": np.tile(np.linspace(0, 1, len(QUANTILES)), (shape[0], 1)),
        "slice_voxels": np.full(shape[0], 90),
        "slice_nan": np.r_[10, np.zeros(shape[0] - 1, int)],
        "mean_image": np.full((8, 8), 0.5),
        "ring_profile": np.zeros(40),
    }
    np.savez(tmp_path / "histogram.npz", edges=edges, counts=counts, **profiles)
    pd.DataFrame({"step": [10, 20], "loss": [1.0, 0.5], "rate_0": [0.4, 0.3], "lr": [1e-3, 1e-3]}).to_csv(
        tmp_path / "train.csv", index=False
    )
    report(
        metrics=tmp_path / "metrics.json",
        scan=tmp_path / "scan.json",
        plan=tmp_path / "plan.json",
        classes=tmp_path / "classes.json",
        histogram=tmp_path / "histogram.npz",
        curves={"stage2": tmp_path / "train.csv"},
        stages={name: SliceVolume(labels) for name, labels in stages.items()},
        grey=SliceVolume(grey),
        truth_slices=tmp_path / "truth.npz",
        confidence=SliceVolume(confidence),
        settings={"slices": 2, "max_pixels": 640, "opacity": 0.5, "views_3d": False, "figures": []} | (settings or {}),
        out_figures={name: tmp_path / f"{name}.png" for name in FIGURES},
        out_html=tmp_path / "report.html",
        weights=weights,
        quantities=quantities,
        compared=compared,
        mem_budget_mb=1e-6,
    )
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def test_painted_pixels_are_neither_hit_nor_miss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network was shown them: of a slice painted in part the picture of errors is of the rest."""
    panels: dict[str, np.ndarray] = {}
    monkeypatch.setattr(figures, "show", lambda _, picture, title="", *how: panels.update({title: picture}))
    stages, values = phantom()
    z = values.shape[0] // 2
    painted = np.full_like(values, 255)
    painted[z, 8:12, 6:24] = values[z, 8:12, 6:24]
    run(tmp_path, training_labels=painted)
    given, inside = painted[z] != 255, stages["scm"][z] != 255
    found, truth, predicted = panels[f"class 1, slice {z}"].astype(int), values[z] == 1, stages["scm"][z] == 1
    kinds = {HIT: truth & predicted, MISSED: truth & ~predicted, FALSE: ~truth & predicted}
    for colour, where in kinds.items():
        distance = np.abs(found - 0.75 * np.array(figures.rgb(colour))).max(-1)
        assert (where & inside & ~given).any()
        assert (distance[where & inside & ~given] <= 0.25 * 0.55 * 255 + 1).all()
    assert (given & truth & predicted).any()
    assert (np.ptp(found[given], axis=-1) == 0).all()  # grey, no colour


class Tags(html.parser.HTMLParser):
    """Collects tags and checks that they close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("truth", [True, False])
def test_the_page_is_whole_and_needs_nothing_outside(tmp_path: Path, truth: bool) -> None:
    page = run(tmp_path, truth, [2.0, 0.5, 0.5] if truth else None)
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert len(tags.links) == len(FIGURES) + 1
    assert all(link.startswith("data:") for link in tags.links)
    assert not re.search(r"https?://|@import|url\(", page)
    assert "rock &lt;1&gt;" in page
    assert "<td>10 voxels</td>" in page
    assert "cluster 3 holds no voxel" in page
    assert "nan" not in re.sub(r"base64,[^']*", "", page).lower()
    for name in FIGURES:
        with Image.open(tmp_path / f"{name}.png") as image:
            assert image.width > 300
        assert (tmp_path / f"{name}.png").stat().st_size < 310_000


def test_the_page_shows_what_the_networks_look_at_only_if_asked(tmp_path: Path) -> None:
    torch.manual_seed(0)
    meta = {"name": "unet_noskip", "in_channels": 1, "n_classes": K, "options": {"dropout": 0.1}, "crop": 16}
    save_weights(tmp_path / "w.safetensors", build_model("unet_noskip", 1, K), meta)
    weights = {"stage2": tmp_path / "w.safetensors", "stage3": tmp_path / "w.safetensors"}
    page, plain = run(tmp_path / "a", weights=weights), run(tmp_path / "b")
    assert "What the networks look at" in page
    assert "Grad-CAM" in page
    assert page.count("<figure>") == len(FIGURES) + 1
    assert "Grad-CAM" not in plain
    assert not list((tmp_path / "a").glob("grad_cam*"))


def test_views_in_three_dimensions_and_figures_for_print_only_if_asked(tmp_path: Path) -> None:
    page = run(tmp_path, settings={"views_3d": True, "figures": ["png"]}, voxel=[2.0, 0.5, 0.5])
    assert "The classes in three dimensions" in page
    assert page.count("<figure>") == len(FIGURES) + 1
    printed = tmp_path / "figures" / "print"
    assert {path.stem for path in printed.iterdir()} == {*FIGURES, "views_3d"}
    with Image.open(printed / "stages.png") as image:
        assert image.info["dpi"] == pytest.approx((300, 300), abs=0.1)
    assert "in three dimensions" not in run(tmp_path)
    assert list(printed.iterdir()) == []


def test_the_page_says_where_it_is_least_certain_and_how_much_there_is(tmp_path: Path) -> None:
    page = run(tmp_path, voxel=[2.0, 0.5, 0.5])
    result = read_json(tmp_path / "metrics.json")
    (region, *_) = result["least_certain"]
    assert f"<td>{region['z'][0]} to {region['z'][1] - 1}</td>" in page
    row = result["classes"][0]
    share = result["stages"][result["product"]["stage"]]["fractions"][row["name"]]
    assert f"<td>{volume_text(share * result['voxels']['field_of_view'] * 0.5, 1e3)}</td>" in page
    assert "<b>clipping</b><span>0.10 % of the values below" in page


def test_quantities_stand_on_the_page_where_they_were_measured(tmp_path: Path) -> None:
    volume, surface = {"voxels": 3, "volume": 12.5, "fraction": 0.1}, {"area": 7.25, "area_per_volume": 0.58}
    parts = {"count": 2000, "largest_fraction": 0.25, "largest": 2}
    rows = [
        {"id": 0, "name": "pore", "volume": volume, "surface": surface, "components": parts},
        {"id": 1, "name": "rock"},
    ]
    write_json(tmp_path / "quantities.json", {"unit": "um", "classes": rows, "notes": ["of the middle"]})
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "quantities.png").write_bytes(b"a picture")
    page = run(tmp_path, quantities=tmp_path / "quantities.json")
    heads = "<th>volume, µm³</th><th>surface, µm²</th><th>surface per volume, µm⁻¹</th><th>components</th>"
    assert heads + "<th>in the largest</th></tr>" in page
    assert (
        f"<tr><td>pore</td><td>12.5</td><td>7.25</td><td>0.58</td><td>2,000</td><td>{percent(0.25)}</td></tr>" in page
    )
    assert "<tr><td>rock</td>" + 5 * "<td>–</td>" in page
    assert "quantities.csv has every number. of the middle." in page
    assert "Quantities of the classes" not in run(tmp_path)


@pytest.mark.parametrize(
    ("kinds", "truth", "found"),
    [
        (["note", "warn", "bad"], True, ("bad", "Do not use this as it is: see l2.")),
        (["note", "warn", "good"], True, ("warn", "Look first at what is said of l1, then at the pictures.")),
        (["good", "note"], True, ("good", "No check speaks against it.")),
    ],
)
def test_the_answer_is_that_of_the_worst_verdict(kinds: list[str], truth: bool, found: tuple[str, str]) -> None:
    lines = [(kind, f"l{number}", "text") for number, kind in enumerate(kinds)]
    assert answer(lines, truth) == found


def test_without_truth_nothing_is_proved() -> None:
    assert "No truth was given" in answer([("good", "watch", "")], False)[1]


def test_equal_inputs_give_equal_bytes(tmp_path: Path) -> None:
    assert run(tmp_path / "a") == run(tmp_path / "b")


def test_a_failed_watch_is_the_first_line(tmp_path: Path) -> None:
    stages, _ = phantom()
    verdict = {"use": "stage2", "reason": "class 2 fell from 12 % to 0.3 %"}
    change = {"scm": {"changed": 0.08, "erased": [], "warnings": ["scm took 9% of class 1 away"]}}
    evaluate(tmp_path, stages, verdict=verdict, refinement=change)
    lines = verdicts(read_json(tmp_path / "metrics.json"), {"warnings": ["dark slice"]}, {"warnings": ["drift of 8 %"]})
    assert lines[0] == (
        "bad",
        "watch",
        "stage 2 takes the place of stage 3: class 2 fell from 12 % to 0.3 %.",
    )
    assert lines[1][:2] == ("warn", "product")
    texts = [(kind, text) for kind, _, text in lines]
    assert ("warn", "dark slice") in texts
    assert ("warn", "drift of 8 %") in texts
    assert ("warn", "scm took 9% of class 1 away.") in texts
    kinds = [kind for kind, label, _ in lines[2:]]
    assert kinds == sorted(kinds, key=["bad", "warn", "good", "note"].index)


def test_a_product_below_the_pseudo_labels_is_said(tmp_path: Path) -> None:
    stages, truth = phantom()
    evaluate(tmp_path, {"pseudo_labels": stages["scm"], "stage2": stages["pseudo_labels"]}, truth=truth)
    lines = verdicts(read_json(tmp_path / "metrics.json"), {}, {})
    assert [label for kind, label, _ in lines if kind == "bad"] == ["truth"]
    assert any("pseudo-labels is nearer to the truth" in text for _, _, text in lines)


def test_truth_has_the_colour_of_its_cluster(tmp_path: Path) -> None:
    stages, truth = phantom()
    merged = np.array([0, 1, 1, 3], np.uint8)[truth]
    result = evaluate(tmp_path, stages, truth=merged, settings={"truth_names": {"1": "yarn"}})
    names, colours, ids = truth_display(result)
    assert names[1:3] == ["cluster 1 (yarn)", "cluster 2 (yarn)"]
    assert ids[1] in (1, 2)
    assert (ids[0], ids[3], ids[255]) == (0, 3, 255)
    assert len(names) == len(colours) == K


def test_a_class_of_the_truth_without_cluster_has_an_entry_of_its_own(tmp_path: Path) -> None:
    truth = np.repeat(np.array([0, 1, 2], np.uint8), 50).reshape(3, 5, 10)
    labels = (truth > 0).astype(np.uint8)
    result = evaluate(tmp_path, {"pseudo_labels": labels}, truth=truth, n_clusters=2)
    names, colours, ids = truth_display(result)
    assert len(names) == 3
    assert names[2].endswith("(no cluster)")
    assert len(set(colours)) == 3
    assert sorted(ids[:3]) == [0, 1, 2]


@pytest.mark.parametrize("truth", [True, False])
def test_classes_of_labels_are_called_what_they_are(tmp_path: Path, truth: bool) -> None:
    page = run(tmp_path, truth, word=CLASS, classes={"cell": {"clusters": [1]}})
    text = re.sub(r"src='[^']*'", "", page)
    for words in (
        "<dt>classes</dt><dd>4, of labels given by hand</dd>",
        "<th>classes of the labels</th>",
        "<dt>classes</dt><dd>class 0 ",
        "; cell ",
        "<h2>What the classes stand for</h2>",
        "<h2>Grey values</h2>",
    ):
        assert words in text, words
    assert ("Left, classes of stage 2 against the truth" in text) == truth
    assert ("each to the value that is its number" in text) == truth
    assert "pseudo-labels" not in text
    # Only where it speaks of grey levels is anything a cluster.
    about_clusters = re.findall(r"[^.<>]*clusters?\b[^.<>]*", text, re.IGNORECASE)
    assert all("grey levels" in said for said in about_clusters), about_clusters


def test_names_of_the_truth_are_told_from_those_of_classes(tmp_path: Path) -> None:
    stages, truth = phantom()
    stages = {"stage2": stages["stage2"]}
    settings = {"truth_names": {"3": "rim", "7": "pyrite"}}
    result = evaluate(tmp_path, stages, truth=truth, settings=settings, word=CLASS)
    assert truth_display(result)[0] == ["class 0 (truth: background)", "class 1", "class 2", "class 3 (truth: rim)"]
    result = evaluate(tmp_path, stages, truth=truth, settings={"truth_names": {"3": "rim"}}, word=CLASS)
    assert truth_display(result)[0] == ["class 0 (truth: background)", "class 1", "class 2", "rim"]
    result = evaluate(tmp_path, stages, truth=np.where(truth == 2, 9, truth).astype(np.uint8), word=CLASS)
    assert truth_display(result)[0][2] == "class 2 (truth: class 9)"
    two = {"stage2": np.minimum(truth, 1)}
    result = evaluate(tmp_path, two, truth=np.minimum(truth, 2), word=CLASS, n_clusters=2)
    assert truth_display(result)[0][2:] == ["class 2 (in the truth alone)"]


def test_results_from_before_speak_of_clusters(tmp_path: Path) -> None:
    result = evaluate(tmp_path, phantom()[0])
    del result["word"]
    assert "cuts between clusters" in captions(result, {"range": [0.0, 1.0]}, {})["histogram"]


def test_curves_are_sorted_into_panels() -> None:
    table = pd.DataFrame(
        {
            "step": [1, 2],
            "loss": [2.0, 1.0],
            "rate_0": [0.5, 0.4],
            "rate_1": [0.5, 0.6],
            "agreement": [0.8, 0.9],
            "lr": [1, 1],
        }
    )
    panels = {title: list(values) for title, values, _ in curve_panels(table)}
    assert panels == {
        "loss": ["loss"],
        "class rates among the predictions": ["class 0", "class 1"],
        "watch": ["agreement with stage 2"],
    }


def test_the_window_holds_the_dispute() -> None:
    mask = np.zeros((400, 500), bool)
    mask[300:340, 420:480] = True
    rows, columns = densest_window(mask)
    assert mask[rows, columns].sum() == mask.sum()
    assert rows.stop - rows.start == columns.stop - columns.start == 200
    assert densest_window(np.zeros((20, 30), bool)) == (slice(0, 20), slice(0, 20))
    a, b = np.zeros((2, 2), np.uint8), np.array([[0, 1], [0, 0]], np.uint8)
    assert disputed([a, a, b]).tolist() == [[False, True], [False, False]]


@pytest.mark.parametrize("caption", sorted(CAPTIONS.glob("*.rst")), ids=lambda path: path.stem)
def test_captions_render(caption: Path) -> None:
    settings = yaml.safe_load((CAPTIONS.parent / "schemas" / "report.yaml").read_text())["properties"]
    job = SimpleNamespace(
        wildcards=SimpleNamespace(sample="rock_7"),
        params=SimpleNamespace(settings={key: entry["default"] for key, entry in settings.items()}),
        config={"seed": 3},
    )
    text = jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(caption.read_text()).render(snakemake=job)
    assert ("Seed 3" if caption.stem == "workflow" else "rock_7") in text


def test_every_figure_has_a_caption() -> None:
    assert {path.stem for path in CAPTIONS.glob("*.rst")} >= {*FIGURES, "workflow", "report"}
