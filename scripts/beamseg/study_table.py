"""What a study measured: metrics of its runs, mean and deviation over seeds, beside the paper's numbers."""

from __future__ import annotations

import csv
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from . import figures, plots
from .config import load_runs
from .ended import records
from .label_values import UNLABELLED
from .metrics import STAGES
from .palette import word_of
from .provenance import atomic_path, read_json
from .runs import Runs
from .slabs import SlabVolume
from .studies import Study, sample_name
from .summary import run_state

ANGLES = {"mse": "mean square error, °²,", "rmse": "root mean square error, °,", "bias": "bias, °,"}
WORDS = {"mean_iou": "mean IoU", "mean_dice": "mean Dice", "iou": "IoU", "dice": "Dice"}


@dataclass(frozen=True)
class Row:
    """A cell in the table: per thing shown its values over the seeds that have it, and how the cell ended."""

    cell: str
    values: dict[str, list[float]]
    state: str

    def mean(self, what: str) -> float | None:
        """Mean over seeds."""
        return statistics.fmean(self.values[what]) if self.values[what] else None

    def deviation(self, what: str) -> float | None:
        """Sample standard deviation over seeds (n - 1); None with fewer than two."""
        return statistics.stdev(self.values[what]) if len(self.values[what]) > 1 else None


def value_at(metrics: dict[str, Any], path: str) -> float | None:
    """A number of metrics.json by dotted path; None where it is absent."""
    value: Any = metrics
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return None if value is None else float(value)


def gather(study: Study, folder: Path, basedir: Path) -> list[Row]:
    """A row per cell, in %, in s for `seconds.<stage>`, in degrees for `angle`; cells not run or not done say so."""
    runs = Runs(load_runs(folder, basedir)[0])
    results, logs = folder / "results", folder / "logs"
    seconds = {(entry["stage"], entry["sample"]): entry.get("seconds") for entry in records(logs)}
    rows = []
    for cell in study.cells:
        values: dict[str, list[float]] = {what: [] for what in study.show}
        if cell not in study.chosen:
            rows.append(Row(cell, values, f"not run at scale {study.scale}"))
            continue
        notes: list[str] = []
        done = 0
        for seed in study.seeds:
            name = sample_name(cell, seed)
            state = run_state(runs, name, results, logs)
            if state["state"] != "done":
                cause = f": {state['cause']}" if state["cause"] else ""
                word = "after" if state["state"] == "not finished" else "at"
                at = f" {word} {state['stage']}" if state["stage"] else ""
                notes.append(f"seed {seed} {state['state']}{at}{cause}")
                continue
            done += 1
            metrics = read_json(results / name / "metrics.json")
            for what in study.show:
                kind, _, rest = what.partition(".")
                if kind == "seconds":
                    value = seconds.get((rest, runs.owner(rest, name)))
                elif kind == "confidence":
                    value = 100 * mean_confidence(results / runs.owner(f"segment_{rest}", name) / "segment" / rest)
                elif kind == "angle":
                    value = value_at(metrics, what)
                else:
                    where = f"stages.{metrics['product']['stage']}.{rest}" if kind == "product" else what
                    value = value_at(metrics, where)
                    value = None if value is None else 100 * value
                if value is not None:
                    values[what].append(value)
            notes += _warnings(metrics, seed)
        rows.append(Row(cell, values, "; ".join([f"{done} of {len(study.seeds)} seeds", *notes])))
    return rows


def mean_confidence(folder: Path) -> float:
    """Mean confidence of a network over the voxels that it labelled, 0 … 1, from the manifests of its labels."""
    manifests = sorted(folder.glob("*-of-*.json"))
    labels, confidence = SlabVolume(manifests, "labels"), SlabVolume(manifests, "confidence")
    total = count = 0
    for z in range(labels.shape[0]):
        inside = labels.read(z, z + 1) != UNLABELLED
        total += int(confidence.read(z, z + 1)[inside].sum(dtype=np.int64))
        count += int(inside.sum())
    return total / (255 * max(1, count))


def _warnings(metrics: dict[str, Any], seed: int) -> list[str]:
    notes = []
    if (metrics.get("verdict") or {}).get("use") == "stage2":
        notes.append(f"seed {seed}: the watch refused stage 3")
    product = metrics.get("product", {}).get("stage")
    last = next((name for name in ("scm", "mpp") if name in metrics["stages"]), product)
    if last != product:
        notes.append(f"seed {seed}: {STAGES[last]} was refused, the product is {STAGES[product]}")
    stage = "stage3" if "stage3" in metrics["stages"] else "stage2"
    if lost := metrics["lost_classes"].get(stage):
        which = ", ".join(lost) if len(lost) < 3 else f"{len(lost)} classes"
        notes.append(f"seed {seed}: {STAGES[stage]} lost {which}")
    return notes


def _parts(what: str) -> list[str]:
    """Dotted parts of what is shown; of `product.…` as of a stage of that name."""
    parts = what.split(".")
    return ["stages", *parts] if parts[0] == "product" else parts


def quantity(what: str) -> str:
    """What is measured, without the stage: `stages.stage3.classes.crack.iou` -> `IoU of crack`."""
    kind, stage, *rest = _parts(what)
    if kind == "seconds":
        return f"{stage}, s"
    if kind == "confidence":
        return kind
    if kind == "angle":
        return f"{ANGLES.get(stage, stage)} of the angle"
    words = WORDS.get(rest[-1], rest[-1])
    if rest[0] == "classes":
        words = f"{words} of {'.'.join(rest[1:-1])}"
    elif rest[0] == "fractions":
        words = f"share of {'.'.join(rest[1:])}"
    return f"{words}, own best map" if kind == "best_map" else words


def heading(what: str) -> str:
    """`stages.stage2.mean_iou` -> `stage 2 mean IoU`; `seconds.pseudo_label` -> `pseudo_label, s`."""
    kind, stage, *_ = _parts(what)
    return quantity(what) if kind in ("seconds", "angle") else f"{STAGES.get(stage, stage)} {quantity(what)}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _with_deviation(row: Row, what: str) -> str:
    mean, deviation = row.mean(what), row.deviation(what)
    if mean is None:
        return "–"
    return _number(mean) + (f" ± {_number(deviation)}" if deviation is not None else "")


def write_tables(study: Study, rows: list[Row], folder: Path) -> Path:
    """Write table.csv, .md, .png, .svg and, where the study asks, moves.csv and .png; the path of table.md.

    In the table every mean ± standard deviation has the paper's number beside it, where the paper has one.
    """
    in_paper = [what for what in study.show if any(row.get(what) is not None for row in study.paper.values())]
    with atomic_path(folder / "table.csv") as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        header = [f"{what} {kind}" for what in study.show for kind in ("n", "mean", "sd", "paper")]
        writer.writerow(["cell", *header, "state"])
        for row in rows:
            numbers: list[Any] = []
            for what in study.show:
                statistic = [row.mean(what), row.deviation(what), study.paper.get(row.cell, {}).get(what)]
                numbers += [len(row.values[what]), *("" if v is None else f"{v:.6g}" for v in statistic)]
            writer.writerow([row.cell, *numbers, row.state])

    columns: list[str] = []
    for what in study.show:
        columns += [heading(what), "paper"] if what in in_paper else [heading(what)]
    lines = [f"# {study.title}", "", study.about, ""]
    seeds = ", ".join(map(str, study.seeds))
    lines += [f"Scale `{study.scale}`, seeds {seeds}; in %, mean ± sample standard deviation over seeds."]
    lines += ["", f"| cell | {' | '.join(columns)} | state |", "|---" * (len(columns) + 2) + "|"]
    for row in rows:
        texts: list[str] = []
        for what in study.show:
            texts.append(_with_deviation(row, what))
            if what in in_paper:
                texts.append(_number(study.paper.get(row.cell, {}).get(what)))
        lines.append(f"| {row.cell} | {' | '.join(texts)} | {row.state.replace('|', '/')} |")
    if study.paper_note:
        lines += ["", f"Paper: {study.paper_note}"]
    if study.moves:
        lines += _moves(study, folder)
    with atomic_path(folder / "table.md") as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with figures.style():
        figure = plots.study(
            [row.cell for row in rows],
            {
                what: (quantity(what), heading(what), [(r.mean(what), r.deviation(what)) for r in rows])
                for what in study.show
            },
            {what: [study.paper.get(row.cell, {}).get(what) for row in rows] for what in in_paper},
        )
        figures.save(figure, folder / "table.png")
        figures.save_svg(figure, folder / "table.svg")
    return folder / "table.md"


def _moves(study: Study, folder: Path) -> list[str]:
    """moves.csv; of the first finished seed of each cell moves.png and, as Markdown, where the clusters ended."""
    lines: list[str] = []
    maps: dict[str, tuple[list[str], np.ndarray]] = {}
    word = ""
    with atomic_path(folder / "moves.csv") as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["run", "cluster", "class in stage 3", "voxels"])
        for cell in study.chosen:
            runs = [sample_name(cell, seed) for seed in study.seeds]
            found = [(run, folder / "results" / run / "metrics.json") for run in runs]
            done = [(run, read_json(path)) for run, path in found if path.exists()]
            done = [(run, metrics) for run, metrics in done if "stage3" in metrics["stages"]]
            for run, metrics in done:
                names = [row["name"] for row in metrics["classes"]] + ["unlabelled"]
                for cluster, counts in zip(names, metrics["stages"]["stage3"]["moves"], strict=True):
                    writer.writerows([run, cluster, name, n] for name, n in zip(names, counts, strict=True))
            if done:
                run, metrics = done[0]
                lines += _moves_table(run, metrics)
                names, word = [row["name"] for row in metrics["classes"]], word_of(metrics)
                voxels = np.array(metrics["stages"]["stage3"]["moves"], dtype=float)
                maps[run] = names, voxels[: len(names), : len(names)]
    if maps:
        with figures.style():
            figures.save(plots.moves(maps, word), folder / "moves.png")
    return lines


def _moves_table(run: str, metrics: dict[str, Any]) -> list[str]:
    names = [row["name"] for row in metrics["classes"]]
    word = word_of(metrics)
    lines = ["", f"{run}: where the voxels of each {word} ended in stage 3, % of the {word}.", ""]
    lines += [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for cluster, counts in zip(names, metrics["stages"]["stage3"]["moves"], strict=False):
        total = sum(counts)
        shares = [f"{100 * count / total:.1f}" if total else "" for count in counts[: len(names)]]
        lines.append(f"| {cluster} | {' | '.join(shares)} |")
    lost = {stage: ", ".join(metrics["lost_classes"].get(stage, [])) or "none" for stage in ("stage2", "stage3")}
    died = f"Died out in stage 2: {lost['stage2']}; in stage 3: {lost['stage3']}"
    return [*lines, "", f"{died} (less than a fifth of their voxels are left)."]
