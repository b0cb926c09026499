"""The whole workflow on a tiny phantom: what runs, what runs again, and what does not."""

from __future__ import annotations

import copy
import os
import re
import shutil
import time

import h5py
import numpy as np
import pytest

from beamseg.archive import archive
from beamseg.config import load_runs
from beamseg.provenance import read_json, write_json
from workflow import BASEDIR, TINY, Workflow, jobs_of

EVALUATION = {"evaluate", "report", "export", "record", "bundle", "methods"}


@pytest.fixture(scope="session")
def done(tmp_path_factory):
    """A finished run; tests that change it take a copy."""
    workflow = Workflow(tmp_path_factory.mktemp("done"))
    workflow.output = workflow.run()
    return workflow


@pytest.fixture
def finished(done, tmp_path):
    shutil.copytree(done.folder, tmp_path / "copy", symlinks=True)
    return Workflow(tmp_path / "copy")


def edited(**sections):
    config = copy.deepcopy(TINY)
    for name, entry in sections.items():
        config[name] = {**config.get(name, {}), **entry} if isinstance(entry, dict) else entry
    return config


def test_one_command_leaves_metrics_report_labels_and_bundle(done):
    results = done.folder / "results"
    metrics = read_json(results / "a" / "metrics.json")
    assert set(metrics["stages"]) == {"pseudo_labels", "stage2", "stage3", "mpp", "scm"}
    for entry in metrics["stages"].values():
        assert {"accuracy", "mean_iou", "mean_dice", "classes"} <= set(entry)
    assert metrics["product"]["stage"] in metrics["stages"]
    assert metrics["product"]["reason"]
    labels = read_json(results / "a" / "labels.json")
    assert labels["files"] == 32 or len(labels["files"]) == 32
    assert len(list((results / "a" / "labels").glob("*.tif"))) == 32
    assert read_json(results / "groups" / "a" / "bundle" / "bundle.json")["settings"]["train"]["train"]["steps"] == 12
    page = (results / "a" / "report.html").read_text()
    assert not re.findall(r"(?:src|href)=\"https?://", page)
    assert "scm" in done.output.lower()
    assert (results / "summary.csv").read_text().splitlines()[1].startswith("a,")


def test_results_hold_no_path_host_or_time(done):
    for path in (done.folder / "results").rglob("*.json"):
        if path.name in ("source.json", ".ingest.json"):
            continue
        text = path.read_text()
        assert str(done.folder) not in text, path
        assert os.uname().nodename not in re.findall(r"[\w.-]+", text), path


def test_the_cache_is_released_and_nothing_runs_again(finished):
    assert list((finished.folder / "results" / "a" / "normalize").glob("*.h5")) == []
    assert finished.rules() == []


def test_a_touched_scan_runs_ingest_alone(finished):
    time.sleep(1.1)
    os.utime(finished.folder / "results" / "a" / "phantom.h5")
    assert finished.rules() == ["ingest"]
    assert finished.rules() == []


def test_a_changed_scan_runs_everything_below(finished):
    time.sleep(1.1)
    with h5py.File(finished.folder / "results" / "a" / "phantom.h5", "r+") as file:
        file["exchange/data"][3, 40:50, 40:50] *= 1.5
    assert finished.rules("--until", "ingest") == ["ingest"]
    assert {"histogram", "train", "segment", "report"} <= set(finished.rules("-n"))


def test_an_edited_refinement_key_retrains_nothing(finished):
    finished.write(edited(refine_mpp={"support": 2}))
    rules = jobs_of(finished.run("-n"))
    assert not {"train", "self_correct", "segment", "normalize"} & set(rules)
    assert "refine_mpp" in rules


def test_edited_classes_run_evaluation_report_and_export_alone(finished):
    finished.write(edited(classes={"solid": {"clusters": [1, 2], "colour": "#009E73"}}))
    assert set(finished.rules()) == EVALUATION
    table = read_json(finished.folder / "results" / "a" / "labels.json")["classes"]
    assert [row["name"] for row in table] == ["cluster 0", "solid", "cluster 3"]


def test_an_upgrade_recomputes_nothing_unasked_and_says_what_is_stale(finished, tmp_path):
    class Upgraded(Workflow):
        snakefile = tmp_path / "upgraded" / "Snakefile"

    for name in ("Snakefile", "workflow", "scripts", "config", "envs"):
        copy_of = shutil.copytree if (BASEDIR / name).is_dir() else shutil.copy
        (tmp_path / "upgraded").mkdir(exist_ok=True)
        copy_of(BASEDIR / name, tmp_path / "upgraded" / name)
    with open(tmp_path / "upgraded" / "scripts" / "beamseg" / "segment.py", "a") as file:
        file.write("\n\nNEW = 1\n")
    upgraded = Upgraded(finished.folder)
    upgraded.write(edited(code="tracked"))
    assert "segment" in upgraded.rules("-n")
    upgraded.write(edited(export={"formats": ["mrc"]}))
    provenance = finished.folder / "results" / "a" / "provenance.json"
    then = read_json(provenance)
    output = upgraded.run()
    assert jobs_of(output) == ["export", "record"]
    made = ("code", "commit", "versions", "device")
    assert {key: read_json(provenance)[key] for key in made} == {key: then[key] for key in made}
    assert "kept although the code has changed since (code: frozen):" in output
    stale = "segment of a (changed: beamseg/segment.py)"
    assert output.count(stale) == 1
    for options in ((), ("-n",)):
        output = upgraded.run(*options)
        assert jobs_of(output) == []
        assert output.count(stale) == 1


def test_quantities_formats_and_the_archive_on_request(finished):
    measured = {"measure": ["volume", "surface", "components", "connectivity", "thickness"]}
    finished.write(edited(quantities=measured, export={"formats": ["nexus", "ply"]}))
    assert set(finished.rules()) == {"quantities", "export", "record", "report"}
    results = finished.folder / "results" / "a"
    labels, found = read_json(results / "labels.json"), read_json(results / "quantities.json")
    assert labels["exports"] == {"nexus": "labels.h5", "ply": "labels_ply"}
    assert not (results / "labels").exists()
    with h5py.File(results / "labels.h5") as file:
        counts = np.bincount(file["entry/labels/labels"][:].ravel(), minlength=256)
    assert [row["volume"]["voxels"] for row in found["classes"]] == counts[: len(found["classes"])].tolist()
    assert archive(finished.folder, BASEDIR, "a").stat().st_size > (results / "labels.h5").stat().st_size
    assert finished.rules() == []


def test_features_are_assigned_once_and_trained_on_and_measured(finished):
    features = {"scales_px": [1, 2], "background_px": 0, "sample_voxels": 5000}
    section = {"labeler": "features", "features": features}
    finished.write(edited(pseudo_label=section, parts=2, stage3="none", refine=[]))
    rules = finished.rules()
    assert rules.count("assign") == 2
    assert {"pseudo_label", "train", "segment", "evaluate", "report", "export", "bundle"} <= set(rules)
    results = finished.folder / "results"
    fractions = read_json(results / "a" / "metrics.json")["stages"]["pseudo_labels"]["fractions"]
    counts = sum(
        np.bincount(slab_labels(path).ravel(), minlength=256) for path in (results / "a" / "assign").glob("*.h5")
    )
    np.testing.assert_allclose(list(fractions.values()), counts[:4] / counts[:4].sum())
    assert finished.rules() == []
    finished.write(edited(pseudo_label={"scope": "slice"}, label_source="clusters", parts=2, stage3="none", refine=[]))
    rules = jobs_of(finished.run("-n"))
    assert rules.count("assign") == 2
    assert {"pseudo_label", "train"} <= set(rules)


def slab_labels(path):
    with h5py.File(path) as file:
        return file["labels"][:]


def test_layout_of_jobs_and_the_truth_change_no_label(done, tmp_path):
    """A copy of the scan in three parts, slabs of eight slices, no cache, then without its truth: the same arrays."""
    for name in ("phantom.h5", "phantom_truth.h5"):
        shutil.copyfile(done.folder / "results" / "a" / name, tmp_path / name)
    config = edited(parts=3, slab_depth=8, normalize={"materialize": "never"})
    table = "sample\tpath\ttruth\na\t../phantom.h5\t../phantom_truth.h5\n"
    other = Workflow(tmp_path, config, table)
    other.run()
    assert other.digests()["export"] == done.digests()["export"]
    measured = [w.folder / "results" / "a" / "metrics.json" for w in (done, other)]
    assert read_json(measured[0]) == read_json(measured[1])
    assert len(list((tmp_path / "results" / "a" / "count").iterdir())) == 3
    manifests = sorted(p.name for p in (tmp_path / "results" / "a" / "refine_mpp").glob("*.json"))
    assert manifests == ["1-of-3.json", "2-of-3.json", "3-of-3.json"]

    arrays = other.digests()
    (tmp_path / "config" / "samples.tsv").write_text("sample\tpath\na\t../phantom.h5\n")
    assert set(other.rules()) <= EVALUATION | {"count"}
    assert not read_json(measured[1])["has_truth"]
    assert other.digests() == arrays


def test_runs_that_differ_in_stage_3_share_one_training(tmp_path):
    table = "sample\tpath\tself_correct.ema\na\tphantom\t0.99\nb\tphantom\t0.9\n"
    rules = jobs_of(Workflow(tmp_path, table=table).run("-n"))
    assert rules.count("train") == 1
    assert rules.count("simulate") == 1
    assert rules.count("self_correct") == 2
    assert rules.count("segment") == 3


def test_two_groups_of_three_train_twice(tmp_path):
    rows = "".join(f"s{i}\tphantom\t{'gh'[i // 3]}\t{i}\n" for i in range(6))
    rules = jobs_of(Workflow(tmp_path, table=f"sample\tpath\tgroup\tphantom.seed\n{rows}").run("-n"))
    assert [rules.count(name) for name in ("plan", "pseudo_label", "train", "self_correct")] == [2, 2, 2, 2]
    assert rules.count("segment") == 12


def test_one_failure_stops_nobody_else(finished):
    (finished.folder / "broken.h5").write_bytes(b"no HDF5 at all")
    table = "sample\tpath\na\tphantom\nbroken\t../broken.h5\nmissing\t../nowhere.h5\n"
    (finished.folder / "config" / "samples.tsv").write_text(table)
    shutil.rmtree(finished.folder / "results" / "a" / "labels")
    (finished.folder / "results" / "a" / "labels.json").unlink()
    text = finished.run(fails=True)
    assert (finished.folder / "results" / "a" / "labels.json").exists()
    rows = (finished.folder / "results" / "summary.csv").read_text().splitlines()
    states = {row.split(",")[0]: row.split(",")[1:3] for row in rows[1:]}
    assert states["a"][1] == "done"
    assert states["broken"] == ["ingest", "failed"]
    assert states["missing"] == ["ingest", "failed"]
    assert "1 of 3 samples done" in text


@pytest.mark.parametrize(
    ("config", "words"),
    [({"train": {"bacth": 2}}, "did you mean 'batch'?"), ({"device": "tpu"}, "'tpu' is not one of")],
)
def test_a_wrong_configuration_stops_before_anything_runs(tmp_path, config, words):
    workflow = Workflow(tmp_path, edited(**config))
    assert words in workflow.run("-n", fails=True)


def test_the_cache_is_declared_in_megabytes_once_the_scan_is_known(tmp_path):
    for name, depth in (("a", 32), ("b", 64)):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["v"] = np.random.default_rng(0).integers(0, 65536, (depth, 200, 200)).astype(np.uint16)
    config = {"normalize": {"materialize": "always"}, "mem_budget_mb": 256, "samples": "config/samples.tsv"}
    workflow = Workflow(tmp_path, config, "sample\tpath\na\t../a.h5\nb\t../b.h5\n")
    assert "normalize" in jobs_of(workflow.run("-n"))
    workflow.run("--until", "ingest")
    output = workflow.run("-n")
    found = re.findall(r"rule normalize:.*?disk_mb=(\d+)", output, flags=re.DOTALL)
    assert sorted(map(int, found)) == [3, 5]  # 2.02 bytes for each of 32 or 64 × 200 × 200 voxels
    # Together they would take 8 MB, and 6 are allowed: the second is begun after the first, and reads its input.
    output = workflow.run(*(f"results/{n}/normalize/1-of-1.json" for n in "ab"), "--resources", "disk_mb=6")
    assert output.count("rule normalize:") == 2
    between = output.split("rule normalize:")[1]
    assert "(Rule: normalize)" in between
    caches = [list((workflow.folder / f"results/{n}/normalize").glob("slab_*.h5")) for n in "ab"]
    assert sorted(map(bool, caches)) == [False, True]
    assert "normalize" not in jobs_of(workflow.run("-n", "--resources", "disk_mb=400"))


def upgraded_copy(folder, edit):
    """The checkout in a folder of its own, with an edit of its schemas' texts."""
    for name in ("Snakefile", "workflow", "scripts", "config", "envs"):
        copy_of = shutil.copytree if (BASEDIR / name).is_dir() else shutil.copy
        folder.mkdir(exist_ok=True)
        copy_of(BASEDIR / name, folder / name)
    for path in (folder / "workflow" / "schemas").glob("*.yaml"):
        path.write_text(edit(path.read_text()))
    return folder / "Snakefile"


def test_new_keys_at_their_default_recompute_nothing_but_where_a_sample_s_code_is_tracked(finished, tmp_path):
    def edit(text):
        return text.replace("\nproperties:\n", "\nproperties:\n  brand_new: {type: integer, default: 7}\n", 1)

    class Upgraded(Workflow):
        snakefile = upgraded_copy(tmp_path / "upgraded", edit)

    with open(tmp_path / "upgraded" / "scripts" / "beamseg" / "segment.py", "a") as file:
        file.write("\n\nNEW = 1\n")
    upgraded = Upgraded(finished.folder)
    (finished.folder / "config" / "samples").mkdir()
    own = finished.folder / "config" / "samples" / "a.yaml"
    own.write_text("code: tracked\n")
    assert {"simulate", "segment", "record"} <= set(upgraded.rules("-n"))
    own.unlink()
    assert upgraded.rules("-n") == []
    (finished.folder / "results" / "a" / "report.html").unlink()
    assert set(upgraded.rules()) <= {"report", "release"}
    assert upgraded.rules("-n") == []
    upgraded.write(edited(report={"brand_new": 8}))
    assert "report" in upgraded.rules("-n")
    upgraded.write(edited(phantom={"brand_new": 8}))
    assert "simulate" in upgraded.rules("-n")


def test_changed_defaults_and_presets_move_no_finished_group_but_a_new_one(finished, tmp_path):
    def edit(text):
        return text.replace("default: 0.5\n", "default: 0.25\n")

    class Upgraded(Workflow):
        snakefile = upgraded_copy(tmp_path / "upgraded", edit)

    preset = tmp_path / "upgraded" / "config" / "presets" / "srct.yaml"
    preset.write_text(f"{preset.read_text()}\nslab_depth: 24\nseed: 9\n")
    upgraded = Upgraded(finished.folder)
    output = upgraded.run("-n")
    assert jobs_of(output) == []
    assert "segment.overlap: 0.5, now 0.25 (a)" in output
    assert "seed: 0, now 9 (a)" in output
    table = finished.folder / "config" / "samples.tsv"
    table.write_text("sample\tpath\na\tphantom\nb\tphantom\n")
    runs, _ = load_runs(finished.folder, tmp_path / "upgraded")
    assert [runs[name].get("segment.overlap") for name in "ab"] == [0.5, 0.25]
    assert [runs[name].get("seed") for name in "ab"] == [0, 9]
    table.write_text("sample\tpath\na\tphantom\n")
    # A bundle that is written again names the packages that trained its weights.
    log, bundle = finished.folder / "logs/groups/a/train.log.json", "results/groups/a/bundle/bundle.json"
    entry = read_json(log)
    assert entry["device"] == read_json(finished.folder / "results/a/provenance.json")["device"]["train"]
    write_json(log, entry | {"versions": entry["versions"] | {"torch": "2.0"}})
    (finished.folder / bundle).unlink()
    upgraded.run(bundle)
    assert "2.0" in read_json(finished.folder / bundle)["versions"]["torch"].split(", ")
    upgraded.write(edited(segment={"overlap": 0.25}))
    assert "segment" in upgraded.rules("-n")
    upgraded.write(edited(code="tracked"))
    assert {"simulate", "train", "segment"} <= set(upgraded.rules("-n"))


def test_one_sample_of_the_table_is_made_where_it_alone_is_asked_for(tmp_path):
    workflow = Workflow(tmp_path, table="sample\tpath\tphantom.seed\na\tphantom\t0\nb\tphantom\t1\n")
    output = workflow.run("-n", "--config", "only=[b]")
    assert "wildcards: sample=b" in output
    assert set(re.findall(r"wildcards: group=(\w+)", output)) == {"b"}
    assert "samples of" in workflow.run("-n", "--config", "only=[c]", fails=True)


def test_metrics_that_were_removed_are_made_again(finished):
    (finished.folder / "results" / "a" / "metrics.json").unlink()
    assert finished.rules("-n")[0] == "evaluate"


def test_gpus_asked_twice_are_refused_before_anything_runs(tmp_path):
    workflow = Workflow(tmp_path)
    twice = ("-n", "--set-resources", "train:gres='gpu:a100:1'")
    assert "rule train\n" in (said := workflow.run(*twice, fails=True))
    assert "set `gpu: 0` beside `gres`" in said
    assert "train" in workflow.rules(*twice, "train:gpu=0", "segment:gres='scratch:1'")


def test_processes_of_a_training_are_as_many_as_gpus_says_however_a_cluster_is_asked(finished):
    finished.write(edited(gpus=2))
    assert finished.rules("-n") == ["record"]
    output = finished.run("-n", "--forcerun", "train", "self_correct", "--set-resources", "train:gpu=0")
    assert re.search(r"rule train:.*?resources: [^\n]*gpu=0[^\n]*processes=2", output, re.DOTALL)
    assert len(re.findall("processes=2", output)) == 2
