"""apply: what a bundle gives to a run, which stages it replaces, and what a hostile one is refused for."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from beamseg import scm
from beamseg.apply import apply
from beamseg.bundle_files import MAX_HEADER, MAX_JSON, read_index
from beamseg.config import load_runs
from beamseg.errors import InputError
from beamseg.models import load_weights
from beamseg.provenance import read_json, write_json
from beamseg.runs import Runs, is_imported
from beamseg.summary import stages_of
from bundle_case import N_CLASSES, TABLE, rewrite_header, sign, write_bundle

BASEDIR = Path(__file__).resolve().parents[1]
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
        ({"options": {"dropout": 0.1, "widths": 4}}, "options"),
        ({"options": {"dropout": 1e300}}, "options"),
    ],
)
def test_weights_of_another_network_than_they_say_are_refused(folder, change, found):
    def lie(header):
        meta = json.loads(header["__metadata__"]["model"])
        header["__metadata__"]["model"] = json.dumps(meta | change)

    rewrite_header(folder / "model.safetensors", lie)
    sign(folder, "model.safetensors")
    assert found in refused(folder)


def test_scm_weights_of_other_classes_are_refused(folder):
    scm.save(scm.SCM(5, N_CLASSES + 1, 8), folder / "scm.safetensors")
    sign(folder, "scm.safetensors")
    assert refused(folder) == "'scm' of 4 classes"


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("plan.json", {"range": [5, 5], "bits": 16}, "range [5, 5]"),
        ("plan.json", ["no", "plan"], "range None"),
        ("classes.json", {"n_clusters": 10**9}, "n_clusters 1000000000"),
        ("classes.json", {"n_clusters": 4}, "3 classes, 4 clusters"),
        (
            "classes.json",
            {"n_clusters": 3, "features": {"settings": {"scales_px": [1e9], "background_px": 1}}},
            "features: ",
        ),
        ("curves.json", {"columns": ["loss"], "rows": [[1, 2]]}, "no table"),
    ],
)
def test_values_out_of_range_are_refused(folder, name, content, found):
    write_json(folder / name, content)
    sign(folder, name)
    assert refused(folder).startswith(found)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{" * 200_000, "no JSON"),
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
