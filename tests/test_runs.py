"""Identities: which runs share which stages, and which scans a group draws from."""

from __future__ import annotations

from pathlib import Path

import pytest

from beamseg.config import load_runs
from beamseg.errors import InputError
from beamseg.runs import STAGES, Runs, corrections

BASEDIR = Path(__file__).resolve().parents[1]


@pytest.fixture
def runs(tmp_path):
    def build(rows, header="sample\tpath\tgroup", **overrides):
        (tmp_path / "config").mkdir(exist_ok=True)
        (tmp_path / "config" / "config.yaml").write_text("{}\n")
        (tmp_path / "config" / "samples.tsv").write_text(f"{header}\n" + "".join(f"{row}\n" for row in rows))
        return Runs(load_runs(tmp_path, BASEDIR, overrides)[0])

    return build


def test_runs_that_differ_in_stage_3_share_everything_before(runs):
    graph = runs(["a\tx.h5\t0.999", "b\tx.h5\t0.9"], "sample\tpath\tself_correct.ema")
    owners = {stage: graph.owner(stage, "b") for stage in STAGES if stage != "simulate"}
    own = {stage for stage, who in owners.items() if who == "b"}
    assert own == {"self_correct", "segment_stage3", "refine_mpp", "train_scm", "refine_scm", "bundle", "evaluate"}


def test_another_scan_shares_nothing(runs):
    graph = runs(["a\tx.h5\t", "b\ty.h5\t"])
    assert {graph.owner(stage, "b") for stage in STAGES if stage != "simulate"} == {"b"}


def test_classes_and_truth_change_evaluation_and_bundle_alone(runs):
    graph = runs(["a\tx.h5\tt1.h5", "b\tx.h5\tt2.h5"], "sample\tpath\ttruth")
    assert {stage for stage in STAGES if graph.owner(stage, "b") == "b"} == {"evaluate"}


def test_scans_of_a_group_share_the_group_stages(runs):
    graph = runs(["a\tx.h5\tg", "b\ty.h5\tg", "c\tz.h5\t"])
    for stage in ("plan", "pseudo_label", "train", "self_correct", "train_scm"):
        assert graph.owner(stage, "a") == graph.owner(stage, "b") == "g"
        assert graph.owner(stage, "c") == "c"
    assert graph.owner("segment_stage3", "b") == "b"


def test_references_are_the_first_four_unless_marked(runs):
    rows = [f"s{i}\t{i}.h5\tg\t" for i in range(6)]
    header = "sample\tpath\tgroup\treference"
    assert runs(rows, header).references("g") == ["s0", "s1", "s2", "s3"]
    rows[5] += "true"
    assert runs(rows, header).references("g") == ["s5"]


def test_a_scan_added_to_a_full_group_changes_no_identity(runs):
    rows = [f"s{i}\t{i}.h5\tg" for i in range(4)]
    before = runs(rows)
    after = runs([*rows, "s4\t4.h5\tg"])
    for stage in STAGES:
        if stage != "simulate":
            assert before.identity(stage, "s0") == after.identity(stage, "s0"), stage


def test_scans_of_a_group_must_agree_on_what_they_share(runs):
    with pytest.raises(InputError, match=r"group 'g': train.lr") as caught:
        runs(["a\tx.h5\tg\t0.1", "b\ty.h5\tg\t0.2"], "sample\tpath\tgroup\ttrain.lr")
    assert "groups of their own" in caught.value.remedy


def test_labels_are_part_of_the_identity_of_training_and_truth_is_not(runs):
    graph = runs(["a\tx.h5\tl1.h5", "b\tx.h5\tl2.h5"], "sample\tpath\tlabels")
    assert graph.owner("train", "b") == "b"
    assert graph.owner("pseudo_label", "b") == "a"
    assert "truth" not in {key for stage in STAGES if stage != "evaluate" for key in STAGES[stage].settings}


LABELLED = "sample\tpath\tgroup\tlabel_source\tlabels\tlabels.slices\tlabels.map"


def test_labels_of_several_scans_train_one_model_and_the_rest_is_applied(runs):
    """Each file has slices, an orientation and values of its own."""
    rows = [
        "a\ta.h5\tg\tslices\tla.tif\t[2, 7]\t{255: 1}",
        "b\tb.h5\tg\tslices\tlb.tif\t[3]\t",
        "c\tc.h5\tg\tslices\t\t\t",
    ]
    graph = runs(rows, LABELLED)
    assert {graph.owner("train", name) for name in "abc"} == {"g"}
    assert graph.label_file("a")["slices"] == [2, 7]
    assert graph.label_file("a")["map"] == {"255": 1}
    assert graph.label_file("b")["slices"] == [3]
    assert graph.label_file("b")["path"].endswith("lb.tif")
    assert graph.label_file("c")["path"] == ""
    other = runs([rows[0], rows[1].replace("[3]", "[4]"), rows[2]], LABELLED)
    assert other.identity("train", "a") != graph.identity("train", "a")
    every = "sample\tpath\tgroup\tlabel_source\tlabels\tlabels.every"
    with pytest.raises(InputError, match=r"group 'g': labels.every"):
        runs(["a\ta.h5\tg\tslices\tl.tif\t5", "b\tb.h5\tg\tslices\tl.tif\t4"], every)


@pytest.mark.parametrize("source", ["slices", "pixels"])
def test_labels_that_training_would_not_see_are_refused(runs, source):
    header = "sample\tpath\tgroup\tlabel_source\tlabels"
    with pytest.raises(InputError, match="an empty cell for every scan") as caught:
        runs([f"a\ta.h5\tg\t{source}\t", f"b\tb.h5\tg\t{source}\t"], header)
    assert "the same `group`" in caught.value.remedy
    rows = [f"{name}\t{name}.h5\tg\t{source}\tl.tif" for name in "abcdef"]
    with pytest.raises(InputError, match="labels of e, f"):
        runs(rows, header)


def test_a_scan_with_two_label_files_in_one_group_is_refused(runs):
    header = "sample\tpath\tgroup\tlabel_source\tlabels\tingest.flip"
    rows = ["a\tx.h5\tg\tslices\tla.tif\t", "b\tx.h5\tg\tslices\tlb.tif\t"]
    with pytest.raises(InputError, match=r"(?s)labels of a and b.*one scan in two rows") as caught:
        runs(rows, header)
    assert "one file" in caught.value.remedy
    runs([rows[0], rows[1].replace("lb.tif", "")], header)
    runs([rows[0], rows[1] + "[z]"], header)
    runs([rows[0], rows[1].replace("\tg\t", "\tother\t")], header)
    runs([rows[0], rows[1].replace("x.h5", "y.h5")], header)


def test_phantoms_are_told_apart_by_their_parameters(runs):
    graph = runs(["a\tphantom\t1", "b\tphantom\t2", "c\tphantom\t1"], "sample\tpath\tphantom.seed")
    assert [graph.owner("ingest", name) for name in "abc"] == ["a", "b", "a"]


def test_corrections_start_anew_and_the_cache_changes_nothing_but_itself(runs):
    header = "sample\tpath\tnormalize.shading\tnormalize.materialize"
    graph = runs(["a\tx.h5\tnone\tauto", "b\tx.h5\tdrift\tauto", "c\tx.h5\tnone\talways"], header)
    assert {graph.owner(stage, "b") for stage in STAGES if stage != "simulate"} == {"b"}
    assert {stage for stage in STAGES if graph.owner(stage, "c") == "c"} == {"normalize"}
    assert corrections(graph.runs["a"]) is None
    assert corrections(graph.runs["b"])["shading"] == "drift"


def test_grey_levels_of_a_group_have_one_type(runs):
    with pytest.raises(InputError, match=r"normalize\.dtype"):
        runs(["a\tx.h5\tg\tuint8", "b\ty.h5\tg\tuint16"], "sample\tpath\tgroup\tnormalize.dtype")
