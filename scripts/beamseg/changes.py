"""What a refinement changed: counted per class, added over slabs, and said aloud when it is much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError
from .label_values import UNLABELLED
from .provenance import read_json, write_json

ERASED = 0.5  # a class that loses more than this fraction of its voxels counts as erased


def count_changes(before: np.ndarray, after: np.ndarray, n_classes: int) -> np.ndarray:
    """From → to matrix of two label arrays; additive over blocks.

    Parameters
    ----------
    before, after : ndarray, uint8, same shape
        Class ids; voxels that are 255 in either do not count.

    Returns
    -------
    ndarray, int64, (n_classes, n_classes)
        Entry [i, j]: voxels that were i and are j.

    Raises
    ------
    ValueError
        If a label is neither below `n_classes` nor 255.
    """
    pairs = np.bincount((before.astype(np.uint16) << 8 | after).ravel(), minlength=1 << 16).reshape(256, 256)
    known = pairs[:n_classes, :n_classes]
    if pairs[n_classes:UNLABELLED].any() or pairs[:, n_classes:UNLABELLED].any():
        values = np.flatnonzero(pairs.sum(0) + pairs.sum(1))
        raise ValueError(f"labels {[int(v) for v in values]} where classes 0 … {n_classes - 1} and 255 are known")
    return known.astype(np.int64)


def describe(matrix: np.ndarray, warn_fraction: float, stage: str) -> dict[str, Any]:
    """Fractions per class of a from → to matrix, and what a user should be told.

    Returns
    -------
    dict
        `matrix`; `changed`, fraction of all voxels; `classes` [{id, before, after, lost, gained}], `lost` and
        `gained` as fractions of the voxels before (0 for a class without any); `erased` [id], classes that lost more
        than half of their voxels; `warnings` [str], where a class lost or gained more than `warn_fraction`, which is
        given again.
    """
    before, after, kept = matrix.sum(1), matrix.sum(0), np.diag(matrix)
    classes, erased = [], []
    for k in range(len(matrix)):
        lost = float((before[k] - kept[k]) / before[k]) if before[k] else 0.0
        gained = float((after[k] - kept[k]) / before[k]) if before[k] else 0.0
        classes.append({"id": k, "before": int(before[k]), "after": int(after[k]), "lost": lost, "gained": gained})
        if lost > ERASED:
            erased.append(k)
    changed = float(1 - kept.sum() / before.sum()) if before.sum() else 0.0
    return {
        "matrix": matrix.tolist(),
        "changed": changed,
        "classes": classes,
        "erased": erased,
        "warnings": warnings(classes, warn_fraction, stage),
        "warn_fraction": warn_fraction,
    }


def warnings(
    classes: Sequence[dict[str, Any]], warn_fraction: float, stage: str, names: Mapping[int, str] | None = None
) -> list[str]:
    """What a user should be told of `classes` as `describe` has them, by their names where there are some."""
    found = []
    for entry in classes:
        name = (names or {}).get(entry["id"], f"class {entry['id']}")
        if max(entry["lost"], entry["gained"]) > warn_fraction:
            found.append(f"{stage} took {entry['lost']:.1%} of {name} away and added {entry['gained']:.1%}")
        elif not entry["before"] and entry["after"]:
            found.append(f"{stage} made {entry['after']} voxels of {name}, which had none")
    return found


def add_to_manifest(path: str | Path, manifest: dict[str, Any], warn_fraction: float) -> dict[str, Any]:
    """Sum the slabs' `changes` into the manifest of their part and write it again.

    A manifest without the sum is one whose writer was killed in between; its slabs are kept, so a rerun mends it.
    """
    if manifest["slabs"]:
        matrix = np.sum([slab["notes"]["changes"] for slab in manifest["slabs"]], axis=0)
        manifest = {**manifest, "changes": describe(matrix, warn_fraction, manifest["stage"])}
        write_json(path, manifest)
    return manifest


def summarize(manifests: Sequence[str | Path]) -> dict[str, Any]:
    """What a refinement changed over the whole volume, from the manifests of all its parts.

    Parameters
    ----------
    manifests : sequence of path
        Of `refine_mpp` (changes of the raw labels) or of `refine_scm` (changes of MPP's output).

    Returns
    -------
    dict
        See `describe`; warnings follow the fraction that the refinement was configured with. Where `erased` of
        `refine_scm` is not empty, MPP's output is the safer product.

    Raises
    ------
    InputError
        If a slab bears no counts.
    """
    matrix, stage, warn_fraction = None, "", 0.0
    for path in manifests:
        content = read_json(path)
        stage = content["stage"]
        for slab in content["slabs"]:
            if "changes" not in slab["notes"]:
                raise InputError(path, "a slab without counts of changes", "a refinement's manifest", "rerun the stage")
            counts = np.array(slab["notes"]["changes"], dtype=np.int64)
            matrix = counts if matrix is None else matrix + counts
            warn_fraction = content["changes"]["warn_fraction"]
    if matrix is None:
        raise InputError(str(list(map(str, manifests))), "no slab", "manifests of all parts", "rerun the stage")
    return describe(matrix, warn_fraction, stage)
