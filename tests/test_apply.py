"""apply: what a bundle gives to a run, which stages it replaces, and what a hostile one is refused for."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import load_file, save_file

from beamseg import scm
from beamseg.apply import MAX_SIZE, apply
from beamseg.bundle_files import LEVELS, read_index
from beamseg.config import load_runs
from beamseg.errors import InputError
from beamseg.inputs import stage_volumes, user_labels
from beamseg.models import load_weights
from beamseg.plain_files import MAX_HEADER, MAX_JSON
from beamseg.provenance import read_json, write_json
from beamseg.runs import Runs, is_imported
from beamseg.summary import stages_of
from beamseg.volumes import ArrayVolume
from bundle_case import N_CLASSES, TABLE, describe, join, rewrite_header, sign, split, write_bundle

BASEDIR = Path(__file__).resolve().parents[1]
GONE = object()
HUGE = 10**400
SCAN = {"name": "old", "shape": [8, 9, 9], "dtype": "uint16", "voxel_size_um": [1.0, 1.0, 1.0]}
CLUSTER = {"centroid": 1.0, "intervals": [[1, 9]], "fraction": 0.3}
CLUSTERS = [{"id": i, **CLUSTER} for i in range(N_CLASSES)]
SETTINGS = {"use": ["grey", "smooth"], "scales_px": [1, 2], "background_px": 50, "dimensions": 3}
FEATURES = {"settings": SETTINGS, "mean": [0.0] * 3, "std": [1.0] * 3, "centres": [[0.1] * 3] * N_CLASSES}
OUT = {
    "index": "bundle.json",
    "arrays": "arrays.safetensors",
    "plan": "plan.json",
    "classes": "classes.json",
    "table": "table.npy",
    "weights": "model.safetensors",
    "curves": "train.csv",
    "scm": "scm.safetensors",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("made"))


@pytest.fixture
def folder(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "bundle"))


def applied(folder):
    out = {name: folder.parent / "out" / file for name, file in OUT.items()}
    apply(folder, out)
    return out


def refused(folder):
    with pytest.raises(InputError) as error:
        applied(folder)
    assert not (folder.parent / "out").exists()
    return error.value.found


def changed(folder, name, change):
    """Put entries into a JSON file of the bundle, or take them out with GONE, and sign it."""
    held = change
    if isinstance(change, dict):
        held = {key: value for key, value in (read_json(folder / name) | change).items() if value is not GONE}
    write_json(folder / name, held)
    if name != "bundle.json":
        sign(folder, name)


def load(workdir, rows, header="sample\tpath\tgroup\tbundle", config="{}\n", **overrides):
    (workdir / "config").mkdir(exist_ok=True)
    (workdir / "config" / "config.yaml").write_text(config)
    (workdir / "config" / "samples.tsv").write_text("\n".join([header, *rows, ""]))
    return Runs(load_runs(workdir, BASEDIR, overrides)[0])


def test_what_is_written_is_what_was_bundled(folder):
    out = applied(folder)
    np.testing.assert_array_equal(np.load(out["table"]), TABLE)
    assert read_json(out["plan"])["range"] == [0, 100]
    assert out["curves"].read_text() == "step,loss\n1,0.5\n2,0.25\n"
    assert load_weights(out["weights"])[1]["n_classes"] == N_CLASSES
    assert scm.load(out["scm"], "cpu").n_slices == 5
    assert "/home/me" not in (folder / "bundle.json").read_text()


@pytest.mark.parametrize("widths", [[8, 16], [8, 16, 32, 64]])
def test_a_bundle_of_a_network_of_chosen_widths_is_applied(tmp_path, widths):
    out = applied(write_bundle(tmp_path, options={"widths": widths}))
    assert load_weights(out["weights"])[1]["options"]["widths"] == widths


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_weights_of_half_precision_are_taken(folder, kind):
    path = folder / "model.safetensors"
    meta = split(path)[0]["__metadata__"]
    save_file({name: value.to(kind) for name, value in load_file(path).items()}, path, meta)
    sign(folder, path.name)
    assert load_weights(applied(folder)["weights"])[1]["n_classes"] == N_CLASSES


def test_a_bundle_of_the_labeler_features_and_of_scans_without_a_voxel_size_is_applied(folder):
    changed(folder, "classes.json", {"labeler": "features", "features": FEATURES})
    sizes = (None, [1e-7, 1, 1000])
    changed(folder, "bundle.json", {"scans": [SCAN | {"voxel_size_um": size} for size in sizes]})
    assert read_json(applied(folder)["classes"])["features"] == FEATURES


def test_settings_of_a_bundle_lie_between_the_configuration_and_the_row(folder, tmp_path):
    config = "normalize: {shading: drift}\nmodel: {n_slices: 9}\nseed: 3\n"
    run = load(tmp_path, [f"b\tx.h5\t\t{folder}"], config=config).runs["b"]
    assert run.get("model.n_slices") == 3
    assert run.get("normalize.shading") == "none"
    assert run.get("normalize.dtype") == "uint8"
    assert run.get("classes") == {"solid": {"clusters": [1, 2]}}
    assert run.get("seed") == 3
    assert (run.get("stage3"), run.get("label_source")) == ("none", "clusters")
    assert run.origins["model.n_slices"] == f"bundle {folder}"
    header = "sample\tpath\tgroup\tbundle\tpseudo_label.n_clusters"
    assert load(tmp_path, [f"b\tx.h5\t\t{folder}\t5"], header).runs["b"].get("pseudo_label.n_clusters") == 5


@pytest.mark.parametrize(
    ("learned", "source"),
    [
        ("clusters", "clusters"),
        ("slices", "bundle"),
        ("bundle", "bundle"),
        ("pixels", "bundle_pixels"),
        ("bundle_pixels", "bundle_pixels"),
        ([], "bundle"),
    ],
)
def test_a_network_that_learned_its_user_s_classes_answers_in_their_numbers(tmp_path, learned, source):
    """Then clusters are no stage, and class k is value k of the truth, as where it was trained."""
    settings = {"train": {"label_source": learned}, "bundle": {"refine": ["mpp"]}}
    folder = write_bundle(tmp_path, with_scm=False, settings=settings)
    run = load(tmp_path, [f"b\tx.h5\t\t{folder}"]).runs["b"]
    assert run.get("label_source") == source
    assert run.origins["label_source"] == "bundle"
    volume = ArrayVolume(np.zeros((2, 3, 4), np.uint16))
    np.save(tmp_path / "table.npy", TABLE)
    files = SimpleNamespace(assigned=[], table=tmp_path / "table.npy", get=lambda name: None)
    assert list(stage_volumes(files, volume, source)) == (["pseudo_labels"] if source == "clusters" else [])
    # What its user painted is read as where the network learned it: 0 is nothing, 1 is class 0.
    np.save(tmp_path / "labels.npy", np.array([[[0, 1, 2, 2]] * 3] * 2, np.uint8))
    labels = user_labels(run.settings, str(tmp_path / "labels.npy"), volume.shape)
    assert labels.read(0, 1)[0, 0].tolist() == ([255, 0, 1, 1] if "pixels" in source else [0, 1, 2, 2])


def test_nothing_is_trained_and_one_import_serves_all_rows(folder, tmp_path):
    rows = [f"{name}\t{name}.h5\t\t{folder}" for name in "bc"]
    graph = load(tmp_path, [*rows, "d\td.h5\t\t"])
    left = stages_of(graph.runs["b"])
    assert not {"plan", "pseudo_label", "train", "train_scm", "self_correct", "bundle"} & set(left)
    assert left.index("apply") < left.index("compare") < left.index("segment_stage2")
    for stage in ("plan", "pseudo_label", "train", "train_scm"):
        assert is_imported(stage, graph.runs["b"])
        assert graph.owner(stage, "c") == "b"
        assert graph.owner(stage, "d") == "d"
    assert graph.owner("segment_stage2", "c") == "c"
    assert "train" in stages_of(graph.runs["d"])


def test_own_range_and_adaptation_are_of_the_scan(folder, tmp_path):
    rows = [f"{name}\t{name}.h5\t\t{folder}\town\ttrue" for name in "bc"]
    graph = load(tmp_path, rows, "sample\tpath\tgroup\tbundle\tapply.range\tapply.adapt")
    for stage in ("plan", "self_correct", "segment_stage3", "bundle"):
        assert graph.owner(stage, "c") == "c", stage
    assert graph.owner("train", "c") == "b"
    assert not is_imported("plan", graph.runs["b"])
    run = graph.runs["b"]
    assert (run.get("stage3"), run.get("self_correct.steps")) == ("unbiased_teacher", 500)
    assert {"plan", "self_correct", "bundle"} <= set(stages_of(run))


def test_adaptation_on_the_bundles_range_is_of_the_scan_too(folder, tmp_path):
    rows = [f"{name}\t{name}.h5\t\t{folder}\ttrue" for name in "bc"]
    graph = load(tmp_path, rows, "sample\tpath\tgroup\tbundle\tapply.adapt")
    assert (graph.owner("plan", "c"), graph.owner("self_correct", "c")) == ("b", "c")


def test_a_group_applies_one_bundle(folder, tmp_path):
    with pytest.raises(InputError, match="group 'g': bundle"):
        load(tmp_path, [f"b\tx.h5\tg\t{folder}", "c\ty.h5\tg\t"])


def test_scm_without_its_weights_is_refused(tmp_path):
    folder = write_bundle(tmp_path, with_scm=False)
    assert load(tmp_path, [f"b\tx.h5\t\t{folder}"]).runs["b"].get("refine") == ["mpp"]
    with pytest.raises(InputError, match="holds no SCM"):
        load(tmp_path, [f"b\tx.h5\t\t{folder}"], refine=["mpp", "scm"])


def test_no_bundle_where_the_row_says(tmp_path):
    with pytest.raises(InputError, match=r"no bundle\.json"):
        load(tmp_path, ["b\tx.h5\t\tnowhere"])


class Evil:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_pickle_is_refused_and_not_opened(folder, tmp_path):
    (folder / "model.safetensors").write_bytes(pickle.dumps(Evil(tmp_path / "owned")))
    sign(folder, "model.safetensors")
    assert refused(folder).startswith("a pickle or an archive")
    assert not (tmp_path / "owned").exists()


def test_an_altered_file_is_refused(folder):
    with open(folder / "classes.json", "a") as file:
        file.write(" ")
    assert refused(folder).startswith("digest ")


@pytest.mark.parametrize("name", ["../../secret.json", "/etc/passwd", "model.pkl", "model.safetensors/../x"])
def test_names_of_no_bundle_are_refused(folder, name):
    index = read_json(folder / "bundle.json")
    index["files"][name] = "0" * 16
    write_json(folder / "bundle.json", index)
    assert refused(folder) == f"a file {name!r}"


@pytest.mark.parametrize("name", ["plan.json", "model.safetensors", "bundle.json"])
def test_links_are_refused(folder, name):
    secret = folder.parent / "secret"
    (folder / name).rename(secret)
    (folder / name).symlink_to(secret)
    assert refused(folder) == "a symbolic link"


@pytest.mark.parametrize("length", [1 << 62, MAX_HEADER + 1, 10**6])
def test_a_huge_header_is_refused_before_it_is_read(folder, length):
    (folder / "model.safetensors").write_bytes(length.to_bytes(8, "little") + b" " * 100)
    sign(folder, "model.safetensors")
    assert refused(folder) == f"a header of {length} bytes in a file of 108"


def test_shapes_that_do_not_fit_their_bytes_are_refused(folder):
    def grow(header):
        next(entry for name, entry in header.items() if name != "__metadata__")["shape"] = [10**9, 10**9]

    rewrite_header(folder / "model.safetensors", grow)
    sign(folder, "model.safetensors")
    assert refused(folder).startswith("tensor ")


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"in_channels": 10**9}, "in_channels 1000000000"),
        ({"n_classes": "3"}, "n_classes 3"),
        ({"in_channels": 5}, "of shape"),
        ({"name": "__import__"}, "'__import__'"),
        ({"in_channels": 4}, "in_channels 4"),
        ({"options": {"widths": [8, 16]}}, "of shape"),
        ({"crop": 1}, "crop 1"),
        ({"crop": 4096}, "crop 4096"),
        ({"crop": True}, "crop True"),
        ({"options": {"dropout": 0.1, "widths": 4}}, "options"),
        ({"options": {"dropout": 1e300}}, "options"),
        ({"options": {"dropout": 1}}, "options"),
        ({"options": {"dropout": -0.1}}, "options"),
        ({"options": {"dropout": HUGE}}, "no description of the network"),
        ({"options": {"dropout": [8, 16]}}, "options"),
        ({"options": {"dropout": True}}, "options"),
        *(
            ({"options": {"widths": widths}}, "options")
            for widths in ([8], [8] * 9, [8, 12], [8, 8192], [8, 16.0], [8, True], [8, "16"], [8, [16]])
        ),
        *(
            ({"name": "frame_unet", "options": {"width": width}}, "options")
            for width in (-8, 0.5, MAX_SIZE + 1, "8", None)
        ),
    ],
)
def test_weights_of_another_network_than_they_say_are_refused(folder, change, found):
    describe(folder, "model.safetensors", change)
    assert found in refused(folder)


@pytest.mark.parametrize(
    ("stage", "section", "key", "value"),
    [
        ("pseudo_label", "pseudo_label", "n_clusters", 5),
        ("train", "model", "n_slices", 7),
        ("self_correct", "self_correct", "batch", 10**9),
        ("self_correct", "self_correct", "batch", True),
    ],
)
def test_settings_that_the_weights_contradict_or_no_memory_holds_are_refused(folder, stage, section, key, value):
    settings = read_json(folder / "bundle.json")["settings"]
    settings[stage] = {**settings.get(stage, {}), section: {key: value}}
    changed(folder, "bundle.json", {"settings": settings})
    assert refused(folder) == f"{section}.{key} {value}"


@pytest.mark.parametrize("crop", [16, 1024])
def test_crops_that_a_training_may_have_are_taken(folder, crop):
    describe(folder, "model.safetensors", {"crop": crop})
    assert load_weights(applied(folder)["weights"])[1]["crop"] == crop


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"width": True}, "width True"),
        ({"width": HUGE}, "no description of the network"),
        ({"width": 16}, "of shape"),
        ({"n_slices": 4}, "n_slices 4"),
        ({"n_classes": 3.0}, "n_classes 3.0"),
    ],
)
def test_scm_weights_of_another_form_are_refused(folder, change, found):
    describe(folder, "scm.safetensors", change)
    assert found in refused(folder)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["model.safetensors", "scm.safetensors"])
def test_weights_that_are_no_finite_numbers_are_refused(folder, name, value):
    header, data = split(folder / name)
    join(folder / name, header, data[:-4] + np.float32(value).tobytes())
    sign(folder, name)
    assert refused(folder).endswith("holds NaN or infinity")


@pytest.mark.parametrize("kind", [torch.bool, torch.uint8, torch.int32, torch.int64, torch.float64])
def test_weights_that_are_no_floats_are_refused(folder, kind):
    path = folder / "model.safetensors"
    meta = split(path)[0]["__metadata__"]
    tensors = load_file(path)
    name = next(iter(tensors))
    save_file(tensors | {name: tensors[name].to(kind)}, path, meta)
    sign(folder, path.name)
    assert refused(folder).startswith(f"tensor {name!r} of type ")


def test_scm_weights_of_other_classes_are_refused(folder):
    scm.save(scm.SCM(5, N_CLASSES + 1, 8), folder / "scm.safetensors")
    sign(folder, "scm.safetensors")
    assert refused(folder) == "'scm' of 4 classes"


def tensor(kind, first, last, shape=(LEVELS,)):
    return {"dtype": kind, "shape": list(shape), "data_offsets": [first, last]}


GENUINE = {"table": tensor("U8", 0, LEVELS), "counts": tensor("I64", LEVELS, 9 * LEVELS)}
EMPTY = bytes(9 * LEVELS)


@pytest.mark.parametrize(
    ("header", "data", "found"),
    [
        (GENUINE | {"counts": tensor("I64", 0, 8 * LEVELS)}, EMPTY[: 8 * LEVELS], "a tensor from byte 0 on"),
        (GENUINE, EMPTY + b"x", "bytes"),
        (GENUINE, EMPTY[1:], "bytes"),
        (GENUINE | {"more": tensor("U8", 9 * LEVELS + 5, 9 * LEVELS + 6, [1])}, EMPTY + b"123456", "a tensor from"),
        (GENUINE | {"more": tensor("U8", 9 * LEVELS, 9 * LEVELS + 1, [1])}, EMPTY + b"1", "'more': ('U8', [1])"),
        (GENUINE | {"more": tensor("BF16", 9 * LEVELS, 9 * LEVELS + 2, [1])}, EMPTY + b"12", "'more' of type BF16"),
        (GENUINE | {"more": tensor("U8", 0, 0, [0] * 9)}, EMPTY, "tensor 'more'"),
        (GENUINE | {"counts": tensor("U8", LEVELS, 9 * LEVELS, [8 * LEVELS])}, EMPTY, "'counts': ('U8', [524288])"),
        (GENUINE | {"table": tensor(["U8"], 0, LEVELS)}, EMPTY, "tensor 'table' of type"),
        (GENUINE | {"table": tensor("U8", False, LEVELS)}, EMPTY, "tensor 'table'"),
        (GENUINE | {"table": tensor("U8", HUGE, HUGE, [0])}, EMPTY, "a header that is no JSON"),
        ({"table": GENUINE["table"]}, EMPTY[:LEVELS], "{'table': ('U8', [65536])}"),
        (GENUINE | {"__metadata__": {"about": 1}}, EMPTY, "__metadata__"),
        (GENUINE | {"__metadata__": None}, EMPTY, "__metadata__"),
        (json.dumps(GENUINE)[:-1] + f', "table": {json.dumps(GENUINE["table"])}}}', EMPTY, "a header that is no JSON"),
    ],
)
def test_arrays_of_another_form_are_refused(folder, header, data, found):
    join(folder / "arrays.safetensors", header, data)
    sign(folder, "arrays.safetensors")
    assert found in refused(folder)


def test_arrays_of_another_size_are_refused_unread(folder, monkeypatch):
    path = folder / "arrays.safetensors"
    with open(path, "ab") as file:
        file.truncate(path.stat().st_size + 10**6)
    sign(folder, path.name)
    monkeypatch.setattr("beamseg.bundle_files.load", lambda data: pytest.fail(f"{len(data)} bytes were read"))
    assert "bytes" in refused(folder)


@pytest.mark.parametrize(
    ("counts", "found"),
    [
        ({}, "counts of 0 voxels"),
        ({0: 5}, "counts of 5 voxels"),
        ({1: -1, 2: 5}, "values out of range"),
        ({1: 2**62}, f"counts of {2**62} voxels"),
        (dict.fromkeys(range(1, 9), 2**61), f"counts of {2**64} voxels"),
    ],
)
def test_counts_of_no_scan_are_refused(folder, counts, found):
    levels = np.zeros(LEVELS, np.int64)
    levels[list(counts)] = list(counts.values())
    save_arrays({"table": TABLE, "counts": levels}, folder / "arrays.safetensors")
    sign(folder, "arrays.safetensors")
    assert refused(folder) == found


@pytest.mark.parametrize(
    ("name", "change", "found"),
    [
        ("plan.json", {"range": [5, 5], "bits": 16}, "range [5, 5]"),
        ("plan.json", {"range": [-1e308, 1e308]}, "range [-1e+308"),
        ("plan.json", {"range": [0, HUGE]}, "no JSON (an integer of 401 digits"),
        ("plan.json", {"range": [False, True]}, "range [False"),
        ("plan.json", {"bits": 8.0}, "range"),
        ("plan.json", ["no", "plan"], "range None"),
        ("plan.json", {"scans": GONE}, "scans None"),
        ("plan.json", {"scans": []}, "scans []"),
        ("plan.json", {"warnings": GONE}, "scans {}, warnings None"),
        ("plan.json", {"warnings": [1]}, "scans {}, warnings [1]"),
        ("plan.json", {"clipped": GONE}, "clipped None"),
        ("plan.json", {"clipped": {"low": 0, "high": 2}}, "clipped "),
        ("classes.json", {"n_clusters": 10**9}, "n_clusters 1000000000"),
        ("classes.json", {"n_clusters": True}, "n_clusters True"),
        ("classes.json", {"n_clusters": 4}, "3 clusters, n_clusters 4"),
        ("classes.json", {"n_clusters": 4, "clusters": [*CLUSTERS, {"id": 3, **CLUSTER}]}, "3 classes, 4 clusters"),
        ("classes.json", {"clusters": GONE}, "clusters None"),
        ("classes.json", {"clusters": CLUSTERS[::-1]}, "clusters "),
        ("classes.json", {"clusters": [*CLUSTERS[:2], CLUSTERS[2] | {"intervals": [[1, LEVELS]]}]}, "clusters "),
        ("classes.json", {"clusters": [*CLUSTERS[:2], CLUSTERS[2] | {"centroid": "x"}]}, "clusters "),
        ("classes.json", {"clusters": [*CLUSTERS[:2], {"id": 2}]}, "clusters "),
        ("classes.json", {"elbow": GONE}, "elbow None"),
        ("classes.json", {"elbow": {"k": [2, 3], "inertia": [1], "separation": [1, 2]}}, "elbow "),
        ("classes.json", {"warnings": "none"}, "labeler kmeans, warnings none"),
        ("classes.json", {"labeler": GONE}, "labeler None"),
        ("classes.json", {"labeler": "features"}, "features: None"),
        ("classes.json", {"features": FEATURES | {"settings": SETTINGS | {"scales_px": [1e9]}}}, "features: "),
        ("classes.json", {"features": FEATURES | {"settings": SETTINGS | {"scales_px": [HUGE]}}}, "no JSON"),
        ("classes.json", {"features": FEATURES | {"settings": SETTINGS | {"scales_px": []}}}, "features: "),
        ("classes.json", {"features": FEATURES | {"settings": SETTINGS | {"use": ["colour"]}}}, "features: "),
        ("classes.json", {"features": FEATURES | {"std": [1, 0, 1]}}, "features: "),
        ("classes.json", {"features": FEATURES | {"centres": [[0.1] * 3]}}, "features: "),
        ("classes.json", {"features": {"settings": SETTINGS}}, "features: "),
        ("curves.json", {"columns": ["step"], "rows": [[1, 2]]}, "no table"),
        ("curves.json", {"rows": [[1, [2]]]}, "no table"),
        ("curves.json", {"columns": [["step"], ["loss"]]}, "columns "),
        ("curves.json", {"columns": [], "rows": [[]]}, "columns []"),
        ("curves.json", {"columns": ["epoch", "loss"]}, "columns "),
        ("curves.json", {"columns": ["step", "step"]}, "columns "),
        ("curves.json", {"columns": ["step", "$loss$"]}, "columns "),
        ("curves.json", {"rows": [["first", 1]]}, "step 'first'"),
        ("curves.json", {"rows": [[None, 1]]}, "step 'None'"),
        ("curves.json", {"rows": [["1", "\ud800"]]}, "no JSON"),
        ("bundle.json", {"stage": "stage9"}, "stage 'stage9'"),
        ("bundle.json", {"scans": []}, "no scans"),
    ],
)
def test_values_out_of_range_are_refused(folder, name, change, found):
    changed(folder, name, change)
    assert refused(folder).startswith(found)


@pytest.mark.parametrize(
    ("change", "found"),
    [
        *(({key: GONE}, "scans: ") for key in SCAN),
        ({"name": 1}, "scans: "),
        ({"shape": [8, 9]}, "scans: "),
        ({"shape": [8, 9, 0]}, "scans: "),
        ({"dtype": None}, "scans: "),
        ({"voxel_size_um": [1, 1]}, "scans: "),
        ({"voxel_size_um": [1, 1, -1]}, "scans: "),
        ({"voxel_size_um": [1e-300] * 3}, "scans: "),
        ({"voxel_size_um": [True] * 3}, "scans: "),
        ({"voxel_size_um": [1, 1, HUGE]}, "no JSON (an integer of 401 digits"),
    ],
)
def test_scans_of_another_form_are_refused_before_anything_runs(folder, tmp_path, change, found):
    scan = {key: value for key, value in (SCAN | change).items() if value is not GONE}
    changed(folder, "bundle.json", {"scans": [SCAN, scan]})
    with pytest.raises(InputError) as error:
        load(tmp_path, [f"b\tx.h5\t\t{folder}"])
    assert error.value.found.startswith(found)


@pytest.mark.parametrize("name", ["bundle.json", "plan.json", "classes.json", "curves.json"])
@pytest.mark.parametrize("twice", ['"a": {"b": 1, "b": 1}', '"a": 1, "a": 2', '"a": 1e999', '"a": NaN'])
def test_keys_given_twice_and_numbers_beyond_a_float_are_refused(folder, name, twice):
    path = folder / name
    path.write_text(path.read_text().replace("{", f"{{{twice},", 1))
    if name != "bundle.json":
        sign(folder, name)
    assert refused(folder).startswith("no JSON (")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{" * 200_000, "no JSON"),
        ('{"format": 1' + "0" * 5000 + "}", "no JSON"),
        ('{"format": NaN}', "no JSON"),
        ("[]", "format 'list'"),
        ('{"format": 99}', "format 99"),
    ],
)
def test_an_index_that_is_none_is_refused(folder, text, found):
    (folder / "bundle.json").write_text(text)
    assert refused(folder).startswith(found)


def test_an_index_too_large_is_refused_unread(folder):
    with open(folder / "bundle.json", "r+b") as file:
        file.truncate(MAX_JSON + 1)
    with pytest.raises(InputError, match=f"at most {MAX_JSON}"):
        read_index(folder)


def test_settings_of_a_bundle_pass_the_schema_too(folder, tmp_path):
    index = read_json(folder / "bundle.json")
    index["settings"]["train"]["model"]["n_slices"] = 10**9
    write_json(folder / "bundle.json", index)
    with pytest.raises(InputError, match=r"model\.n_slices"):
        load(tmp_path, [f"b\tx.h5\t\t{folder}"])
