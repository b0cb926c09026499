"""Digests depend on content alone; files appear whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
import yaml

from beamseg.code import code_digest
from beamseg.config import load_runs
from beamseg.errors import InputError
from beamseg.provenance import (
    atomic_path,
    commit,
    digest,
    file_digest,
    identity,
    read_json,
    versions,
    write_json,
)
from beamseg.record import described_scans, effective, record, repeat, scan_content
from beamseg.runs import Runs
from bundle_case import write_bundle
from workflow import BASEDIR


def test_digest_ignores_order_of_keys_and_numpy_types():
    assert digest({"a": 1, "b": [2.5, "x"]}) == digest({"b": [*np.array([2.5]).tolist(), "x"], "a": np.int64(1)})
    assert digest({"a": 1}) != digest({"a": 2})


def test_identity_follows_code_settings_and_file_content_not_names_or_times(tmp_path, monkeypatch):
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    write_json(one, {"x": 1})
    write_json(two, {"x": 1})
    first = identity("segment", {"tile": 128}, {"scan": one})
    assert identity("segment", {"tile": 128}, {"scan": two}) == first
    assert identity("segment", {"tile": 64}, {"scan": one}) != first
    assert identity("beamseg/disagree", {"tile": 128}, {"scan": one}) != first
    with monkeypatch.context() as patch:  # slabs and training states of another version are not gone on with
        patch.setattr("beamseg.provenance.code_digest", lambda stage: f"another {stage}")
        assert identity("segment", {"tile": 128}, {"scan": one}) != first
    write_json(two, {"x": 2})
    assert identity("segment", {"tile": 128}, {"scan": two}) != first


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "metrics.json"
    write_json(path, {"x": 1})

    def interrupted():
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert read_json(path) == {"x": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.json"]


def test_nan_is_refused_in_results(tmp_path):
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "metrics.json", {"iou": float("nan")})


def write_and_fail(path, number):
    with atomic_path(path) as temporary:
        temporary.write_text("half")
        raise OSError(number, os.strerror(number))


def test_a_full_disk_is_said_in_words_and_leaves_nothing(tmp_path):
    with pytest.raises(InputError, match="No space left on device"):
        write_and_fail(tmp_path / "a.json", errno.ENOSPC)
    with pytest.raises(FileNotFoundError):
        write_and_fail(tmp_path / "a.json", errno.ENOENT)
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_renames_is_said_in_words(tmp_path, monkeypatch):
    def refuse(old, new):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(InputError, match="a file system that does not rename files"):
        write_json(tmp_path / "a.json", {})
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_that_cannot_synchronize_a_folder_is_no_error(tmp_path, monkeypatch):
    fsync = os.fsync

    def only_files(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", only_files)
    write_json(tmp_path / "a.json", {"x": 1})
    assert read_json(tmp_path / "a.json") == {"x": 1}


def test_a_folder_s_digest_is_that_of_its_files(tmp_path):
    (tmp_path / "b").write_text("2")
    (tmp_path / "a").write_text("1")
    first = file_digest(tmp_path)
    assert file_digest(tmp_path) == first
    (tmp_path / "b").write_text("3")
    changed = file_digest(tmp_path)
    (tmp_path / "b").rename(tmp_path / "c")
    assert len({first, changed, file_digest(tmp_path)}) == 3


def test_a_folder_s_digest_is_also_of_the_folders_in_it(tmp_path):
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "chunk").write_text("1")
    first = file_digest(tmp_path)
    (tmp_path / "0" / "chunk").write_text("2")
    assert file_digest(tmp_path) != first


def volume(path: Path, seed: int, shape=(4, 8, 9), top=1000) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(
        path, np.random.default_rng(seed).integers(0, top, shape, dtype=np.uint16), photometric="minisblack"
    )
    return path


def load(folder: Path, table: list[list[object]], config=None, **samples) -> Runs:
    (folder / "config" / "samples").mkdir(parents=True, exist_ok=True)
    (folder / "config" / "config.yaml").write_text(yaml.safe_dump(config or {}))
    (folder / "config" / "samples.tsv").write_text("".join("\t".join(map(str, row)) + "\n" for row in table))
    for name, layer in samples.items():
        (folder / "config" / "samples" / f"{name}.yaml").write_text(yaml.safe_dump(layer))
    return loaded(folder)


def loaded(folder: Path) -> Runs:
    return Runs(load_runs(folder, BASEDIR)[0])


def provenance(runs: Runs, name: str, folder: Path, product=None, **given) -> Path:
    """What `record` writes of a run, of which nothing but the inputs is there."""
    run, histograms = runs.runs[name], {}
    scans = described_scans(runs.runs, name, runs.references(run.group))
    for scan in scans if run.get("kind") == "volume" else []:
        other = runs.runs[scan["name"]]
        histograms[scan["name"]] = folder / f"{scan['name']}.npz"
        np.savez(histograms[scan["name"]], content=np.str_(scan_content(other.file("path"), other.settings)))
    write_json(folder / "labels.json", product or {"stage": "stage2", "digest": "0"})
    out, entries = folder / "provenance.json", {"weights": {}, "code": {}, "device": {}}
    entries |= {"settings": effective(run), "scans": scans, "histograms": histograms, **given}
    record(out, name=name, group=run.group, labels=folder / "labels.json", **entries)
    assert str(folder) not in out.read_text()
    return out


@pytest.fixture
def alike(tmp_path):
    """A group of two scans and the labels of one, all of one base name, and the provenance of the first."""
    files = [volume(tmp_path / name / "rock.tif", seed) for seed, name in enumerate(("p", "q"))]
    files.append(volume(tmp_path / "labels" / "rock.tif", 2, top=3))
    table = [["sample", "path", "group", "labels"], ["a", files[0], "g", files[2]], ["b", files[1], "g"]]
    runs = load(tmp_path / "then", table, {"label_source": "slices"})
    return files, provenance(runs, "a", tmp_path)


def test_inputs_of_one_base_name_are_told_apart_by_their_content(alike, tmp_path):
    (scan, other, labels), of = alike
    for number, order in enumerate([(labels, other, scan), (scan, labels, other), (other, scan, labels)]):
        assert repeat(of, list(order), tmp_path / str(number)) == []
        runs = loaded(tmp_path / str(number)).runs
        assert [runs[name].file("path") for name in "ab"] == [scan, other]
        assert (runs["a"].file("labels.path"), runs["b"].file("labels.path")) == (labels, None)


@pytest.mark.parametrize("which", [0, 2])
def test_an_input_of_another_content_is_refused(alike, tmp_path, which):
    files, of = alike
    volume(files[which], 9, top=3)
    with pytest.raises(InputError, match=rf"for 'rock.tif' .*{files[0]}.* \([0-9a-f]{{16}}\)"):
        repeat(of, files, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_a_record_opens_no_links(tmp_path):
    """Whoever sends a record and a scan may not have said yes for whoever repeats it."""
    scan = tmp_path / "a.h5"
    with h5py.File(tmp_path / "voxels.h5", "w") as file:
        file["v"] = np.random.default_rng(0).integers(0, 99, (12, 9, 7)).astype(np.uint8)
    with h5py.File(scan, "w") as file:
        file["exchange/data"] = h5py.ExternalLink("voxels.h5", "v")
    runs = load(tmp_path / "then", [["sample", "path"], ["a", scan]], {"ingest": {"external_links": "any"}})
    of = provenance(runs, "a", tmp_path)
    forged = read_json(of)
    forged["scans"][0]["settings"] = {"ingest.external_links": "any"}
    write_json(of, forged)
    with pytest.raises(InputError, match=r"(?s)is a link to v in voxels\.h5.*give --external-links beside"):
        repeat(of, [scan], tmp_path / "again")
    assert not (tmp_path / "again").exists()
    repeat(of, [scan], tmp_path / "again", external_links="beside")
    assert loaded(tmp_path / "again").runs["a"].get("ingest.external_links") == "beside"


NO_NAMES = ("../../../outside", "a\tb", "a\n", "")


@pytest.mark.parametrize(
    ("key", "name"), [*(("group", n) for n in NO_NAMES), *(("sample", n) for n in (*NO_NAMES, "Groups"))]
)
def test_a_record_with_a_name_that_is_none_is_refused_before_anything_is_written(alike, tmp_path, key, name):
    files, of = alike
    forged = read_json(of)
    if key == "group":
        forged["group"] = name
    else:
        forged["scans"][1]["name"] = name
    write_json(of, forged)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match=f"(?s){key} .*rename it"):
        repeat(of, files, tmp_path / "one" / "two" / "again")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_record_that_is_a_link_or_no_json_is_refused(alike, tmp_path):
    files, of = alike
    (tmp_path / "link").symlink_to(of)
    (tmp_path / "text").write_text('{"group": NaN}')
    for name, words in (("link", "a symbolic link"), ("text", "no JSON")):
        with pytest.raises(InputError, match=f"(?s){words}.*provenance.json that beamseg wrote"):
            repeat(tmp_path / name, files, tmp_path / "again")


def test_a_record_without_the_labels_content_takes_what_is_no_scan_or_asks(alike, tmp_path):
    files, of = alike
    old = read_json(of)
    for scan in old["scans"]:
        del scan["labels_content"]
    write_json(of, old)
    assert repeat(of, files, tmp_path / "again") == [f"{files[2]} is taken by its name, its content was not recorded"]
    assert loaded(tmp_path / "again").runs["a"].file("labels.path") == files[2]
    more = volume(tmp_path / "more" / "rock.tif", 3)
    with pytest.raises(InputError, match=f"{files[2]}, {more}"):
        repeat(of, [*files, more], tmp_path / "other")


def test_a_repeat_says_which_stages_have_other_code(alike, tmp_path):
    files, of = alike
    code = {"segment_stage2": code_digest("segment"), "train": "0" * 16, "no_stage": "1" * 16}
    write_json(of, read_json(of) | {"code": code})
    assert repeat(of, files, tmp_path / "again") == [
        f"code of no_stage None, then {'1' * 16}",
        f"code of train {code_digest('train')}, then {'0' * 16}",
    ]


@pytest.mark.parametrize("apply", [{}, {"adapt": True, "adapt_steps": 7}, {"range": "own"}])
@pytest.mark.parametrize("given", ["of the sample", "of the row"])
def test_a_repeated_run_of_a_bundle_keeps_what_its_row_said(tmp_path, apply, given):
    bundle, scan = write_bundle(tmp_path / "made"), volume(tmp_path / "scan.tif", 0)
    own = {"refine": ["mpp"], "normalize": {"shading": "drift"}, "apply": apply, "pseudo_label": {"n_clusters": 5}}
    header, row = ["sample", "path", "bundle"], ["a", scan, bundle]
    if given == "of the row":
        columns = {"refine": "[mpp]", "normalize.shading": "drift", "pseudo_label.n_clusters": 5}
        header, row = [*header, *columns], [*row, *columns.values()]
        own = {"apply": apply}
    runs = load(tmp_path / "then", [header, row], {"seed": 3}, a=own)
    then = effective(runs.runs["a"])
    assert (then["refine"], then["normalize"]["shading"]) == (["mpp"], "drift")
    of = provenance(runs, "a", tmp_path, bundle=bundle / "bundle.json")
    assert repeat(of, [scan, bundle], tmp_path / "again") == []
    assert effective(loaded(tmp_path / "again").runs["a"]) == then


def test_a_run_on_frames_is_recorded_and_repeated(tmp_path):
    frames, labels = tmp_path / "movie" / "frames", tmp_path / "masks" / "frames"
    for folder, seed in ((frames, 0), (labels, 5)):
        for number in range(3):
            volume(folder / f"{number}.tif", seed + number, (8, 9), 3)
    table = [["sample", "path", "labels"], ["m", frames, labels]]
    runs = load(tmp_path / "then", table, {"preset": "nanowires_d"})
    masks = {"frames": {"0": {"file": "masks/0.png", "digest": "1"}}}
    of = provenance(runs, "m", tmp_path, masks)
    assert read_json(of)["product"] == {"stage": "segment_frames", "digest": digest({"0": "1"})}
    assert repeat(of, [labels, frames], tmp_path / "again") == []
    again = loaded(tmp_path / "again").runs["m"]
    assert (again.file("path"), again.file("labels.path")) == (frames, labels)
    assert effective(again) == effective(runs.runs["m"])
    volume(frames / "1.tif", 8, (8, 9), 3)
    with pytest.raises(InputError, match="the content"):
        repeat(of, [labels, frames], tmp_path / "other")


@pytest.mark.parametrize("text", ["{}", "[]", "3", '{"group": "g", "scans": [], "settings": {}}'])
def test_a_record_that_lacks_everything_is_refused_in_words(tmp_path, text):
    (tmp_path / "provenance.json").write_text(text)
    with pytest.raises(InputError, match=r"(?s)provenance\.json.*provenance.json that beamseg wrote"):
        repeat(tmp_path / "provenance.json", [], tmp_path / "again")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize(
    ("scan", "words"),
    [
        ({}, r"scans\[1\]: no name"),
        ({"name": "b", "file": 3}, r"scans\[1\]: file: '3'"),
        ({"name": "b", "file": "x", "reference": True, "settings": []}, r"scans\[1\]: settings"),
        ("b", r"scans\[1\]: b"),
    ],
)
def test_a_record_with_a_scan_of_another_form_is_refused_in_words(alike, tmp_path, scan, words):
    files, of = alike
    forged = read_json(of)
    forged["scans"][1] = scan
    write_json(of, forged)
    with pytest.raises(InputError, match=words):
        repeat(of, files, tmp_path / "again")


FORGED = {"samples": "../../../evil.tsv", "path": "/etc/passwd", "truth": "/etc/passwd", "preset": "x", "group": "z"}


def test_recorded_settings_name_no_file_and_no_table(alike, tmp_path):
    files, of = alike
    forged = read_json(of)
    forged["settings"] |= FORGED
    forged["settings"]["labels"] |= {"path": "/etc/passwd"}
    forged["scans"][1]["settings"] |= {**FORGED, "labels.path": "/etc/passwd"}
    write_json(of, forged)
    assert repeat(of, files, tmp_path / "again") == []
    written = "".join(path.read_text() for path in (tmp_path / "again").rglob("*.yaml"))
    assert "passwd" not in written
    assert "evil" not in written
    runs = loaded(tmp_path / "again").runs
    assert [(run.group, run.file("path"), run.file("truth")) for run in runs.values()] == [
        ("g", files[0], None),
        ("g", files[1], None),
    ]


@pytest.mark.parametrize(
    ("where", "settings", "words"),
    [
        ("record", {"sede": 3}, "did you mean 'seed'"),
        ("record", {"ingest": 3}, "ingest"),
        ("record", {"labels": None}, "labels"),
        ("scan", {"train.steps": "many"}, "settings of b.*train.steps"),
        ("scan", {"ingest": 3}, "settings of b.*ingest"),
        ("record", {"kind": "images", "label_source": "slices"}, "provenance.json"),
    ],
)
def test_recorded_settings_that_are_none_are_refused_before_snakemake_is_started(
    alike, tmp_path, where, settings, words
):
    files, of = alike
    forged = read_json(of)
    (forged["scans"][1] if where == "scan" else forged)["settings"] |= settings
    write_json(of, forged)
    with pytest.raises(InputError, match=f"(?s){words}"):
        repeat(of, files, tmp_path / "again")
    assert not (tmp_path / "again" / "config").exists()


def test_the_versions_name_what_reads_and_the_commit_is_that_of_a_checkout_of_its_own(tmp_path):
    assert {"h5py", "hdf5plugin", "imagecodecs", "tifffile", "zarr"} <= versions().keys()
    assert commit(tmp_path) is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "file").write_text("1")
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], check=True)
    head = subprocess.check_output([*git, "rev-parse", "HEAD"], text=True).strip()
    assert commit(tmp_path) == head
    assert commit(tmp_path / "inner") is None  # a checkout of something else
    (tmp_path / "inner" / "file").write_text("2")
    assert commit(tmp_path) == f"{head}, changed"


def test_no_git_is_no_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit() is None
