"""Colours of classes: one palette, safe for the colour-blind, the same class the same colour everywhere."""

from __future__ import annotations

import colorsys
import re
from typing import Any

import numpy as np

from .errors import InputError
from .label_values import UNLABELLED

# Okabe and Ito (2008), dark to light after black for the background; then tints for many clusters.
COLOURS = (
    "#000000",
    "#0072B2",
    "#E69F00",
    "#F0E442",
    "#009E73",
    "#D55E00",
    "#56B4E9",
    "#CC79A7",
    "#999999",
    "#7A4FBF",
)

CLUSTER, CLASS = "cluster", "class"
PLURAL = {CLUSTER: "clusters", CLASS: "classes"}
MEMBERS = {CLUSTER: "clusters", CLASS: "classes of the labels"}
"""What the numbers are called that a row of the class table merges."""
NOT_NAMED = ", not named"


def word_for(label_source: str) -> str:
    """What the numbers of a network's labels are called: clusters, or classes where it learned those of its user."""
    return CLUSTER if label_source == "clusters" else CLASS


def word_of(result: dict[str, Any]) -> str:
    """The same of what `evaluate` left; before it said so, all were called clusters."""
    return str(result.get("word", CLUSTER))


def colour(index: int) -> str:
    """The palette's colour of an index, '#rrggbb'; past the palette, hues by the golden ratio."""
    if index < len(COLOURS):
        return COLOURS[index]
    red, green, blue = colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.45, 0.85)
    return f"#{round(red * 255):02X}{round(green * 255):02X}{round(blue * 255):02X}"


def class_table(
    n_clusters: int, classes: dict[str, Any] | None, where: str = "classes", word: str = CLUSTER
) -> list[dict[str, Any]]:
    """The class table: [{id, name, colour, clusters}], one class per cluster unless `classes` merges some.

    Parameters
    ----------
    n_clusters : int
    classes : dict, optional
        The configuration's `classes` map: name -> {clusters: [ids], colour: '#rrggbb' (optional)}. Clusters that it
        does not name stay classes of their own, `<word> <id>`. Classes are in the order of their lowest cluster.
    where : str
        Names the key in errors.
    word : str
        `word_for` the network's labels: where its user gave them, the ids in `clusters` are the labels' class numbers.

    Raises
    ------
    InputError
        If a class names a cluster that is not there, two classes name the same one, or a colour is none.
    """
    rows: list[dict[str, Any]] = []
    owner: dict[int, str] = {}
    for name, entry in (classes or {}).items():
        for cluster in entry["clusters"]:
            if not 0 <= cluster < n_clusters:
                raise InputError(
                    f"{where}.{name}.clusters",
                    f"{word} {cluster}",
                    f"{PLURAL[word]} 0 to {n_clusters - 1}",
                    "see the cuts in the report's histogram for which cluster is which"
                    if word == CLUSTER
                    else "count the classes of the labels from 0; `pseudo_label.n_clusters` says how many there are",
                )
            if cluster in owner:
                raise InputError(
                    f"{where}.{name}.clusters",
                    f"{word} {cluster}, which {owner[cluster]!r} has too",
                    f"each {word} in one class of the map",
                    "take it out of one of them",
                )
            owner[cluster] = name
        if entry.get("colour") is not None and not re.fullmatch("#[0-9A-Fa-f]{6}", entry["colour"]):
            raise InputError(
                f"{where}.{name}.colour", repr(entry["colour"]), "'#rrggbb'", "quote six digits after the #"
            )
        if not entry["clusters"]:
            raise InputError(
                f"{where}.{name}.clusters", "an empty list", f"a {word} or more", "name one or drop the class"
            )
        rows.append({"name": name, "clusters": sorted(entry["clusters"]), "colour": entry.get("colour")})
    for cluster in range(n_clusters):
        if cluster not in owner:
            name = f"{word} {cluster}"
            # A user may have given that name to another.
            name += NOT_NAMED * (name in (classes or {}))
            rows.append({"name": name, "clusters": [cluster], "colour": None})
    rows.sort(key=lambda row: row["clusters"][0])
    given = {row["colour"].upper() for row in rows if row["colour"]}
    for number, row in enumerate(rows):
        row["id"] = number
        if row["colour"] is None:
            index = row["clusters"][0]
            while colour(index).upper() in given:
                index += n_clusters
            row["colour"] = colour(index)
            given.add(colour(index).upper())
    return rows


def member_names(table: list[dict[str, Any]], word: str) -> dict[int, str]:
    """A name per cluster of a class table: that of its class, with the cluster's number where the class has several."""
    return {
        cluster: row["name"] if len(row["clusters"]) == 1 else f"{row['name']}, {word} {cluster}"
        for row in table
        for cluster in row["clusters"]
    }


def unnamed(table: list[dict[str, Any]], word: str) -> list[str]:
    """Names of a class table that nobody gave."""
    names = ((row["name"], f"{word} {row['clusters'][0]}") for row in table)
    return [name for name, default in names if name in (default, default + NOT_NAMED)]


def class_ids(table: list[dict[str, Any]]) -> np.ndarray:
    """Cluster -> class id of a class table, uint8 (256,); 255 for what is no cluster."""
    ids = np.full(256, UNLABELLED, np.uint8)
    for row in table:
        ids[row["clusters"]] = row["id"]
    return ids


def rgb(text: str) -> tuple[int, int, int]:
    """`'#E69F00'` -> (230, 159, 0)."""
    return int(text[1:3], 16), int(text[3:5], 16), int(text[5:7], 16)
