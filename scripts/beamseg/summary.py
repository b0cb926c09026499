"""How every run of a workflow ended: a table on the terminal, `results/summary.csv` and `results/index.html`."""

from __future__ import annotations

import csv
import re
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

from .config import Run
from .ended import records_of
from .errors import InputError
from .job import alive
from .layers import PHANTOM
from .ledger import described, ledger
from .metrics import frame_line
from .metrics_table import stage_table
from .overview import verdicts_beside, write_overview
from .provenance import atomic_path, read_json
from .runs import ALL_STAGES, FRAME_STAGES, STAGES, Runs, is_assigned, is_images, is_imported

COLUMNS = ("sample", "stage", "state", "cause", "remedy", "log")
IN_FILE = (*COLUMNS, "warnings")
LEFT_OUT = "left out"
SHOWN_IN_FULL = 8


def run_state(runs: Runs, name: str, results: Path = Path("results"), logs: Path = Path("logs")) -> dict[str, str]:
    """State of one run: done, or the first of its stages that failed, was killed or did not finish.

    Records of stages and parts that the configuration no longer asks for are left out.
    """
    row = {"sample": name, "stage": "", "state": "done", "cause": "", "remedy": "", "log": ""}
    for stage in stages_of(runs.runs[name]):
        owned = {"release": "normalize", "methods": "bundle"}.get(stage, stage)
        who = runs.owner(owned, name) if owned in ALL_STAGES or owned == "apply" else name
        for entry in records_of(stage, who, logs):
            part = re.search(r"/\d+-of-(\d+)\.log$", entry["log"])
            if part and int(part[1]) != runs.runs[name].get("parts"):
                continue
            if entry["state"] != "done":
                return row | {"stage": stage} | _unfinished(entry)
            row["stage"] = stage
            top = results.parent
            # A job that was started again and died leaves its folder; one that is gone as a whole was archived.
            lost = [
                path for path in entry.get("outputs", []) if not (top / path).exists() and (top / path).parent.exists()
            ]
            if lost:
                return row | {
                    "state": "not finished",
                    "cause": f"{lost[0]} is not there: removed, or its job ended before it could write a log",
                    "remedy": "run the same command again; if it recurs, see .snakemake/log",
                    "log": entry["log"],
                }
    product = "geometry.csv" if is_images(runs.runs[name]) else "labels.json"
    if not all((results / name / each).exists() for each in (product, "metrics.json", "report.html")):
        return row | {"state": "not finished", "remedy": "run the same command again"}
    return row


def stages_of(run: Run) -> list[str]:
    """Stages that the configuration of a run asks for, in order."""
    if is_images(run):
        asked = [stage for stage in FRAME_STAGES if stage != "simulate_frames" or run.get("path") == PHANTOM]
        return [*asked, "record", "report_frames"]
    left_out = set()
    if run.get("path") != PHANTOM:
        left_out.add("simulate")
    if not is_assigned(run):
        left_out.add("assign")
    if run.get("stage3") == "none":
        left_out |= {"self_correct", "segment_stage3"}
    if "mpp" not in run.get("refine"):
        left_out.add("refine_mpp")
    if "scm" not in run.get("refine"):
        left_out |= {"train_scm", "refine_scm"}
    if not run.get("quantities.measure"):
        left_out.add("quantities")
    if run.get("keep") != "minimal":
        left_out.add("release")
    if run.get("parts") == 1:
        left_out.add("count")
    stages = [*STAGES, "methods", "report", "export", "quantities", "record", "release"]
    if run.get("bundle"):
        left_out |= {stage for stage in STAGES if is_imported(stage, run)}
        left_out |= set() if run.get("apply.adapt") else {"bundle", "methods"}
        stages.insert(stages.index("segment_stage2"), "compare")
        stages.insert(0, "apply")
    stages.insert(stages.index("evaluate"), "count")
    return [stage for stage in stages if stage not in left_out]


def _unfinished(entry: dict[str, Any]) -> dict[str, str]:
    """State, cause, remedy and log of a record that is not done."""
    if entry["state"] == "failed":
        return {key: str(entry[key]) for key in ("state", "cause", "remedy", "log")}
    if alive(entry):
        return {"state": "running", "log": entry["log"]}
    return {
        "state": "killed",
        "cause": "the job was killed (memory, time limit, or by hand)",
        "remedy": "run the same command again; if it recurs, raise memory or time",
        "log": entry["log"],
    }


def text_table(rows: Iterable[dict[str, str]], columns: tuple[str, ...], width: int) -> str:
    """Rows as aligned text; the last wide columns are cut so that a row fits `width` characters."""
    rows = list(rows)
    widths = {c: max(len(c), *(len(row[c]) for row in rows)) for c in columns}
    excess = sum(widths.values()) + 2 * len(columns) - width
    for column in ("cause", "remedy"):
        if excess > 0 and column in widths:
            cut = min(excess, max(0, widths[column] - 20))
            widths[column] -= cut
            excess -= cut
    lines = ["  ".join(c.ljust(widths[c]) for c in columns).rstrip()]
    for row in rows:
        cells = [row[c] if len(row[c]) <= widths[c] else row[c][: widths[c] - 1] + "…" for c in columns]
        lines.append("  ".join(cell.ljust(widths[c]) for c, cell in zip(columns, cells, strict=True)).rstrip())
    return "\n".join(lines)


def _print_drift(runs: Runs, results: Path, out: TextIO) -> None:
    """How far the scans that a bundle was applied to lie from it."""
    for name, run in runs.runs.items():
        path = results / name / "compare.json"
        if run.get("bundle") and path.exists():
            found = read_json(path)
            print(f"\n{name}: grey levels {found['distance']:.2%} of the range from the bundle's", file=out)
            print(*(f"{name}: WARNING: {text}" for text in found["warnings"]), sep="\n", file=out)


def _files_beside(runs: Runs, name: str, results: Path) -> dict[str, Path]:
    """What the verdicts of a run's report are made from, besides its metrics; of a bundle, as `apply` laid it out."""
    run = runs.runs[name]
    files = {"scan": results / runs.owner("ingest", name) / "scan.json"}
    for key, stage in (("plan", "plan"), ("classes", "pseudo_label")):
        folder = results / "groups" / runs.owner(stage, name)
        files[key] = (folder / "apply" if is_imported(stage, run) else folder) / f"{key}.json"
    if run.get("bundle"):
        files["compared"] = results / name / "compare.json"
    return files


def _warnings(folder: Path, beside: dict[str, Path]) -> str:
    """The verdicts against a run, a sentence each; none where it has no metrics yet, or is a movie."""
    path = folder / "metrics.json"
    result = read_json(path) if path.exists() else {}
    found = verdicts_beside(result, beside) if "product" in result else []
    return " ".join(text for kind, _, text in found if kind in ("bad", "warn"))


def _trained(runs: Runs, name: str, results: Path) -> Path:
    """Weights that the group of a run trained, or would have trained had it no bundle."""
    return results / "groups" / runs.owner("train", name) / "stage2.safetensors"


def conclude_runs(
    runs: Runs, *, failed: bool, left_out: Mapping[str, InputError] | None = None, results: Path = Path("results")
) -> None:
    """Write `results/summary.csv` and `results/index.html`, and print how every run ended and what it measured.

    `left_out` are rows of the table that are no runs, and why.
    """
    beside = {name: _files_beside(runs, name, results) for name in runs.runs}
    rows = [run_state(runs, name, results) for name in runs.runs]
    for name, error in (left_out or {}).items():
        why = {"cause": f"{error.where}: {error.found}", "remedy": error.remedy}
        rows.append({"sample": name, "stage": "", "state": LEFT_OUT, "log": "", **why})
        beside[name] = {}
    rows = [row | {"warnings": _warnings(results / row["sample"], beside[row["sample"]])} for row in rows]
    with atomic_path(results / "summary.csv") as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, IN_FILE)
        writer.writeheader()
        writer.writerows(rows)
    write_overview(results / "index.html", rows, beside, results)
    out = sys.stderr
    done = [row for row in rows if row["state"] == "done"]
    for row in done[:SHOWN_IN_FULL]:
        path = results / row["sample"] / "metrics.json"
        found = frame_line(read_json(path)) if is_images(runs.runs[row["sample"]]) else stage_table(read_json(path))
        print(f"\n{row['sample']}\n{found}", file=out)
        for entry in [] if is_images(runs.runs[row["sample"]]) else ledger(_trained(runs, row["sample"], results)):
            print(described(entry), file=out)
        print(f"report: {results / row['sample'] / 'report.html'}", file=out)
    _print_drift(runs, results, out)
    if failed or len(rows) > 1:
        print("\n" + text_table(rows, COLUMNS, shutil.get_terminal_size((160, 24)).columns), file=out)
    print(f"\n{len(done)} of {len(rows)} samples done; {results / 'summary.csv'}, {results / 'index.html'}", file=out)
