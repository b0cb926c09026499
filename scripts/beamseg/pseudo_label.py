"""Stage 1: clusters of a group's grey levels become a table, grey level -> cluster; or clusters of features."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .clusters import cluster_means, elbow, label_levels
from .features import cluster_features, sample_features
from .label_values import UNLABELLED
from .provenance import atomic_path, read_json, write_json
from .volumes import MAX_GREY, Volume, grey_counts


def describe(counts: np.ndarray, table: np.ndarray, n_clusters: int) -> list[dict[str, Any]]:
    """id, centroid, intervals [[low, high], …] and fraction of the clusters of a table, from voxels per grey level."""
    means = cluster_means(counts, table, n_clusters)
    total = counts[1:].sum()
    clusters = []
    for cluster in range(n_clusters):
        inside = table == cluster
        edges = np.flatnonzero(np.diff(inside, prepend=False, append=False)).reshape(-1, 2)
        if not np.isfinite(means[cluster]) and len(edges):
            means[cluster] = np.flatnonzero(inside).mean()
        clusters.append(
            {
                "id": cluster,
                "centroid": float(means[cluster]) if np.isfinite(means[cluster]) else None,
                "intervals": [[int(low), int(after) - 1] for low, after in edges],
                "fraction": float(counts[inside].sum() / total),
            }
        )
    return clusters


def pseudo_label(
    plan_json: str | Path,
    histograms: Sequence[str | Path],
    out_classes: str | Path,
    out_table: str | Path,
    settings: dict[str, Any],
    seed: int,
    volumes: Sequence[Volume] = (),
) -> dict[str, Any]:
    """Cluster the grey levels of a group, or features of its voxels, and write its class table.

    Parameters
    ----------
    plan_json, histograms : path, list of path
        The group's plan and the histograms of its scans.
    out_classes : path
        `classes.json`: n_clusters, labeler, clusters [{id, centroid, intervals, fraction}], elbow (of
        `clusters.elbow`), warnings. Grey levels of `intervals`, both ends included, belong to the cluster; `centroid`
        is their mean. With labeler `features`: no intervals, centroid and fraction are those of the sample, and
        `features` holds the model, in numbers.
    out_table : path
        `table.npy`: uint8 (65536,), clusters 0 … K-1 in the order of mean grey; level 0 is 255. With `features` all
        is 255, since no grey level decides by itself.
    settings : dict
        Section `pseudo_label`.
    seed : int
    volumes : sequence of Volume
        Normalized reference scans, for `features`.

    Raises
    ------
    InputError
        If there are fewer distinct grey levels than clusters.
    """
    k = int(settings["n_clusters"])
    counts = grey_counts(read_json(plan_json), histograms)
    classes: dict[str, Any] = {"n_clusters": k, "labeler": settings["labeler"], "elbow": elbow(counts)}
    if settings["labeler"] == "features":
        table = np.full(MAX_GREY + 1, UNLABELLED, np.uint8)
        sample, grey = sample_features(volumes, settings["features"], seed)
        classes["features"], labels = cluster_features(sample, grey, k, settings["features"], seed)
        voxels = np.bincount(labels, minlength=k)
        means = np.bincount(labels, grey, k) / np.maximum(voxels, 1)
        classes["clusters"] = [
            {"id": i, "centroid": float(means[i]), "intervals": [], "fraction": float(voxels[i] / len(labels))}
            for i in range(k)
        ]
    else:
        table = label_levels(counts, settings, seed)
        classes["clusters"] = describe(counts, table, k)
    classes["warnings"] = [
        f"cluster {cluster['id']} holds no voxel: take fewer clusters, or another labeler"
        for cluster in classes["clusters"]
        if not cluster["fraction"]
    ]
    with atomic_path(out_table) as temporary, open(temporary, "wb") as file:
        np.save(file, table)
    write_json(out_classes, classes)
    return classes
