"""Studies: a grid as rows, metrics as a table, and stages shared by cells that do not differ in them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from beamseg.config import load_runs
from beamseg.errors import InputError
from beamseg.provenance import read_json, write_json
from beamseg.slabs import run_slabs
from beamseg.studies import (
    SCALES,
    expand,
    known_studies,
    load_study,
    sample_name,
    table_rows,
    write_workdir,
)
from beamseg.study import command, run_study, side_by_side
from beamseg.study_table import gather, heading, mean_confidence, quantity, write_tables
from workflow import BASEDIR, environment, jobs_of

SHIPPED = known_studies(BASEDIR / "nowhere", BASEDIR)
ACCURACY, IOU, SECONDS = "stages.stage3.accuracy", "stages.stage3.mean_iou", "seconds.pseudo_label"
STUDY: dict[str, Any] = {
    "title": "Paces",
    "about": "What the pace\ndoes.",
    "base": {
        "path": "phantom",
        "preset": "quick",
        "refine": [],
        "phantom": {"size": [32, 96, 96], "angles": 40},
        "train": {"steps": 4, "batch": 2, "crop": 32},
    },
    "grid": {"self_correct.ema": [0.9, 0.99]},
    "cells": {"none": {"stage3": "none"}},
    "scales": {"smoke": {"seeds": [0]}, "cpu": {"seeds": [0, 1, 2], "cells": ["0.9", "none"], "set": {"seed": 5}}},
    "show": [ACCURACY, IOU, SECONDS],
    "paper": {"columns": [ACCURACY, SECONDS], "rows": {"0.9": [75.5, None]}},
}


def write(folder: Path, **changes: Any) -> Path:
    path = folder / "paces.yaml"
    path.write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
    return path


def study(folder: Path, scale: str = "cpu", **changes: Any) -> Any:
    return load_study(write(folder, **changes), scale, BASEDIR)


def test_a_grid_is_every_combination_named_by_its_values() -> None:
    cells = expand({"a.b": [1, 3], "c": ["x", "y"]}, {"own": {"d": 2}})
    assert cells == {
        "1-x": {"a.b": 1, "c": "x"},
        "1-y": {"a.b": 1, "c": "y"},
        "3-x": {"a.b": 3, "c": "x"},
        "3-y": {"a.b": 3, "c": "y"},
        "own": {"d": 2},
    }
    assert expand({}, {}) == {}


def test_rows_are_cells_times_seeds_and_read_back_as_they_were(tmp_path: Path) -> None:
    cells = {
        "text": {"stage3": "none"},
        "list": {"refine": ["mpp"], "phantom.drift": 0.5e-1},
        "null": {"voxel_size_um": None, "dataset": None},
    }
    made = study(tmp_path, "cpu", grid={}, cells=cells, scales={"cpu": {"seeds": [3, 4]}}, paper=NO_PAPER)
    names = [row["sample"] for row in table_rows(made)]
    assert names == ["text-seed3", "list-seed3", "null-seed3", "text-seed4", "list-seed4", "null-seed4"]
    write_workdir(made, tmp_path / "w")
    assert yaml.safe_load((tmp_path / "w" / "config" / "config.yaml").read_text())["code"] == "tracked"
    runs, _ = load_runs(tmp_path / "w", BASEDIR)
    assert list(runs) == names
    for name, run in runs.items():
        assert run.get("seed") == run.get("phantom.seed") == int(name[-1])
        assert run.get("train.steps") == 4
        assert run.get("self_correct.lr") == 0.001  # of the preset
    assert runs["text-seed3"].get("stage3") == "none"
    assert runs["list-seed4"].get("refine") == ["mpp"]
    assert runs["list-seed4"].get("phantom.drift") == 0.05
    assert runs["text-seed4"].get("refine") == []
    assert runs["null-seed3"].get("voxel_size_um") is runs["null-seed3"].get("dataset") is None


NO_PAPER: dict[str, Any] = {"columns": [], "rows": {}}


def test_of_a_scan_the_phantom_has_no_seed_and_the_path_is_the_study_file_s(tmp_path: Path) -> None:
    made = study(tmp_path, base={**STUDY["base"], "path": "../raw/a.h5", "truth": "t.h5"})
    row = table_rows(made)[0]
    assert "phantom.seed" not in row
    assert row["path"] == str(tmp_path.parent / "raw/a.h5")
    assert made.base["truth"] == str(tmp_path / "t.h5")


def done(folder: Path, run: str, accuracy: float, iou: float | None, **more: Any) -> None:
    """What a finished run leaves, as far as it is gathered."""
    results = folder / "results" / run
    results.mkdir(parents=True)
    stages = {"stage3": {"accuracy": accuracy, "mean_iou": iou}}
    write_json(results / "metrics.json", {"stages": stages, "lost_classes": {}, "verdict": None} | more)
    write_json(results / "labels.json", {})
    (results / "report.html").write_text("")
    log = f"logs/groups/{run}/pseudo_label.log"
    record = {"stage": "pseudo_label", "sample": run, "state": "done", "seconds": 1.5, "log": log, "outputs": []}
    (folder / log).parent.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{log}.json", record)


def test_means_and_deviations_by_hand_and_the_cells_that_are_missing(tmp_path: Path) -> None:
    """0.60, 0.64, 0.68: mean 0.64, sample variance (16 + 0 + 16) / 2 = 16, deviation 4 %."""
    made, folder = study(tmp_path), tmp_path / "w"
    write_workdir(made, folder)
    for seed, (accuracy, iou) in enumerate([(0.60, 0.5), (0.64, None), (0.68, 0.6)]):
        done(folder, sample_name("0.9", seed), accuracy, iou)
    done(folder, "none-seed0", 0.7, 0.4, verdict={"use": "stage2"}, lost_classes={"stage3": ["cluster 1"]})
    failed = {"stage": "evaluate", "sample": "none-seed1", "state": "failed", "cause": "no disk", "remedy": "buy one"}
    (folder / "logs" / "none-seed1").mkdir()
    write_json(folder / "logs/none-seed1/evaluate.log.json", {**failed, "log": "logs/none-seed1/evaluate.log"})

    rows = gather(made, folder, BASEDIR)
    assert [row.cell for row in rows] == ["0.9", "0.99", "none"]
    first, left_out, broken = rows
    assert first.values[ACCURACY] == pytest.approx([60, 64, 68])
    assert (first.mean(ACCURACY), first.deviation(ACCURACY)) == pytest.approx((64, 4))
    assert (first.mean(IOU), first.deviation(IOU)) == pytest.approx((55, 50**0.5))
    assert first.values[SECONDS] == [1.5, 1.5, 1.5]
    assert first.state == "3 of 3 seeds"
    assert left_out.state == "not run at scale cpu"
    assert left_out.mean(ACCURACY) is None
    assert (broken.mean(ACCURACY), broken.deviation(ACCURACY)) == (70, None)
    assert broken.state == (
        "1 of 3 seeds; seed 0: the watch refused stage 3; seed 0: stage 3 lost cluster 1; "
        "seed 1 failed at evaluate: no disk; seed 2 not finished after pseudo_label"
    )

    text = write_tables(made, rows, folder).read_text()
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines[0] == "| cell | stage 3 accuracy | paper | stage 3 mean IoU | pseudo_label, s | state |"
    assert lines[2] == "| 0.9 | 64.00 ± 4.00 | 75.50 | 55.00 ± 7.07 | 1.50 ± 0.00 | 3 of 3 seeds |"
    assert lines[3] == "| 0.99 | – |  | – | – | not run at scale cpu |"
    assert lines[4].startswith("| none | 70.00 |  | 40.00 | 1.50 | 1 of 3 seeds; seed 0: the watch")
    assert "What the pace does." in text
    table = (folder / "table.csv").read_text().splitlines()
    assert table[0].startswith(f"cell,{ACCURACY} n,{ACCURACY} mean,{ACCURACY} sd,{ACCURACY} paper,{IOU} n,")
    assert table[1].startswith("0.9,3,64,4,75.5,2,55,7.07107,,3,1.5,0,")
    assert table[2].startswith("0.99,0,,,,0,")
    assert (folder / "table.png").stat().st_size > 5000
    svg = (folder / "table.svg").read_bytes()
    write_tables(made, rows, folder)
    assert (folder / "table.svg").read_bytes() == svg


def test_the_classes_that_clusters_end_in(tmp_path: Path) -> None:
    made, folder = study(tmp_path, "smoke", moves=True), tmp_path / "w"
    write_workdir(made, folder)
    metrics = {
        "stages": {"stage3": {"accuracy": 0.5, "mean_iou": 0.5, "moves": [[30, 10, 0], [60, 0, 0], [0, 0, 0]]}},
        "classes": [{"name": "cluster 0"}, {"name": "cluster 1"}],
        "lost_classes": {"stage3": ["cluster 1"]},
    }
    done(folder, "0.9-seed0", 0, 0, **metrics)
    text = write_tables(made, gather(made, folder, BASEDIR), folder).read_text()
    assert "| cluster 0 | 75.0 | 25.0 |\n| cluster 1 | 100.0 | 0.0 |\n" in text
    assert "Died out in stage 2: none; in stage 3: cluster 1 (" in text
    picture = np.asarray(Image.open(folder / "moves.png").convert("RGB"))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20
    moves = (folder / "moves.csv").read_text().splitlines()
    assert moves[:3] == ["run,cluster,class in stage 3,voxels", "0.9-seed0,cluster 0,cluster 0,30", moves[2]]
    assert moves[2] == "0.9-seed0,cluster 0,cluster 1,10"


def test_confidence_is_the_mean_over_labelled_voxels(tmp_path: Path) -> None:
    labels = np.zeros((16, 2, 2), np.uint8)
    labels[:, 0, 0] = 255
    confidence = np.full(labels.shape, 255, np.uint8)
    confidence[:, 0, 0] = 0  # not counted
    confidence[8:, 1] = 51

    def fill(z0: int, z1: int, writer: Any) -> None:
        writer.put("labels", z0, labels[z0:z1])
        writer.put("confidence", z0, confidence[z0:z1])

    run_slabs(
        tmp_path / "1-of-1.json",
        stage="test",
        identity="a",
        shape=labels.shape,
        depth=8,
        part="1-of-1",
        dtypes={"labels": "uint8", "confidence": "uint8"},
        fill=fill,
    )
    # Per pair of slices: 3 voxels sure, then 1 sure and 2 of 0.2.
    assert mean_confidence(tmp_path) == pytest.approx((3 + 1 + 2 * 0.2) / 6)


@pytest.mark.parametrize(
    ("what", "words", "of_stage"),
    [
        ("stages.stage2.mean_iou", "mean IoU", "stage 2 mean IoU"),
        ("stages.pseudo_labels.accuracy", "accuracy", "pseudo-labels accuracy"),
        ("stages.stage3.classes.dense grain.iou", "IoU of dense grain", "stage 3 IoU of dense grain"),
        ("best_map.stage3.accuracy", "accuracy, own best map", "stage 3 accuracy, own best map"),
        ("confidence.stage2", "confidence", "stage 2 confidence"),
        ("product.classes.wire.dice", "Dice of wire", "product Dice of wire"),
        ("seconds.pseudo_label", "pseudo_label, s", "pseudo_label, s"),
        ("angle.mse", "mean square error, °², of the angle", "mean square error, °², of the angle"),
        ("stages.frames.mean_dice", "mean Dice", "frames mean Dice"),
    ],
)
def test_columns_are_named_in_words(what: str, words: str, of_stage: str) -> None:
    assert (quantity(what), heading(what)) == (words, of_stage)


@pytest.mark.parametrize(
    ("changes", "found", "remedy"),
    [
        ({"sclaes": {}}, "unknown key 'sclaes'", "did you mean 'scales'?"),
        ({"base": {"path": "phantom", "tarin": {}}}, "unknown key 'tarin'", "did you mean 'train'?"),
        ({"grid": {"self_correct.eam": [1]}}, "unknown key 'self_correct.eam'", "did you mean 'ema'?"),
        ({"scales": {"cpu": {"seeds": [0], "set": {"sead": 1}}}}, "unknown key 'sead'", "did you mean 'seed'?"),
        ({"scales": {"cpu": {"seeds": [0], "cells": ["nine"]}}}, "'nine'", "did you mean 'none'?"),
        (
            {"paper": {"columns": ["stages.stage3.mean_iuo"], "rows": {}}},
            "'stages.stage3.mean_iuo'",
            f"did you mean {IOU!r}?",
        ),
        ({"paper": {"columns": [IOU], "rows": {"0.9": [1, 2]}}}, "2 numbers for 1 columns", "write null where"),
        ({"base": {"seed": 1}}, "no path", "add `path`"),
        (
            {"show": ["stages.stage3.mean_iuo"]},
            "'stages.stage3.mean_iuo'",
            "change the value. One of stages.STAGE.accuracy",
        ),
    ],
)
def test_what_a_study_must_not_hold(tmp_path: Path, changes: dict[str, Any], found: str, remedy: str) -> None:
    with pytest.raises(InputError) as error:
        study(tmp_path, **changes)
    assert error.value.found == found
    assert error.value.remedy.startswith(remedy)


def test_unknown_studies_and_scales_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"did you mean 'table1_models'\?"):
        run_study("table1_model", "smoke", tmp_path, BASEDIR)
    with pytest.raises(InputError, match="one of smoke, cpu"):
        run_study(str(write(tmp_path)), "full", tmp_path, BASEDIR)
    with pytest.raises(InputError, match="default, slurm, or a folder"):
        command(tmp_path, BASEDIR, "nowhere", None)


def test_a_cluster_s_profile_gets_no_number_of_cores(tmp_path: Path) -> None:
    assert "--cores" not in command(tmp_path, BASEDIR, "slurm", None)
    assert command(tmp_path, BASEDIR, "default", None)[-2:] == ["--cores", "all"]
    assert command(tmp_path, BASEDIR, "default", "3")[-2:] == ["--cores", "3"]


def test_networks_side_by_side_share_the_cores() -> None:
    _, gpu, _, *threads = side_by_side(2, "5")
    assert (gpu, side_by_side(4, "2")[3]) == ("gpu=2", "simulate=1")
    rules = [path.stem for path in (BASEDIR / "workflow" / "rules").glob("*.smk") if "threads:" in path.read_text()]
    assert sorted(threads) == sorted(f"{rule}=2" for rule in rules)


def test_a_locked_directory_is_left_alone(tmp_path: Path) -> None:
    locks = tmp_path / "studies" / "paces-smoke" / ".snakemake" / "locks"
    locks.mkdir(parents=True)
    (locks / "0.output.lock").touch()
    with pytest.raises(InputError, match=r"recover`; then the same command again"):
        run_study(str(write(tmp_path)), "smoke", tmp_path, BASEDIR)
    assert not (tmp_path / "studies" / "paces-smoke" / "config").exists()


def jobs(made: Any, folder: Path) -> list[str]:
    write_workdir(made, folder)
    line = [*command(folder, BASEDIR, "default", "2"), "--dry-run"]
    done = subprocess.run(line, capture_output=True, text=True, env=environment(), check=True)
    return jobs_of(done.stdout + done.stderr)


def test_cells_share_what_they_do_not_differ_in(tmp_path: Path) -> None:
    """0.9, 0.99 and none differ in stage 3 alone: one training; two seeds are two scans."""
    made = study(tmp_path, "cpu", scales={"cpu": {"seeds": [0, 1]}})
    rules = jobs(made, tmp_path / "w")
    wanted = {"simulate": 2, "ingest": 2, "pseudo_label": 2, "train": 2, "self_correct": 4, "segment": 6, "evaluate": 6}
    assert {rule: rules.count(rule) for rule in wanted} == wanted


def test_the_shipped_baseline_of_one_stage_trains_twice_and_corrects_twice(tmp_path: Path) -> None:
    rules = jobs(load_study(SHIPPED["fig3_single_stage"], "smoke", BASEDIR), tmp_path)
    wanted = {"simulate": 1, "train": 2, "self_correct": 2, "segment": 4, "refine_mpp": 0, "evaluate": 3}
    assert {rule: rules.count(rule) for rule in wanted} == wanted


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_studies_are_valid_at_every_scale(tmp_path: Path, name: str, scale: str) -> None:
    made = load_study(SHIPPED[name], scale, BASEDIR)
    write_workdir(made, tmp_path)
    runs, _ = load_runs(tmp_path, BASEDIR)
    assert len(runs) == len(made.chosen) * len(made.seeds)
    of_em = name.startswith("em_")  # the papers of the others have no refinement, and et_beyond has no paper
    assert of_em or name == "et_beyond" or all(run.get("refine") == [] for run in runs.values())
    own = "slices" if of_em else "pixels" if name.startswith("et_") else None
    presets = {run.get("preset") for run in runs.values() if run.get("kind") == "volume"}
    assert presets <= {own or ("srct" if scale == "full" else "quick")}
    of_frames = [run.get("preset") for run in runs.values() if run.get("kind") == "images"]
    assert set(of_frames) in (set(), {f"nanowires_{letter}" for letter in "abcdef"})


def test_evaluation_says_where_every_cluster_went(tmp_path: Path) -> None:
    from beamseg.evaluate import evaluate
    from beamseg.volumes import ArrayVolume

    first = np.repeat(np.array([0, 0, 0, 1], np.uint8), 4).reshape(1, 4, 4)
    last = np.repeat(np.array([0, 0, 1, 1], np.uint8), 4).reshape(1, 4, 4)
    settings = {"truth_map": {}, "truth_names": {}, "background": [0]}
    stages = {"pseudo_labels": ArrayVolume(first), "stage3": ArrayVolume(last)}
    evaluate(stages, n_clusters=2, settings=settings, out_json=tmp_path / "m.json", out_csv=tmp_path / "m.csv")
    assert read_json(tmp_path / "m.json")["stages"]["stage3"]["moves"] == [[8, 4, 0], [0, 4, 0], [0, 0, 0]]


def test_the_product_is_the_stage_that_a_run_hands_on(tmp_path: Path) -> None:
    made, folder = (
        study(tmp_path, "smoke", show=["product.mean_iou"], paper={"columns": [], "rows": {}}),
        tmp_path / "w",
    )
    write_workdir(made, folder)
    done(folder, "0.9-seed0", 0.5, 0.4, product={"stage": "stage3"})
    assert gather(made, folder, BASEDIR)[0].values == {"product.mean_iou": pytest.approx([40])}
    refused = {"stage3": {"mean_iou": 0.4}, "mpp": {"mean_iou": 0.1}}
    done(folder, "0.99-seed0", 0.5, 0.4, product={"stage": "stage3"}, stages=refused)
    assert gather(made, folder, BASEDIR)[1].state == "1 of 1 seeds; seed 0: MPP was refused, the product is stage 3"


def test_labels_of_a_study_are_found_beside_it(tmp_path: Path) -> None:
    base = {**STUDY["base"], "path": "a.h5", "labels": {"path": "../l.tif", "every": 5}}
    assert study(tmp_path, base=base).base["labels"] == {"path": str(tmp_path.parent / "l.tif"), "every": 5}
