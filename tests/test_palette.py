"""The class table: merges, names, colours, and what a user may get wrong."""

from __future__ import annotations

import pytest

from beamseg.errors import InputError
from beamseg.palette import CLASS, CLUSTER, COLOURS, class_table, colour, member_names, rgb, unnamed, word_for


def test_without_a_map_every_cluster_is_a_class() -> None:
    table = class_table(3, None)
    assert [row["name"] for row in table] == ["cluster 0", "cluster 1", "cluster 2"]
    assert [row["clusters"] for row in table] == [[0], [1], [2]]
    assert [row["colour"] for row in table] == list(COLOURS[:3])
    assert [row["id"] for row in table] == [0, 1, 2]


def test_merged_clusters_are_one_class_in_the_order_of_the_lowest() -> None:
    table = class_table(5, {"metal": {"clusters": [4, 2], "colour": "#ABCDEF"}, "void": {"clusters": [0]}})
    assert [(row["id"], row["name"], row["clusters"]) for row in table] == [
        (0, "void", [0]),
        (1, "cluster 1", [1]),
        (2, "metal", [2, 4]),
        (3, "cluster 3", [3]),
    ]
    assert table[2]["colour"] == "#ABCDEF"


@pytest.mark.parametrize(
    ("source", "word"),
    [
        ("clusters", CLUSTER),
        *((source, CLASS) for source in ("slices", "pixels", "bundle", "bundle_pixels")),
    ],
)
def test_what_a_network_learned_says_what_its_numbers_are_called(source: str, word: str) -> None:
    assert word_for(source) == word
    assert [row["name"] for row in class_table(2, None, word=word_for(source))] == [f"{word} 0", f"{word} 1"]


def test_classes_of_labels_are_named_and_merged_by_their_numbers() -> None:
    table = class_table(4, {"mitochondrion": {"clusters": [1]}, "rest": {"clusters": [2, 3]}}, word=CLASS)
    assert [row["name"] for row in table] == ["class 0", "mitochondrion", "rest"]
    assert member_names(table, CLASS) == {0: "class 0", 1: "mitochondrion", 2: "rest, class 2", 3: "rest, class 3"}
    assert unnamed(table, CLASS) == ["class 0"]
    with pytest.raises(InputError) as caught:
        class_table(2, {"rest": {"clusters": [2]}}, word=CLASS)
    assert (caught.value.found, caught.value.expected) == ("class 2", "classes 0 to 1")
    assert "cluster" not in caught.value.remedy.replace("n_clusters", "")


def test_no_two_classes_have_one_name() -> None:
    table = class_table(3, {"class 1": {"clusters": [0]}}, word=CLASS)
    assert [row["name"] for row in table] == ["class 1", "class 1, not named", "class 2"]
    assert unnamed(table, CLASS) == ["class 1, not named", "class 2"]


def test_a_colour_given_by_the_user_is_not_given_twice() -> None:
    table = class_table(3, {"metal": {"clusters": [2], "colour": COLOURS[0].lower()}})
    colours = [row["colour"].upper() for row in table]
    assert len(set(colours)) == 3


def test_colours_stay_distinct_past_the_palette() -> None:
    assert len({colour(i) for i in range(40)}) == 40
    assert rgb("#E69F00") == (230, 159, 0)


@pytest.mark.parametrize(
    ("classes", "where", "found"),
    [
        ({"metal": {"clusters": [3]}}, "classes.metal.clusters", "cluster 3"),
        ({"a": {"clusters": [1]}, "b": {"clusters": [2, 1]}}, "classes.b.clusters", "cluster 1, which 'a' has too"),
        ({"a": {"clusters": [1], "colour": "red"}}, "classes.a.colour", "'red'"),
        ({"a": {"clusters": []}}, "classes.a.clusters", "an empty list"),
    ],
)
def test_mistakes_are_named(classes: dict, where: str, found: str) -> None:
    with pytest.raises(InputError) as caught:
        class_table(3, classes)
    assert caught.value.where == where
    assert caught.value.found == found
