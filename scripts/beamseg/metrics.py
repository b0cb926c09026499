"""Metrics from additive confusion counts: chunks, slabs and parts sum exactly, ratios are taken once, at the end.

What the numbers mean, everywhere in this project:

- **accuracy** is over voxels whose truth is a class other than background: the share that got their class.
- **IoU and Dice** of a class are over all of the field of view, so a background voxel called by the class's name is a
  false positive.
- **mean IoU and mean Dice** are over the classes that are not background and have voxels in the truth.
- A class **absent** from the truth has no IoU and no Dice (None, not 0 and not 1) and no part in the means; voxels
  given to it count as errors of the classes they were taken from.
- A voxel inside the field of view that a stage left **unlabelled** is an error, not an exclusion, so that all stages
  are measured on the same voxels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

STAGES = {"pseudo_labels": "pseudo-labels", "stage2": "stage 2", "stage3": "stage 3", "mpp": "MPP", "scm": "SCM"}


def joint_counts(images: Sequence[np.ndarray], sizes: Sequence[int], weights: np.ndarray | None = None) -> np.ndarray:
    """Count how often values meet in images of whole numbers of one shape; image k holds values below `sizes[k]`.

    Returns
    -------
    ndarray, int64 (float64 with `weights`, which are summed), of shape `sizes`
    """
    index = images[0].astype(np.uint32)
    for image, size in zip(images[1:], sizes[1:], strict=True):
        index *= np.uint32(size)
        index += image
    weights = None if weights is None else weights.ravel()
    return np.bincount(index.ravel(), weights, math.prod(sizes)).reshape(sizes)


def contingency(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Count the pairs of values of two uint8 arrays of the same shape.

    Returns
    -------
    ndarray, int64, (256, 256)
        `counts[a, b]` is the number of elements with `first == a` and `second == b`. Sums of the counts of pieces
        are the counts of the whole.
    """
    return joint_counts([first, second], [256, 256])


def disputed(labels: list[np.ndarray]) -> np.ndarray:
    """Where not all label images agree, bool (y, x)."""
    found = np.zeros(labels[0].shape, bool)
    for label in labels[1:]:
        found |= label != labels[0]
    return found


def iou_matrix(counts: np.ndarray, unlabelled: np.ndarray | None = None) -> np.ndarray:
    """IoU of every label with every class, from counts (labels, classes); 0 where both are empty.

    `unlabelled` (classes,) are voxels of each class that bear no label: they belong to the classes' sizes.
    """
    sizes = counts.sum(axis=0) + (0 if unlabelled is None else unlabelled)
    union = counts.sum(axis=1)[:, None] + sizes[None, :] - counts
    return np.divide(counts, union, out=np.zeros(counts.shape), where=union > 0)


def match(counts: np.ndarray, fixed: dict[int, int] | None = None) -> tuple[list[int], str]:
    """Which class each label stands for.

    Parameters
    ----------
    counts : ndarray, (labels, classes)
        Voxels with the label and the class; only classes that are present.
    fixed : dict, optional
        Label -> class where the configuration says so by name.

    Returns
    -------
    list of int, str
        The class of each label, and the method:

        - ``hungarian``, when there are as many labels as classes: the one-to-one map with the highest sum of IoU.
          IoU, not overlap: the sum of overlaps is the accuracy, which gives up a rare class for a per cent of a large
          one; in the sum of IoU all classes weigh the same.
        - ``many to one`` otherwise: each label starts at the class with most of its voxels, then labels move, one at
          a time, while a move raises the mean IoU of the merged classes. The start alone would lose a rare class
          whose label holds more voxels of a large class than of its own; the share of the class would instead let a
          rare class take a large label of which it is a hundredth.
        - ``names``, when `fixed` names all labels; ``names, then many to one`` when it names some.
    """
    n_labels, n_classes = counts.shape
    fixed = fixed or {}
    if not fixed and n_labels == n_classes:
        from scipy.optimize import linear_sum_assignment  # half a second, of all who count

        rows, columns = linear_sum_assignment(iou_matrix(counts), maximize=True)
        return [int(c) for _, c in sorted(zip(rows, columns, strict=True))], "hungarian"
    mapping = [fixed.get(label, int(np.argmax(counts[label]))) for label in range(n_labels)]
    free = [label for label in range(n_labels) if label not in fixed]
    best = _mean_iou(counts, mapping)
    moved = True
    while moved:
        moved = False
        for label in free:
            for target in range(n_classes):
                trial = [*mapping[:label], target, *mapping[label + 1 :]]
                value = _mean_iou(counts, trial)
                if value > best + 1e-12:
                    mapping, best, moved = trial, value, True
    method = "many to one" if not fixed else "names" if not free else "names, then many to one"
    return mapping, method


def _mean_iou(counts: np.ndarray, mapping: list[int]) -> float:
    return float(np.diagonal(iou_matrix(apply_map(counts, mapping))).mean())


def apply_map(counts: np.ndarray, mapping: list[int]) -> np.ndarray:
    """Counts (labels, classes) with labels replaced by their classes: (classes, classes)."""
    n_classes = counts.shape[1]
    merged = np.zeros((n_classes, n_classes), dtype=counts.dtype)
    np.add.at(merged, np.asarray(mapping, dtype=int), counts)
    return merged


def scores(confusion: np.ndarray, unlabelled: np.ndarray, background: list[bool]) -> dict[str, Any]:
    """Accuracy, IoU and Dice from one confusion matrix.

    Parameters
    ----------
    confusion : ndarray, (classes, classes)
        `confusion[predicted, truth]`, over all of the field of view.
    unlabelled : ndarray, (classes,)
        Voxels of each class that the stage left without a label.
    background : list of bool
        Per class.

    Returns
    -------
    dict
        accuracy, mean_iou, mean_dice (None where nothing is there to measure) and per class: lists iou, dice, voxels.
        Definitions: the head of this module.
    """
    true_positive = np.diagonal(confusion).astype(float)
    truth = (confusion.sum(axis=0) + unlabelled).astype(float)
    predicted = confusion.sum(axis=1).astype(float)
    foreground = ~np.asarray(background, dtype=bool)
    present = truth > 0
    # A present class makes both denominators positive.
    union, total = truth + predicted - true_positive, truth + predicted
    iou = [float(true_positive[c] / union[c]) if present[c] else None for c in range(len(truth))]
    dice = [float(2 * true_positive[c] / total[c]) if present[c] else None for c in range(len(truth))]
    counted = [c for c in range(len(truth)) if foreground[c] and present[c]]
    return {
        "accuracy": float(true_positive[counted].sum() / truth[counted].sum()) if counted else None,
        "mean_iou": float(np.mean([iou[c] for c in counted])) if counted else None,
        "mean_dice": float(np.mean([dice[c] for c in counted])) if counted else None,
        "iou": iou,
        "dice": dice,
        "voxels": [int(v) for v in truth],
    }


def agreement(pairs: np.ndarray) -> dict[str, Any]:
    """How far two stages agree, from counts (n + 1, n + 1) of their labels, the last row and column unlabelled.

    Returns
    -------
    dict
        equal: share of the voxels labelled by either that bear the same label (None if there are none); classes: per
        label the voxels that both give it over those that either does (None if neither does).
    """
    same = np.diagonal(pairs)[:-1].astype(float)
    either = pairs.sum() - pairs[-1, -1]
    union = pairs.sum(axis=1)[:-1] + pairs.sum(axis=0)[:-1] - same
    return {
        "equal": float(same.sum() / either) if either else None,
        "classes": [float(s / u) if u else None for s, u in zip(same, union, strict=True)],
    }


def stage_names(result: dict[str, Any]) -> list[str]:
    """The stages of what `evaluate` found, in the order of the pipeline, which JSON does not keep."""
    return [name for name in STAGES if name in result["stages"]]


def stage_rows(result: dict[str, Any]) -> list[list[str]]:
    """The table of stages as text, header first, from what `evaluate` found.

    With truth: accuracy, mean IoU and mean Dice, and the gains over the first stage, relative. Without: fractions of
    the classes and the share of voxels with the same class as in the first stage.
    """
    names = stage_names(result)
    first = names[0]
    if result["has_truth"]:
        rows = [["stage", "accuracy", "gain", "mean IoU", "gain", "mean Dice"]]
        base = result["stages"][first]
        for name in names:
            stage = result["stages"][name]
            row = [STAGES[name]]
            for key in ("accuracy", "mean_iou"):
                row += [percent(stage[key]), "" if name == first else relative_gain(stage[key], base[key])]
            rows.append([*row, percent(stage["mean_dice"])])
        return rows
    classes = [row["name"] for row in result["classes"]]
    equal = {tuple(entry["stages"]): entry["equal"] for entry in result["agreement"]}
    rows = [["stage", *classes, f"same as {STAGES[first]}"]]
    for name in names:
        fractions = result["stages"][name]["fractions"]
        same = "" if name == first else percent(equal[first, name])
        rows.append([STAGES[name], *(percent(fractions[c]) for c in classes), same])
    return rows


def frame_line(metrics: dict[str, Any]) -> str:
    """What `evaluate_frames` found, in a line."""
    if not metrics["stages"]:
        return "no frame was kept for the test"
    found, angle = metrics["stages"]["frames"], metrics["angle"]
    text = f"{len(metrics['frames'])} test frames: mean IoU {percent(found['mean_iou'])}, "
    text += f"mean Dice {percent(found['mean_dice'])}, accuracy {percent(found['accuracy'])}"
    return text + (f", mean square error of the angle {angle['mse']:.2f} °²" if angle else "")


def percent(value: float | None) -> str:
    """`0.12345` -> `12.35 %`; None -> `–`."""
    return "–" if value is None else f"{100 * value:.2f} %"


def relative_gain(value: float | None, base: float | None) -> str:
    """Relative gain over a base in per cent, signed; `–` where there is none."""
    return "–" if value is None or not base else f"{100 * (value / base - 1):+.2f} %"
