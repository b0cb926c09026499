"""The class table: merges, names, colours, and what a user may get wrong."""

from __future__ import annotations

import pytest

from beamseg.errors import InputError
from beamseg.palette import COLOURS, class_table, colour, rgb


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
