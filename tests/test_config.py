"""Layers, their order, and errors that name the key and the remedy."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from beamseg.cli import show_config
from beamseg.config import load_runs, read_table
from beamseg.errors import InputError
from beamseg.layers import defaults, flatten, load_schema, merge
from beamseg.provenance import digest

BASEDIR = Path(__file__).resolve().parents[1]
SCHEMA = load_schema(BASEDIR / "workflow" / "schemas")


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config" / "samples").mkdir(parents=True)
    write(tmp_path, "seed: 3\ntrain: {lr: 0.01, batch: 8}\n")
    table(tmp_path, "a\ta.h5\n")
    return tmp_path


def write(folder, text):
    (folder / "config" / "config.yaml").write_text(text)


def table(folder, rows, header="sample\tpath"):
    (folder / "config" / "samples.tsv").write_text(f"{header}\n{rows}")


def load(folder, overrides=None):
    return load_runs(folder, BASEDIR, overrides)[0]


def test_each_layer_wins_over_the_one_below(folder):
    assert load(folder)["a"].get("train.lr") == 0.01
    (folder / "config" / "samples" / "a.yaml").write_text("train: {lr: 0.02}\n")
    run = load(folder)["a"]
    assert (run.get("train.lr"), run.get("train.batch")) == (0.02, 8)
    table(folder, "a\ta.h5\t0.03\n", "sample\tpath\ttrain.lr")
    assert load(folder)["a"].get("train.lr") == 0.03
    run = load(folder, {"train": {"lr": 0.04}})["a"]
    assert run.get("train.lr") == 0.04
    assert run.origins["train.lr"] == "--config"
    assert run.origins["train.batch"].endswith("config.yaml")
    assert run.origins["train.epochs"] in ("default", "preset quick")


def test_a_preset_lies_under_config_yaml(folder):
    (folder / "config" / "presets").mkdir()
    (folder / "config" / "presets" / "mine.yaml").write_text("train: {lr: 0.5, crop: 64}\n")
    run = load(folder, {"preset": "mine"})["a"]
    assert (run.get("train.lr"), run.get("train.crop")) == (0.01, 64)
    assert run.origins["train.crop"] == "preset mine"


def test_lists_replace_and_dicts_merge():
    assert merge({"a": {"x": 1, "y": [1, 2]}}, {"a": {"y": [3]}}) == {"a": {"x": 1, "y": [3]}}


@pytest.mark.parametrize(
    ("text", "found", "remedy"),
    [
        ("train: {learning_rate: 1}\n", "unknown key 'train.learning_rate'", "known here"),
        ("trian: {lr: 1}\n", "unknown key 'trian'", "did you mean 'train'?"),
        ("train: {bacth: 1}\n", "unknown key 'train.bacth'", "did you mean 'batch'?"),
        ("seed: -1\n", "-1", "change the value"),
        ("device: gpu\n", "'gpu'", "change the value"),
        ("preset: srtc\n", "'srtc'", "did you mean 'srct'?"),
        ("refine: [scm]\n", "[scm]", "add mpp"),
        ("normalize: {shading: drift, materialize: never}\n", "never, with normalize.shading", "remove materialize"),
        ("pseudo_label: {labeler: features, scope: slab}\n", "slab with labeler: features", "over the group"),
        ("classes: {a: {clusters: [0, 1]}, b: {clusters: [1]}}\n", "cluster 1", "take it out"),
        ("a: [1\n", "while parsing", "mend the syntax"),
        ("- 1\n", "a list", "key: value"),
    ],
)
def test_errors_name_what_was_found_and_the_remedy(folder, text, found, remedy):
    write(folder, text)
    with pytest.raises(InputError) as caught:
        load(folder)
    assert found in caught.value.found
    assert remedy in caught.value.remedy


@pytest.mark.parametrize(
    ("rows", "header", "found"),
    [
        ("a\ta.h5\na\tb.h5\n", "sample\tpath", "sample 'a'"),
        ("groups\ta.h5\n", "sample\tpath", "sample 'groups'"),
        ("a\ta.h5\tx\n", "sample\tpath", "more cells than columns"),
        ("a\n", "sample", "columns ['sample']"),
        ("", "sample\tpath", "no samples"),
        ("a\ta.h5\t1\n", "sample\tpath\ttrain.bacth", "unknown key 'train.bacth'"),
    ],
)
def test_errors_of_the_table(folder, rows, header, found):
    table(folder, rows, header)
    with pytest.raises(InputError) as caught:
        load(folder)
    assert found in caught.value.found


def test_paths_of_the_table_are_relative_to_it_and_information_columns_are_ignored(folder):
    table(folder, "a\t../raw/a.h5\t64×64\n", "sample\tpath\t#shape")
    run = load(folder)["a"]
    assert run.file("path") == folder / "config" / "../raw/a.h5"
    assert run.file("truth") is None


def test_slices_far_apart_turn_off_what_looks_along_z(folder):
    write(folder, "z_continuous: false\n")
    run = load(folder)["a"]
    assert run.get("refine") == []
    assert run.get("pseudo_label.features.dimensions") == 2
    assert run.get("model.n_slices") == 1
    assert run.origins["refine"] == "z_continuous: false"


def test_without_a_config_the_shipped_one_serves(tmp_path):
    run = load(tmp_path)["demo"]
    assert run.get("path") == "phantom"


def test_show_config_prints_value_and_layer(folder):
    lines = show_config("a", folder).splitlines()
    line = next(line for line in lines if line.startswith("train.lr "))
    assert line.split()[1] == "0.01"
    assert line.endswith("config.yaml")


def test_every_key_has_a_default_a_type_and_a_description_and_defaults_are_valid():
    import jsonschema

    def entries(schema, path=""):
        for key, entry in schema.get("properties", {}).items():
            yield f"{path}{key}", entry
            yield from entries(entry, f"{path}{key}.")

    for key, entry in entries(SCHEMA):
        assert entry.get("description"), key
        assert "type" in entry or "enum" in entry, key
        assert "properties" in entry or "default" in entry, key
    empty = {"sample": "a", "path": "a"}
    jsonschema.Draft202012Validator(SCHEMA).validate({**defaults(SCHEMA), **empty})


def test_shipped_config_holds_a_dozen_keys_at_most_and_presets_are_valid():
    shipped = yaml.safe_load((BASEDIR / "config" / "config.yaml").read_text())
    assert len(list(flatten(shipped))) <= 12
    for path in (BASEDIR / "config" / "presets").glob("*.yaml"):
        load_runs(BASEDIR, BASEDIR, {"preset": path.stem, "labels": {"path": "phantom"}})


def test_the_installed_command_prints_values_and_layers(tmp_path: Path) -> None:
    """The command of the README, as the environment installs it, outside of a checkout."""
    command = [Path(sys.executable).with_name("beamseg"), "--directory", tmp_path, "show_config", "demo"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.search(r"^train\.steps +680 +preset quick$", shown, re.MULTILINE)


@pytest.mark.parametrize("name", ["../a", "a/b", "/etc", ".", "..", ".hidden", "a b", "groups", "preview", "a\\b"])
def test_no_name_leaves_the_results_folder(folder, name):
    table(folder, f"{name}\ta.h5\n")
    with pytest.raises(InputError, match="name of a folder"):
        load(folder)


@pytest.mark.parametrize("name", ["../a", "a/b", "/etc", "..", ""])
def test_no_group_leaves_the_results_folder(folder, name):
    write(folder, f"group: {name!r}\n")
    with pytest.raises(InputError, match="group"):
        load(folder)


def test_yaml_that_would_build_objects_is_refused(folder):
    write(folder, "seed: !!python/object/apply:os.getpid []\n")
    with pytest.raises(InputError, match="python/object/apply"):
        load(folder)


def test_a_cell_that_would_build_objects_is_refused(folder):
    table(folder, "a\ta.h5\t!!python/object/apply:os.getpid []\n", "sample\tpath\tseed")
    with pytest.raises(InputError, match="seed"):
        load(folder)


def test_a_key_given_twice_is_refused(folder):
    write(folder, "seed: 3\ntrain:\n  lr: 0.1\n  batch: 4\n  lr: 0.2\n")
    with pytest.raises(InputError, match=r"key 'lr' given twice\n.*line 5"):
        load(folder)


def test_a_key_that_is_no_word_is_refused(folder):
    write(folder, "? [a, b]\n: 3\n")
    with pytest.raises(InputError, match="a key that is no word"):
        load(folder)


def test_numbers_and_words_as_keys_of_one_mapping(folder):
    """Keys are text in every layer, so that the same value of a mask is one key, and digests can be taken."""
    write(folder, "evaluate: {truth_map: {0: 0, 1: 5, rest: 1}}\n")
    table(folder, "a\ta.h5\t{1: 2}\n", "sample\tpath\tevaluate.truth_map")
    run = load(folder, {"evaluate": {"truth_map": {7: 3}}})["a"]
    assert run.settings["evaluate"]["truth_map"] == {"0": 0, "1": 2, "rest": 1, "7": 3}
    assert digest(run.settings)


def test_a_merged_mapping_gives_way_to_what_is_written(folder):
    write(folder, "train: &t {lr: 0.1, batch: 4}\nself_correct: {<<: *t, lr: 0.2}\n")
    settings = load(folder)["a"].settings
    assert (settings["self_correct"]["lr"], settings["self_correct"]["batch"]) == (0.2, 4)


@pytest.mark.parametrize("name", ["Groups", "PREVIEW", "index.html", "Index.HTML", "summary.csv"])
def test_what_lies_beside_the_folders_of_samples_is_no_name(folder, name):
    table(folder, f"{name}\ta.h5\n")
    with pytest.raises(InputError, match=r"none of: groups, index\.html, preview, summary\.csv"):
        load(folder)


def test_a_name_that_no_file_could_bear_is_refused(folder):
    table(folder, f"{'a' * 100}\ta.h5\n")
    assert list(load(folder)) == ["a" * 100]
    for length in (101, 300):
        table(folder, f"{'a' * length}\ta.h5\n")
        with pytest.raises(InputError, match="of 100 characters at most"):
            load(folder)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("Scan\ta.h5\t\nscan\tb.h5\t\n", "sample 'scan' beside 'Scan'"),
        ("a\ta.h5\tG\nb\tb.h5\tg\n", "group 'g' beside 'G'"),
        ("g\ta.h5\t\nc\tb.h5\tg\n", "no group, and sample 'c' in a group 'g'"),
        ("c\ta.h5\tg\ng\tb.h5\t\n", "no group, and sample 'c' in a group 'g'"),
    ],
)
def test_two_names_of_one_folder_are_refused(folder, rows, words):
    table(folder, rows, "sample\tpath\tgroup")
    with pytest.raises(InputError, match=words):
        load(folder)


def test_a_scan_may_be_in_a_group_of_its_name_or_of_another_s(folder):
    table(folder, "g\ta.h5\tg\nc\tb.h5\tg\nh\tc.h5\tg\n", "sample\tpath\tgroup")
    assert {run.group for run in load(folder).values()} == {"g"}


def test_a_contrastive_training_on_several_gpus_is_refused(folder):
    train = {"label_source": "pixels", "train": {"objective": "contrastive"}}
    assert load(folder, train | {"gpus": 1})
    assert load(folder, {"gpus": 2})
    with pytest.raises(InputError, match="2 with train\\.objective: contrastive"):
        load(folder, train | {"gpus": 2})


@pytest.mark.parametrize("mark", ["\u2028", "\u2029", "\x85", "\f", "\v", "\x1c"])
def test_rows_end_at_ends_of_lines_alone(folder, mark):
    path = folder / "config" / "samples.tsv"
    path.write_bytes(f"sample\tpath\r\na\tx{mark}y.h5\r\nb\tb.h5\n".encode())
    assert [(row["sample"], row["path"]) for row in read_table(path)] == [("a", f"x{mark}y.h5"), ("b", "b.h5")]


def test_a_row_without_a_path_is_refused(folder):
    table(folder, "a\ta.h5\nb\t \n")
    with pytest.raises(InputError, match="sample 'b' without a path") as error:
        load(folder)
    assert error.value.where.endswith("row 2")
    assert "fill in" in error.value.remedy


@pytest.mark.parametrize("group", ["g\n", "g" * 101, "g\n\n"])
def test_a_group_is_the_name_of_a_folder(folder, group):
    with pytest.raises(InputError, match="group"):
        load(folder, {"group": group})
    assert load(folder, {"group": group.strip()[:100]})["a"].group == group.strip()[:100]


def bomb(level):
    """YAML of a hundred characters a level that ten times as many values each stand for."""
    lines = ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, level)]
    return "train:\n" + "".join(f"  {line}\n" for line in lines)


@pytest.mark.parametrize("level", [7, 30])
@pytest.mark.parametrize("last", ["", "  lr: *l{}\n"])
def test_a_value_that_aliases_multiply_is_refused_at_once(folder, level, last):
    write(folder, bomb(level) + last.format(level - 1))
    with pytest.raises(InputError, match="each alias") as error:
        load(folder)
    assert len(str(error.value)) < 1000


def test_a_long_value_is_cut_in_the_message_and_a_short_one_is_not(folder):
    write(folder, f"seed: [{', '.join(['12345'] * 5000)}]\n")
    with pytest.raises(InputError) as error:
        load(folder)
    assert error.value.found.startswith("[12345, 12345, ")
    assert len(error.value.found) < 250
    assert error.value.expected == f"{error.value.found} is not of type 'integer'"
    write(folder, "seed: [1, two]\n")
    with pytest.raises(InputError) as error:
        load(folder)
    assert (error.value.found, error.value.expected) == ("[1, 'two']", "[1, 'two'] is not of type 'integer'")


@pytest.mark.parametrize(
    ("layer", "key"),
    [
        ({"preset": "pixels", "train": {"piecewise_affine": {"scale": 0.03}}}, "train.piecewise_affine.scale"),
        ({"preset": "pixels", "train": {"strong_share": 0.5}}, "train.strong_share"),
        ({"preset": "slices", "train": {"prior": 0.1}}, "train.prior"),
        ({"preset": "srct", "train": {"prior": 0.1}}, "train.prior"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(folder, layer, key):
    with pytest.raises(InputError, match=rf"sample 'a': {key}"):
        load(folder, layer)
    allowed = {**layer, "label_source": "pixels", "train": {**layer["train"], "objective": "classification"}}
    assert load(folder, allowed)["a"].get(key) > 0
