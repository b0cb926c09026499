"""Stage 1: clusters on the pooled histogram of a group become a table, grey level -> cluster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .clusters import LABELERS, rebin
from .errors import InputError
from .provenance import atomic_path, read_json, write_json
from .slabs import UNLABELLED
from .volumes import MAX_GREY, WIDE, grey_level


def grey_counts(plan: dict[str, Any], histograms: Sequence[str | Path]) -> np.ndarray:
    """Voxels per grey level over the group, int64 (65536,); level 0 is empty.

    A bin of the raw histogram goes to the level of its middle, as the voxels in it do; what lies beyond its ends is
    clipped to levels 1 and 65535, as `normalize` does.
    """
    bits = plan.get("bits", 16)
    total = np.zeros(MAX_GREY + 1, np.int64)
    for path in histograms:
        with np.load(path) as found:
            edges, counts = found["edges"], found["counts"]
            middle = (edges[1:] + edges[:-1]) / 2
            level = grey_level(middle, float(plan["range"][0]), float(plan["range"][1]), bits)
            np.add.at(total, level if bits == 16 else WIDE[level], counts)
            total[1] += int(found["underflow"])
            total[MAX_GREY] += int(found["overflow"])
    return total


def pseudo_label(
    plan_json: str | Path,
    histograms: Sequence[str | Path],
    out_classes: str | Path,
    out_table: str | Path,
    settings: dict[str, Any],
    seed: int,
) -> dict[str, Any]:
    """Cluster the grey levels of a group and write its class table.

    Parameters
    ----------
    plan_json, histograms : path, list of path
        The group's plan and the histograms of its scans.
    out_classes : path
        `classes.json`: n_clusters, labeler, clusters [{id, centroid, cut_low, cut_high, fraction}]; grey levels
        cut_low … cut_high, both included, belong to the cluster, `centroid` is their mean.
    out_table : path
        `table.npy`: uint8 (65536,), clusters 0 … K-1 in the order of grey level; level 0 is 255.
    settings : dict
        Section `pseudo_label`: n_clusters, labeler.
    seed : int

    Raises
    ------
    InputError
        If there are fewer distinct grey levels than clusters.
    """
    k = int(settings["n_clusters"])
    labeler = settings["labeler"]
    counts = grey_counts(read_json(plan_json), histograms)
    levels, weights = rebin(counts)
    if len(levels) < k:
        raise InputError(
            "pseudo_label.n_clusters",
            f"{k} clusters, but the scans hold {len(levels)} distinct grey levels",
            f"at most {len(levels)}",
            "lower n_clusters, or widen plan.range",
        )
    cuts = LABELERS[labeler](levels, weights, k, seed)
    every = np.arange(MAX_GREY + 1)
    table = np.searchsorted(cuts, every, side="left").astype(np.uint8)
    total = counts.sum()
    clusters = []
    for cluster in range(k):
        inside = np.flatnonzero(table == cluster)
        inside = inside[inside > 0]
        mass = counts[inside]
        clusters.append(
            {
                "id": cluster,
                "centroid": float((mass * inside).sum() / mass.sum()) if mass.sum() else float(inside.mean()),
                "cut_low": int(inside[0]),
                "cut_high": int(inside[-1]),
                "fraction": float(mass.sum() / total),
            }
        )
    table[0] = UNLABELLED
    classes = {"n_clusters": k, "labeler": labeler, "clusters": clusters}
    with atomic_path(out_table) as temporary, open(temporary, "wb") as file:
        np.save(file, table)
    write_json(out_classes, classes)
    return classes
