"""Runs that differ in the seed: votes, intervals, and which runs may be compared."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from beamseg.cli import main
from beamseg.config import load_runs
from beamseg.disagree import check, count_votes, limits, replicates, spread
from beamseg.errors import InputError
from beamseg.provenance import read_json, write_json
from beamseg.runs import Runs
from beamseg.slabs import SlabVolume, run_slabs

BASEDIR = Path(__file__).resolve().parents[1]
SHAPE = (24, 6, 7)


def table(folder: Path, rows: str) -> Runs:
    (folder / "config").mkdir(exist_ok=True)
    (folder / "config" / "config.yaml").write_text(yaml.safe_dump({"samples": "config/samples.tsv", "preset": "quick"}))
    (folder / "config" / "samples.tsv").write_text(rows)
    return Runs(load_runs(folder, BASEDIR)[0])


def test_votes_by_hand() -> None:
    labels = np.array([[0, 1, 2, 255, 255], [0, 1, 1, 1, 255], [0, 0, 0, 255, 255]], np.uint8)
    winner, votes = count_votes(labels, 3)
    assert winner.tolist() == [0, 1, 0, 1, 255]
    assert votes.tolist() == [3, 2, 1, 1, 0]


def test_spread_by_hand() -> None:
    found = spread([1.0, 2.0, 3.0])
    assert (found["mean"], found["standard_deviation"], found["lowest"], found["highest"]) == (2.0, 1.0, 1.0, 3.0)
    assert found["interval"] == pytest.approx([2 - 4.302653 / 3**0.5, 2 + 4.302653 / 3**0.5])
    assert spread([0.0, 0.1, 0.9], 0, 1)["interval"] == [0, 1]


@pytest.mark.parametrize(
    ("quantity", "wanted"),
    [
        ("iou.crack", (0, 1)),
        ("quantities.a.volume.fraction", (0, 1)),
        ("quantities.a.connectivity.spanning_fraction.z", (0, 1)),
        ("quantities.a.surface.area", (0, math.inf)),
        ("quantities.a.connectivity.euler", (-math.inf, math.inf)),
    ],
)
def test_an_interval_ends_where_its_quantity_does(quantity: str, wanted: tuple[float, float]) -> None:
    assert limits(quantity) == wanted


def test_which_runs_are_replicates(tmp_path: Path) -> None:
    rows = ("a\t../a.h5\t0\t", "b\t../a.h5\t1\t", "c\t../a.h5\t2\t0.1", "d\t../d.h5\t3\t", "e\t../a.h5\t1\t")
    runs = table(tmp_path, "\n".join(["sample\tpath\tseed\ttrain.lr", *rows]))
    assert replicates(runs, "a") == ["a", "b", "e"]
    check(runs, ["a", "b"])
    for names, found in (
        (["a"], "no row that differs in the seed alone"),
        (["a", "c"], "train.lr: 0.003 and 0.1"),
        (["a", "d"], "another scan"),
        (["a", "b", "e"], "seeds [0, 1, 1]"),
    ):
        with pytest.raises(InputError) as error:
            check(runs, names)
        assert error.value.found == found


def finish(folder: Path, name: str, labels: np.ndarray, **metrics: Any) -> None:
    """Lay out what the command reads of a finished run."""
    results = folder / "results"

    def fill(z0: int, z1: int, writer: Any) -> None:
        writer.put("labels", z0, labels[z0:z1])
        writer.put("confidence", z0, np.full((z1 - z0, *SHAPE[1:]), 200, np.uint8))

    dtypes = {"labels": np.uint8, "confidence": np.uint8}
    for stage in ("segment/stage2", "segment/stage3"):
        part = results / name / stage / "1-of-1.json"
        run_slabs(part, stage=stage, identity=name, shape=SHAPE, depth=16, dtypes=dtypes, fill=fill)
    write_json(
        results / name / "metrics.json",
        {
            "classes": [{"id": i, "name": f"cluster {i}", "clusters": [i]} for i in range(2)],
            "product": {"stage": "stage3"},
            "verdict": {"use": "stage3"},
            **metrics,
        },
    )


def test_the_command_writes_map_and_intervals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table(tmp_path, "sample\tpath\tseed\n" + "".join(f"{n}\t../a.h5\t{s}\n" for s, n in enumerate("abc")))
    rng = np.random.default_rng(0)
    common = rng.integers(0, 2, SHAPE).astype(np.uint8)
    common[:, 0] = 255
    flipped = common.copy()
    flipped[20, 3, :4] = 1 - flipped[20, 3, :4]
    flipped[2, 4, 1] = 1 - flipped[2, 4, 1]
    scan = {"fov": {"kind": "full"}, "shape": list(SHAPE), "dtype": "uint16", "voxel_size_um": None}
    np.save(tmp_path / "a.npy", np.ones(SHAPE, np.uint16))
    source = {"path": str(tmp_path / "a.npy"), "dataset": None, "axes": None, "flip": None, "level": 0, "files": []}
    for name, labels, share in (("a", common, 0.5), ("b", flipped, 0.6), ("c", common, 0.7)):
        stages = {"stage3": {"fractions": {"cluster 0": share, "cluster 1": 1 - share}, "accuracy": 0.9}}
        finish(tmp_path, name, labels, stages=stages)
    for name in "abc":
        write_json(tmp_path / "results" / name / "scan.json", scan)
        write_json(tmp_path / "results" / name / "source.json", source)
        write_json(tmp_path / "results" / "groups" / name / "plan.json", {"range": [0, 2], "bits": 16})
    for name, volume, area in (("a", 3.0, 10.0), ("b", 4.0, 12.0), ("c", None, 17.0)):
        rows = [{"name": "cluster 0", "id": 0} | ({} if volume is None else {"volume": {"value": volume}})]
        of_pairs = [{"classes": ["cluster 0", "cluster 1"], "area": area}]
        write_json(tmp_path / "results" / name / "quantities.json", {"classes": rows, "interfaces": of_pairs})
    assert main(["--directory", str(tmp_path), "disagree", "a"]) == 0
    found = read_json(tmp_path / "results" / "a" / "disagree" / "disagree.json")
    inside = int((common != 255).sum())
    assert found["agreement"]["unanimous"] == pytest.approx(1 - 5 / inside)
    assert found["agreement"]["votes"] == pytest.approx(1 - 5 / inside / 3)
    assert found["agreement"]["pairs"] == pytest.approx(1 - 2 * 5 / inside / 3)
    assert found["reported"]["fraction.cluster 0"] == spread([0.5, 0.6, 0.7], 0, 1)
    assert found["reported"]["accuracy"]["standard_deviation"] == pytest.approx(0)
    assert found["reported"]["interfaces.cluster 0 to cluster 1"]["mean"] == pytest.approx(13)
    assert found["notes"][1] == "not reported by every run, and left out: quantities.cluster 0.volume.value"
    part = tmp_path / "results" / "a" / "disagree" / "1-of-1.json"
    assert np.array_equal(SlabVolume([part], "labels").read(0, SHAPE[0]), common)
    votes = SlabVolume([part], "votes").read(0, SHAPE[0])
    assert np.array_equal(votes, np.where(common == 255, 0, np.where(flipped != common, 170, 255)))
    assert "3 runs: a (seed 0), b (seed 1), c (seed 2)" in capsys.readouterr().out
    assert main(["--directory", str(tmp_path), "disagree", "nobody"]) == 1
    assert "one of a, b, c" in capsys.readouterr().err
