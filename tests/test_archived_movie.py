"""A movie, its masks and its truth that go away, are touched or replaced after the run has finished."""

from __future__ import annotations

import os
import time

import imagecodecs
import pytest

from beamseg.provenance import read_json
from beamseg.simulate_frames import simulate_frames
from workflow import Workflow

CONFIG = {
    "preset": "nanowires_d",
    "samples": "config/samples.tsv",
    "device": "cpu",
    "frames": {"size": 64, "block": 2, "test": 0.3, "validation": 0.2},
    "train_frames": {"width": 16, "epochs": 1, "batch": 2},
}
FOLDERS = ("frames", "labels", "truth")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Workflow:
    folder = tmp_path_factory.mktemp("movie")
    simulate_frames(folder, {"frames": 8, "size": 64, "labelled": 6, "noise": 0.05, "defects": False}, 0)
    table = f"sample\tpath\tlabels\ttruth\nm\t{folder}/frames\t{folder}/labels\t{folder}/truth\n"
    workflow = Workflow(folder / "work", CONFIG, table)
    workflow.run()
    return workflow


@pytest.mark.slow
def test_what_is_finished_stays_when_movie_and_masks_are_archived_away(finished: Workflow) -> None:
    folder = finished.folder.parent
    assert finished.rules("-n") == []
    time.sleep(1.1)
    for file in (folder / "labels").iterdir():
        os.utime(file)
    assert finished.rules("-n") == []
    before = read_json(finished.folder / "results/m/provenance.json")
    for name in FOLDERS:
        (folder / name).rename(folder / f"{name}_away")
    try:
        assert finished.rules("-n") == []
        (finished.folder / "results/m/report.html").unlink()
        (finished.folder / "results/m/provenance.json").unlink()
        assert set(finished.rules()) == {"report_frames", "record"}
        assert "archived away" in (finished.folder / "results/m/report.html").read_text()
        assert read_json(finished.folder / "results/m/provenance.json") == before
    finally:
        for name in FOLDERS:
            (folder / f"{name}_away").rename(folder / name)
    assert finished.rules("-n") == []
    mask = next((folder / "labels").iterdir())
    mask.write_bytes(imagecodecs.png_encode(255 - imagecodecs.png_decode(mask.read_bytes())))
    assert {"train_frames", "segment_frames", "evaluate_frames"} <= set(finished.rules("-n"))
    assert "frames" not in finished.rules("-n")
