"""Colours of classes: one palette, safe for the colour-blind, the same class the same colour everywhere."""

from __future__ import annotations

from typing import Any

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


def class_table(n_clusters: int, classes: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The class table: [{id, name, colour, clusters}], one class per cluster unless `classes` merges some.

    Parameters
    ----------
    n_clusters : int
    classes : dict, optional
        The configuration's `classes` map: name -> {clusters: [ids], colour: '#rrggbb' (optional)}. Clusters that it
        does not name stay classes of their own, `cluster <id>`.
    """
    rows: list[dict[str, Any]] = []
    named = {c for entry in (classes or {}).values() for c in entry["clusters"]}
    for name, entry in (classes or {}).items():
        rows.append({"name": name, "clusters": sorted(entry["clusters"]), "colour": entry.get("colour")})
    for cluster in range(n_clusters):
        if cluster not in named:
            rows.append({"name": f"cluster {cluster}", "clusters": [cluster], "colour": None})
    rows.sort(key=lambda row: row["clusters"][0])
    for number, row in enumerate(rows):
        row["id"] = number
        row["colour"] = row["colour"] or COLOURS[row["clusters"][0] % len(COLOURS)]
    return rows
