"""disagree: runs of a scan that differ in the seed alone; where their labels differ, and how much their numbers."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import t as student

from .config import Run, load_runs
from .errors import InputError
from .finished import Finished, open_finished
from .label_values import UNLABELLED
from .layers import flatten
from .metrics import percent
from .provenance import atomic_path, identity, read_json, write_json
from .runs import STAGES, Runs
from .slabs import ALIGN, SlabWriter, default_depth, run_slabs
from .volumes import Volume

DEFINITIONS = {
    "interval": "95 % of the mean over seeds by Student's t; a single seed scatters by the standard deviation",
    "votes": "mean share of the runs that give a voxel its most frequent class",
    "unanimous": "share of the voxels to which all runs give the same class",
    "pairs": "mean over pairs of runs of the share of voxels with the same class",
}
ONE_SEED = "seeds measure the training's luck, not what all runs have wrong alike: see validate"


def replicates(runs: Runs, name: str) -> list[str]:
    """Runs of the same input and settings as `name`, itself first, that differ in the seed."""
    return [name, *(other for other in runs.runs if other != name and _difference(runs, name, other) is None)]


def _read(run: Run) -> dict[str, Any]:
    """Every key of the configuration that a result depends on, but the seed."""
    keys = {key for stage in STAGES.values() for key in stage.settings} - {"seed", "path"}
    return dict(flatten({key: run.get(key) for key in sorted(keys)}))


def _difference(runs: Runs, one: str, other: str) -> str | None:
    """What parts two runs beside the seed, in words; None if nothing does."""
    if runs.source(one) != runs.source(other):
        return "another scan"
    first, second = _read(runs.runs[one]), _read(runs.runs[other])
    for key in sorted(first.keys() | second.keys()):
        if first.get(key) != second.get(key):
            return f"{key}: {first.get(key)!r} and {second.get(key)!r}"
    return None


def check(runs: Runs, names: list[str]) -> None:
    """Raise InputError unless the runs are of one scan and differ in the seed, and in nothing else."""
    for name in names:
        if name not in runs.runs:
            raise InputError("sample", repr(name), f"one of {', '.join(runs.runs)}", "see the sample table")
    remedy = "add rows with the same path and another `seed` to the sample table, each in a group of its own"
    if len(names) < 2:
        raise InputError(f"sample {names[0]!r}", "no row that differs in the seed alone", "two runs or more", remedy)
    for name in names[1:]:
        if (found := _difference(runs, names[0], name)) is not None:
            raise InputError(f"samples {names[0]!r} and {name!r}", found, "runs that differ in the seed alone", remedy)
    seeds = [runs.runs[name].get("seed") for name in names]
    if len(set(seeds)) < len(seeds):
        raise InputError(f"samples {', '.join(names)}", f"seeds {seeds}", "a seed for each", remedy)


def count_votes(labels: np.ndarray, n_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Most frequent class and how many runs give it.

    Parameters
    ----------
    labels : ndarray, uint8, (runs, …)
        Class ids; 255 gives no vote.

    Returns
    -------
    winner, votes : ndarray, uint8, (…)
        The class, of several equally frequent ones the lowest; 255 and 0 where no run gives one.
    """
    winner = np.full(labels.shape[1:], UNLABELLED, np.uint8)
    votes = np.zeros(labels.shape[1:], np.uint8)
    for index in range(n_classes):
        mine = (labels == index).sum(axis=0, dtype=np.uint8)
        more = mine > votes
        winner[more], votes[more] = index, mine[more]
    return winner, votes


def limits(quantity: str) -> tuple[float, float]:
    """What a reported number can be: shares and scores 0 … 1, an Euler number anything, all others 0 or more."""
    if quantity.endswith(".euler"):
        return -math.inf, math.inf
    is_share = not quantity.startswith("quantities") or "fraction" in quantity.split(".", 2)[-1]
    return 0.0, 1.0 if is_share else math.inf


def spread(values: list[float], least: float = -math.inf, most: float = math.inf) -> dict[str, Any]:
    """Mean, sample standard deviation, extremes and the 95 % t-interval of the mean, of two values or more.

    The interval ends where the quantity does, at `least` and `most`.
    """
    n = len(values)
    mean = math.fsum(values) / n
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    half = float(student.ppf(0.975, n - 1)) * deviation / math.sqrt(n)
    return {
        "values": values,
        "mean": mean,
        "standard_deviation": deviation,
        "lowest": min(values),
        "highest": max(values),
        "interval": [max(least, mean - half), min(most, mean + half)],
    }


def reported(done: Finished) -> dict[str, float]:
    """Every number that a run reports of its product: fractions, scores where there is truth, quantities if there."""
    stage = done.metrics["stages"][done.metrics["product"]["stage"]]
    found: dict[str, Any] = {"fraction": stage["fractions"]}
    found |= {key: stage.get(key) for key in ("accuracy", "mean_iou", "mean_dice")}
    for score in ("iou", "dice"):
        found[score] = {name: entry[score] for name, entry in stage.get("classes", {}).items()}
    path = done.folder / "quantities.json"
    if path.exists():
        quantities = read_json(path)
        skip = {"id", "name", "colour", "clusters"}
        rows = quantities.get("classes", [])
        found["quantities"] = {row["name"]: {k: v for k, v in row.items() if k not in skip} for row in rows}
        found["interfaces"] = {" to ".join(row["classes"]): row["area"] for row in quantities.get("interfaces", [])}
    return dict(_numbers(found))


def _numbers(value: Any, at: str = "") -> Iterator[tuple[str, float]]:
    """Dotted place and value of every finite number in a nested dict; lists are left out."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from _numbers(entry, f"{at}.{key}" if at else str(key))
    elif isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        yield at, float(value)


def vote_map(labels: list[Volume], names: list[str], manifest: Path, task: str) -> dict[str, Any]:
    """Write the map of votes as slabs, and sum up the agreement; eight slices of each run are held at a time.

    Parameters
    ----------
    labels : list of Volume
        uint8 class ids per run, 255 is unlabelled.
    names : list of str
        Of the classes.
    manifest : path
        Slabs go beside it: `labels`, the most frequent class, 255 where there is none; `votes`, the share of the runs
        that give it, 0 … 255 for 0 … 1.
    task : str
        Identity; finished slabs that bear it are kept.

    Returns
    -------
    dict
        votes, unanimous, pairs (shares of the labelled voxels) and `classes`: votes and unanimous by winning class.
    """
    n, runs = len(names), len(labels)
    shape = labels[0].shape

    def fill(z0: int, z1: int, writer: SlabWriter) -> None:
        # Voxels by winning class and number of votes; pairs of runs that agree; labelled voxels.
        counts, agree, inside = np.zeros((n, runs + 1), np.int64), 0, 0
        for z in range(z0, z1, ALIGN):
            block = np.stack([volume.read(z, min(z + ALIGN, z1)) for volume in labels])
            winner, votes = count_votes(block, n)
            given = winner != UNLABELLED
            pairs = winner[given].astype(np.int64) * (runs + 1) + votes[given]
            counts += np.bincount(pairs, minlength=counts.size).reshape(counts.shape)
            inside += int(given.sum())
            for i in range(runs):
                for j in range(i):
                    agree += int(((block[i] == block[j]) & (block[i] != UNLABELLED)).sum())
            writer.put("labels", z, winner)
            writer.put("votes", z, np.rint(votes * (255 / runs)).astype(np.uint8))
        writer.notes.update(counts=counts.tolist(), agree=agree, voxels=inside)

    dtypes = {"labels": np.uint8, "votes": np.uint8}
    depth = default_depth(shape)
    written = run_slabs(manifest, stage="disagree", identity=task, shape=shape, depth=depth, dtypes=dtypes, fill=fill)
    notes = [slab["notes"] for slab in written["slabs"]]
    counts = np.sum([note["counts"] for note in notes], axis=0)
    agree, inside = (sum(note[key] for note in notes) for key in ("agree", "voxels"))
    shares = np.arange(runs + 1) / runs

    def summed(rows: np.ndarray) -> dict[str, float | None]:
        total = rows.sum()
        return {
            "votes": float(rows @ shares / total) if total else None,
            "unanimous": float(rows[-1] / total) if total else None,
        }

    result: dict[str, Any] = summed(counts.sum(axis=0))
    result["pairs"] = agree / (inside * runs * (runs - 1) / 2) if inside else None
    result["classes"] = {name: summed(row) for name, row in zip(names, counts, strict=True)}
    return result


def compare_runs(done: list[Finished], seeds: list[int]) -> dict[str, Any]:
    """Write `disagree/` beside the first run's results: the map, `disagree.json` (returned) and `disagree.csv`.

    Raises
    ------
    InputError
        If the runs have other classes or shapes, or their labels cannot be read.
    """
    first = done[0]
    for other in done[1:]:
        for what, mine, theirs in (
            ("classes", first.names, other.names),
            ("shape", list(first.product.shape), list(other.product.shape)),
        ):
            if mine != theirs:
                raise InputError(
                    f"samples {first.run.name!r} and {other.run.name!r}",
                    f"{what} {mine} and {theirs}",
                    "runs of one scan and class table",
                    "run the workflow again, so that both are of the present configuration",
                )
    folder = first.folder / "disagree"
    task = identity("beamseg/disagree", seeds, {run.run.name: run.folder / "metrics.json" for run in done})
    agreement = vote_map([run.product for run in done], first.names, folder / "1-of-1.json", task)
    numbers = [reported(run) for run in done]
    shared = [key for key in numbers[0] if all(key in other for other in numbers)]
    found_over_seeds = {key: spread([found[key] for found in numbers], *limits(key)) for key in shared}
    result = {
        "runs": [
            {"sample": run.run.name, "seed": seed, "product": run.metrics["product"]["stage"]}
            for run, seed in zip(done, seeds, strict=True)
        ],
        "agreement": agreement,
        "reported": found_over_seeds,
        "notes": _notes(done, numbers),
        "definitions": DEFINITIONS,
    }
    write_json(folder / "disagree.json", result)
    header = ["quantity", "mean", "standard_deviation", "low", "high", "lowest", "highest"]
    with atomic_path(folder / "disagree.csv") as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(header)
        for key, entry in found_over_seeds.items():
            middle = [entry[name] for name in ("mean", "standard_deviation")]
            table.writerow([key, *middle, *entry["interval"], entry["lowest"], entry["highest"]])
    return result


def _notes(done: list[Finished], numbers: list[dict[str, float]]) -> list[str]:
    notes = [ONE_SEED]
    products = {run.run.name: run.metrics["product"]["stage"] for run in done}
    if len(set(products.values())) > 1:
        notes.append(f"the products are of several stages: {', '.join(f'{k} {v}' for k, v in products.items())}")
    if lost := sorted({key for found in numbers for key in found if any(key not in other for other in numbers)}):
        notes.append(f"not reported by every run, and left out: {', '.join(lost)}")
    return notes


def text_of(result: dict[str, Any]) -> str:
    """Agreement and intervals for the terminal; quantities that are shares in per cent."""
    found = result["agreement"]
    who = ", ".join(f"{run['sample']} (seed {run['seed']})" for run in result["runs"])
    lines = [
        f"{len(result['runs'])} runs: {who}",
        f"all give a voxel the same class in {percent(found['unanimous'])}, two of them in {percent(found['pairs'])}",
    ]
    rows = [["class", "unanimous", "mean share of votes"]]
    rows += [[name, percent(e["unanimous"]), percent(e["votes"])] for name, e in found["classes"].items()]
    lines += _aligned(rows)
    rows = [["quantity", "mean", "sd", "95 % of the mean", "lowest", "highest"]]
    for key, entry in result["reported"].items():
        show: Callable[[float], str] = "{:.4g}".format if key.startswith("quantities") else percent
        low, high = (show(v) for v in entry["interval"])
        middle = [show(entry[name]) for name in ("mean", "standard_deviation")]
        rows.append([key, *middle, f"{low} … {high}", show(entry["lowest"]), show(entry["highest"])])
    return "\n".join([*lines, *_aligned(rows), *(f"note: {note}" for note in result["notes"])])


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def disagree(workdir: Path, basedir: Path, names: list[str]) -> str:
    """The command; what to print.

    Parameters
    ----------
    names : list of str
        Finished runs; or one, with which all runs go that differ from it in the seed alone.

    Raises
    ------
    InputError
        If there are fewer than two, they differ in more than the seed, or one of them is not finished.
    """
    runs = Runs(load_runs(workdir, basedir)[0])
    chosen = replicates(runs, names[0]) if len(names) == 1 and names[0] in runs.runs else names
    check(runs, chosen)
    done = [open_finished(runs, name, workdir / "results") for name in chosen]
    result = compare_runs(done, [runs.runs[name].get("seed") for name in chosen])
    return f"{text_of(result)}\nmap: {done[0].folder / 'disagree'}"
