"""Measure every stage against the truth, or against each other without one, in one pass over the volumes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from . import changes, metrics
from .count import TRAINED_ON, Counts, count, spread_out
from .errors import InputError
from .label_values import MAX_TRUTH, UNLABELLED
from .metrics import STAGES
from .metrics_table import write_csv
from .palette import CLASS, CLUSTER, class_ids, class_table, member_names
from .product import choose_product, found_again, lost_classes
from .provenance import atomic_path, write_json
from .volumes import Volume

DEFINITIONS = {
    "accuracy": "share of the voxels in the field of view whose truth is a class other than background that got it",
    "iou": "intersection over union, over all of the field of view; null if the truth has no such voxel",
    "dice": "2 |A and B| / (|A| + |B|), over all of the field of view; null if the truth has no such voxel",
    "mean_iou": "mean over the classes of the truth that are present and not background; mean_dice likewise",
    "voxels": "of the class in the truth, where it was measured",
    "moves": "voxels by class of the first stage (rows) and of this stage (columns); last is unlabelled",
    "least_certain": "blocks of 8 by 64 by 64 voxels with the lowest mean confidence that do not touch; not calibrated",
    "agreement": "equal: share of voxels with the same class in both stages; classes: IoU of the two stages",
}


def evaluate(
    stages: dict[str, Volume],
    *,
    n_clusters: int,
    settings: dict[str, Any],
    out_json: str | Path,
    out_csv: str | Path,
    classes: dict[str, Any] | None = None,
    truth: Volume | None = None,
    training_labels: Volume | None = None,
    confidence: Volume | None = None,
    verdict: dict[str, Any] | None = None,
    refinement: dict[str, dict[str, Any]] | None = None,
    out_truth: str | Path | None = None,
    mem_budget_mb: float = 512,
    word: str = CLUSTER,
    parts: Sequence[str | Path] = (),
) -> dict[str, Any]:
    """Measure all stages in one pass and name the product.

    Parameters
    ----------
    stages : dict of Volume
        pseudo_labels, stage2, stage3, mpp, scm, or the ones there are, in this order: uint8 cluster ids, 255 is
        unlabelled. The field of view is where the first stage has a label.
    n_clusters : int
    settings : dict
        The section `evaluate`: truth_names, background; truth_map is done with, names by colour end with it.
    out_json, out_csv : path
        Metrics whole, and as a table with a row per stage and class.
    classes : dict, optional
        The section `classes`; its merges are applied before anything is measured. Where it is empty, classes that are
        compared by number take the names that `truth_names` gives to their values.
    truth : Volume, optional
        uint8, 0 … 252 (after `truth_map`); 255 is not labelled.
    training_labels : Volume, optional
        Where it is not 255 a human label was trained on: left out of the comparison with the truth, and counted; so are
        the slices that its attribute `held_out` names, if it has one.
    confidence : Volume, optional
        uint8, 0 … 255 is 0 … 1.
    verdict : dict, optional
        Of the watch over stage 3: `use` (stage2 or stage3) and `reason`.
    refinement : dict, optional
        Stage (mpp, scm) -> what it changed; a non-empty `erased` (cluster ids) keeps it from being the product.
    out_truth : path, optional
        The truth on the slices that the report may show (npz: z (n,), truth (n, y, x) uint8 after `truth_map`, left_out
        (n, y, x) bool, what is trained on or held out); empty without truth. So that the truth is opened here alone.
    mem_budget_mb : float
        MiB that may be held of the volumes at once.
    word : str
        `palette.word_for` the labels that the network learned: class k is value k of the truth; clusters are matched.
    parts : sequence of path, optional
        What the rule `count` left, where the run is cut into parts; else the voxels are counted here.

    Returns
    -------
    dict
        What `out_json` holds; see `DEFINITIONS` and the head of `beamseg.metrics`.

    Raises
    ------
    InputError
        If shapes differ, or nothing of the truth is labelled.
    """
    if not stages or any(name not in STAGES for name in stages):
        raise ValueError(f"stages {list(stages)}: one or more of {list(STAGES)}")
    table = class_table(n_clusters, classes, word=word)
    to_class = class_ids(table)
    shape = next(iter(stages.values())).shape
    counts = count(stages, to_class, truth, training_labels, confidence, mem_budget_mb=mem_budget_mb, parts=parts)

    if truth is not None and word == CLASS and not classes:
        _take_names(table, counts, settings)
    called = member_names(table, word)
    if refinement is not None:
        refinement = _said_by_name(refinement, called)
    product = choose_product(list(stages), verdict, refinement, called)
    result: dict[str, Any] = {
        "word": word,
        "classes": table,
        "stages": {name: {} for name in stages},
        "product": product,
        "has_truth": truth is not None,
        "excluded": {},
        "verdict": verdict,
        "refinement": refinement,
        "definitions": DEFINITIONS,
    }
    _describe(result, counts, table, shape, confidence is not None)
    if truth is not None:
        # A colour mask names its values by colour until the user names them.
        colours = getattr(truth, "mapping", {}) if not settings.get("truth_map") else {}
        by_name = _compare(result, counts, table, settings, set(classes or {}), colours, word == CLASS)
        result["warnings"] = list(getattr(truth, "warnings", []))
        if word == CLASS and not by_name:
            result["warnings"] += _other_numbers(result["truth"], table)
        found_again(result)
    if lost := result["lost_classes"].get(product["stage"]):
        product["reason"] += f"; it has lost {', '.join(lost)}"
    if out_truth is not None:
        _write_truth(result, truth, training_labels, shape, out_truth)
    write_csv(result, out_csv)
    write_json(out_json, result)
    return result


def _take_names(table: list[dict[str, Any]], counts: Counts, settings: dict[str, Any]) -> None:
    """Name classes after the values that they are compared with; not where the truth may have another numbering."""
    names = _truth_names(settings)
    values = np.flatnonzero(counts.truth[counts.names[0]].sum(axis=0)[: MAX_TRUTH + 1]).tolist()
    numbers = [row["clusters"][0] for row in table]
    taken = [names.get(number, row["name"]) for number, row in zip(numbers, table, strict=True)]
    if values == numbers and set(names) <= set(numbers) and len(set(taken)) == len(taken):
        for row, name in zip(table, taken, strict=True):
            row["name"] = name


def _truth_names(settings: dict[str, Any]) -> dict[int, str]:
    return {int(value): name for value, name in (settings.get("truth_names") or {}).items()}


def _said_by_name(refinement: dict[str, dict[str, Any]], called: Mapping[int, str]) -> dict[str, dict[str, Any]]:
    """What refinement changed, with warnings that call the classes by their names."""
    said = {}
    for stage, change in refinement.items():
        warnings = change.get("warnings", [])
        if "warn_fraction" in change:
            warnings = changes.warnings(change["classes"], change["warn_fraction"], f"refine_{stage}", called)
        said[stage] = {**change, "warnings": warnings}
    return said


def _other_numbers(truth: list[dict[str, Any]], table: list[dict[str, Any]]) -> list[str]:
    """A warning where values of the truth are not the numbers of the network's classes, as they should be."""
    values = sorted(entry["value"] for entry in truth if entry["voxels"])
    classes = sorted(row["clusters"][0] for row in table)
    if values == classes:
        return []
    held, known = (", ".join(map(str, numbers)) for numbers in (values, classes))
    return [
        f"the truth holds the values {held}, the network's classes are {known}; class k is compared with value k, and "
        "one without such a value with what it overlaps most (evaluate.truth_map renumbers the truth)"
    ]


def _write_truth(
    result: dict[str, Any],
    truth: Volume | None,
    training_labels: Volume | None,
    shape: tuple[int, int, int],
    path: str | Path,
) -> None:
    slices = sorted({result["slices"]["shown"], *result["slices"]["disputed"]}) if truth is not None else []
    kept = np.full((len(slices), *shape[1:]), UNLABELLED, np.uint8)
    for image, z in zip(kept, slices, strict=True):
        if truth is not None:
            image[:] = truth.read(z, z + 1)[0]
    left_out = np.zeros(kept.shape, bool)
    for image, z in zip(left_out, slices, strict=True):
        if training_labels is not None:
            image[:] = z in getattr(training_labels, "held_out", []) or training_labels.read(z, z + 1)[0] != UNLABELLED
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, z=np.array(slices, dtype=np.int64), truth=kept, left_out=left_out)


def _describe(
    result: dict[str, Any], counts: Counts, table: list[dict[str, Any]], shape: tuple[int, int, int], trust: bool
) -> None:
    """What needs no truth: fractions, agreement, confidence, profiles along z, the slices in dispute."""
    names = [row["name"] for row in table]
    n = len(table)
    first = counts.names[0]
    in_view_z = counts.per_slice[first][:, :n].sum(axis=1)
    in_view = int(in_view_z.sum())
    result["voxels"] = {"volume": int(np.prod(shape)), "field_of_view": in_view}
    result["excluded"]["outside_field_of_view"] = int(np.prod(shape)) - in_view
    for name, stage in result["stages"].items():
        totals = counts.per_slice[name].sum(axis=0)
        stage["fractions"] = {c: _ratio(totals[i], in_view) for i, c in enumerate(names)}
        stage["unlabelled"] = _ratio(in_view - totals[:n].sum(), in_view)
        if trust and name != "pseudo_labels":
            stage["confidence"] = {c: _ratio(counts.confidence[name][i], 255 * totals[i]) for i, c in enumerate(names)}
            stage["mean_confidence"] = _ratio(counts.confidence[name][:n].sum(), 255 * totals[:n].sum())
    result["lost_classes"] = lost_classes({name: stage["fractions"] for name, stage in result["stages"].items()})
    result["least_certain"] = counts.least_certain.regions() if trust else []
    result["agreement"] = []
    result["moves"] = {}
    for (a, b), pairs in counts.pairs.items():
        small = _fold(pairs, n)
        found = metrics.agreement(small)
        both = {"stages": [a, b], "equal": found["equal"], "classes": dict(zip(names, found["classes"], strict=True))}
        result["agreement"].append(both)
        if a == first:
            result["stages"][b]["moves"] = small.tolist()
        if (a, b) == (first, result["product"]["stage"]):
            result["moves"] = {"from": a, "to": b, "voxels": small.tolist()}
    product = counts.per_slice[result["product"]["stage"]]
    result["profile"] = {
        "fractions": {
            c: [_ratio(v, t, 6) for v, t in zip(product[:, i], in_view_z, strict=True)] for i, c in enumerate(names)
        },
        "disputed": [_ratio(v, t, 6) for v, t in zip(counts.disputed, in_view_z, strict=True)],
    }
    share = np.divide(counts.disputed, in_view_z, out=np.zeros(shape[0]), where=in_view_z > 0)
    middle = shape[0] // 2
    compared = np.flatnonzero(counts.compared)
    shown = int(compared[np.argmin(np.abs(compared - middle))]) if compared.size else middle
    result["slices"] = {"middle": middle, "shown": shown, "disputed": spread_out(share, max(1, shape[0] // 12))}


def _fold(pairs: np.ndarray, n: int) -> np.ndarray:
    """(256, 256) counts as (n + 1, n + 1): classes, then unlabelled."""
    keep = [*range(n), UNLABELLED]
    return pairs[np.ix_(keep, keep)]


def _compare(
    result: dict[str, Any],
    counts: Counts,
    table: list[dict[str, Any]],
    settings: dict[str, Any],
    given: set[str],
    colours: dict[int, str],
    by_number: bool,
) -> bool:
    """Match classes to the truth on the first stage and measure all stages by that map, and each by its own best.

    Returns whether a name of `given`, which the user gave to classes, is one of the truth, so that names decide.
    """
    first = counts.names[0]
    n = len(table)
    totals = counts.truth[first].sum(axis=0)
    held_out = int(counts.held_out.sum())
    result["excluded"] |= {
        "truth_unlabelled": int(totals[UNLABELLED]) - held_out,
        "trained_on": int(totals[TRAINED_ON]),
        "held_out": held_out,
    }
    names = _truth_names(settings)
    values = sorted({int(v) for v in np.flatnonzero(totals[: MAX_TRUTH + 1])} | set(names))
    present = [value for value in values if totals[value] > 0]
    if not present:
        raise InputError(
            "truth",
            "no labelled voxel inside the field of view"
            + (" outside the training labels" if totals[TRAINED_ON] else "")
            + (" and the slices held out" if held_out else ""),
            "labelled voxels to compare with",
            "check that the truth belongs to this scan and that truth_map does not drop every value",
        )
    background = {int(value) for value in settings.get("background", [0])}
    truth = [
        {
            "value": value,
            "name": names.get(value, _default_name(value, value in background, colours)),
            "background": value in background,
            "voxels": int(totals[value]),
        }
        for value in values
    ]
    labels = [row["name"] for row in table]
    fixed = {}
    if by_number:
        places = {value: i for i, value in enumerate(present)}
        fixed = {i: places[row["clusters"][0]] for i, row in enumerate(table) if row["clusters"][0] in places}
    of_name = {names[value]: present.index(value) for value in present if names.get(value) in given}
    fixed |= {i: of_name[name] for i, name in enumerate(labels) if name in of_name}
    columns = [values.index(value) for value in present]
    by = "numbers" if by_number and not of_name else "names"
    mapping, method = metrics.match(counts.truth[first][:n, present], fixed)
    result["truth"] = truth
    result["matching"] = {
        "stage": first,
        "method": method.replace("names", by),
        "map": {label: truth[columns[target]]["name"] for label, target in zip(labels, mapping, strict=True)},
        "voxels": counts.truth[first][np.ix_([*range(n), UNLABELLED], values)].tolist(),
    }
    for row, target in zip(table, mapping, strict=True):
        row["truth"] = truth[columns[target]]["value"]
    result["best_map"] = {}
    for stage in result["stages"]:
        measured = _scores(counts.truth[stage], n, values, truth, [columns[target] for target in mapping])
        result["stages"][stage].update(measured)
        best, how = metrics.match(counts.truth[stage][:n, present], fixed)
        own = _scores(counts.truth[stage], n, values, truth, [columns[target] for target in best])
        result["best_map"][stage] = {key: own[key] for key in ("accuracy", "mean_iou", "mean_dice")} | {
            "method": how.replace("names", by),
            "map": {label: truth[columns[target]]["name"] for label, target in zip(labels, best, strict=True)},
        }
    return bool(of_name)


def _default_name(value: int, background: bool, colours: dict[int, str]) -> str:
    name = "background" if background else f"class {value}"
    return f"{name} {colours[value]}" if value in colours else name


def _scores(
    counts: np.ndarray, n: int, values: list[int], truth: list[dict[str, Any]], mapping: list[int]
) -> dict[str, Any]:
    confusion = metrics.apply_map(counts[:n, values], mapping)
    found = metrics.scores(confusion, counts[UNLABELLED, values], [entry["background"] for entry in truth])
    classes = {
        entry["name"]: {
            "iou": found["iou"][i],
            "dice": found["dice"][i],
            "voxels": found["voxels"][i],
            "predicted": int(confusion[i].sum()),
        }
        for i, entry in enumerate(truth)
    }
    return {key: found[key] for key in ("accuracy", "mean_iou", "mean_dice")} | {
        "classes": classes,
        "confusion": confusion.tolist(),
    }


def _ratio(part: Any, whole: Any, digits: int | None = None) -> float | None:
    if not whole:
        return None
    value = float(part) / float(whole)
    return value if digits is None else round(value, digits)
