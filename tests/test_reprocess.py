"""The same again: a bundle applied to another scan, a scan added to a group, a run repeated, an input archived away."""

from __future__ import annotations

import re
import shutil

import h5py
import numpy as np
import pandas as pd
import pytest

from beamseg.provenance import read_json
from beamseg.record import repeat
from beamseg.slabs import SlabVolume
from workflow import TINY, Workflow, jobs_of

pytestmark = pytest.mark.slow
TRAINED = {"pseudo_label", "train", "self_correct", "train_scm"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished group of one phantom."""
    table = "sample\tpath\tgroup\treference\tphantom.seed\na\tphantom\tg\ttrue\t0\n"
    workflow = Workflow(tmp_path_factory.mktemp("trained"), table=table)
    workflow.run()
    return workflow


def test_a_bundle_segments_another_scan_without_training(trained, tmp_path):
    bundle = trained.folder / "results" / "groups" / "g" / "bundle"
    row = f"b\tphantom\t{bundle}\t5\t[24, 88, 88]\n"
    config = {**TINY, "model": {"n_slices": 3}}
    workflow = Workflow(tmp_path, config, f"sample\tpath\tbundle\tphantom.seed\tphantom.size\n{row}")
    output = workflow.run()
    rules = set(jobs_of(output))
    assert {"apply", "apply_scm", "compare", "segment", "refine_scm", "evaluate", "report", "export"} <= rules
    assert not (TRAINED | {"plan", "bundle"}) & rules
    assert re.search(r"b: grey levels \d+\.\d\d% of the range from the bundle's", output)
    assert "of a bundle trained on a" in (tmp_path / "results" / "b" / "report.html").read_text()
    found = read_json(tmp_path / "results" / "b" / "provenance.json")
    assert found["weights"]["stage2"] == read_json(bundle / "bundle.json")["files"]["model.safetensors"]
    assert found["settings"]["model"]["n_slices"] == 7
    assert workflow.rules() == []


def test_a_bundle_is_adapted_to_a_scan_of_another_grey_scale(trained, tmp_path):
    """The trained scan again, in other units: by its own range it is what it was, and stage 3 goes on from there."""
    scan = tmp_path / "units.h5"
    shutil.copyfile(trained.folder / "results" / "a" / "phantom.h5", scan)
    with h5py.File(scan, "r+") as file:
        datasets: list[h5py.Dataset] = []
        file.visititems(lambda _, item: datasets.append(item) if getattr(item, "ndim", 0) == 3 else None)
        (voxels,) = datasets
        voxels[...] = 1000 * voxels[...] + 50
    bundle = trained.folder / "results" / "groups" / "g" / "bundle"
    header = "sample\tpath\tbundle\tapply.range\tapply.adapt\tapply.adapt_steps"
    workflow = Workflow(tmp_path / "run", table=f"{header}\nb\t{scan}\t{bundle}\town\ttrue\t6\n")
    rules = workflow.rules()
    assert not {"pseudo_label", "train", "train_scm"} & set(rules)
    assert {"plan", "self_correct", "bundle"} <= set(rules)
    results = workflow.folder / "results"
    before, after = (
        SlabVolume([run / "segment" / "stage2" / "1-of-1.json"], "labels").read(0, 32)
        for run in (trained.folder / "results" / "a", results / "b")
    )
    assert np.mean(before == after) > 0.99
    assert pd.read_csv(results / "groups" / "b" / "self_correct.csv")["step"].max() == 6
    # What the adapted run leaves segments a third scan as any bundle does.
    third = f"sample\tpath\tbundle\nc\t{scan}\t{results / 'groups' / 'b' / 'bundle'}\n"
    assert not {"plan", "self_correct"} & set(Workflow(tmp_path / "third", table=third).rules())


def test_scan_301_of_a_group_is_computed_alone(trained, tmp_path):
    shutil.copytree(trained.folder, tmp_path / "copy", symlinks=True)
    rows = "a\tphantom\tg\ttrue\t0\nb\tphantom\tg\tfalse\t5\n"
    workflow = Workflow(tmp_path / "copy", table=f"sample\tpath\tgroup\treference\tphantom.seed\n{rows}")
    output = workflow.run("-n")
    assert "segment" in jobs_of(output)
    assert not (TRAINED | {"plan", "bundle"}) & set(jobs_of(output))
    assert set(re.findall(r"wildcards: .*?sample=(\w+)", output)) == {"b"}


def test_a_run_repeated_from_its_provenance_alone_gives_the_same_arrays(trained, tmp_path):
    assert repeat(trained.folder / "results" / "a" / "provenance.json", [], tmp_path) == []
    again = Workflow.__new__(Workflow)
    again.folder = tmp_path
    again.run()
    assert again.digests() == trained.digests()
    results = [w.folder / "results" / "a" / "provenance.json" for w in (again, trained)]
    assert read_json(results[0])["weights"] == read_json(results[1])["weights"]


def test_report_and_export_run_after_the_scan_was_archived_away(trained, tmp_path):
    scan = tmp_path / "raw.h5"
    shutil.copytree(trained.folder, tmp_path / "copy", symlinks=True)
    shutil.copyfile(trained.folder / "results" / "a" / "phantom.h5", scan)
    table = f"sample\tpath\tgroup\treference\tphantom.seed\na\t{scan}\tg\ttrue\t0\n"
    workflow = Workflow(tmp_path / "copy", table=table)
    workflow.run()
    before = workflow.digests()["export"]
    scan.unlink()
    assert workflow.rules("-n") == []
    for name in ("report.html", "labels.json"):
        (workflow.folder / "results" / "a" / name).unlink()
    assert {"report", "export"} <= set(workflow.rules()) <= {"report", "export", "record", "release"}
    assert workflow.digests()["export"] == before
    assert "archived away" in (workflow.folder / "results" / "a" / "report.html").read_text()
