"""A study's file: cells of settings over seeds, checked, and written as a sample table."""

from __future__ import annotations

import csv
import difflib
import itertools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .config import TABLE_COLUMNS
from .errors import InputError
from .layers import PHANTOM, check, load_schema, merge, nested
from .provenance import atomic_path
from .strict_yaml import parse_yaml

SCALES = ("smoke", "cpu", "full")


@dataclass(frozen=True)
class Study:
    """A study file at one scale, checked.

    `base` is nested settings; `cells` name -> dotted key -> value, all of them; `chosen` the names run at this scale.
    """

    name: str
    scale: str
    title: str
    about: str
    base: dict[str, Any]
    cells: dict[str, dict[str, Any]]
    chosen: list[str]
    seeds: list[int]
    show: list[str]
    paper: dict[str, dict[str, float | None]]
    paper_note: str
    moves: bool


def known_studies(workdir: Path, basedir: Path) -> dict[str, Path]:
    """Name -> file of the studies of a working directory and the shipped ones; its own win."""
    folders = (basedir / "config" / "studies", workdir / "config" / "studies")
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.yaml"))}


def one_of(name: str, known: list[str], where: str) -> None:
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1)
    remedy = f"did you mean {near[0]!r}?" if near else "choose one of them"
    raise InputError(where, repr(name), f"one of {', '.join(known)}", remedy)


def expand(grid: dict[str, list[Any]], cells: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """All cells by name: every combination of the grid, named by its values, then the explicit ones.

    `{"model.n_slices": [1, 3]}` -> `{"1": {"model.n_slices": 1}, "3": {"model.n_slices": 3}}`.
    """
    combinations = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    named = {"-".join(map(str, keys.values())): keys for keys in combinations if keys}
    return {**named, **cells}


def load_study(path: Path, scale: str, basedir: Path) -> Study:
    """Read a study file at one scale.

    Raises
    ------
    InputError
        For whatever the file holds that its schema or the configuration's does not allow, naming the nearest key, and
        for a cell that a scale or the paper's numbers name and the study does not have.
    """
    where = str(path)
    own = yaml.safe_load((basedir / "workflow" / "schemas" / "studies" / "study.yaml").read_text())
    schema = load_schema(basedir / "workflow" / "schemas")
    try:
        entry = parse_yaml(path.read_text())
    except yaml.YAMLError as error:
        raise InputError(where, str(error), "YAML", "mend the syntax at that line") from error
    check(entry, own, where)
    check(entry["base"], schema, f"{where}: base")
    cells = expand(entry.get("grid", {}), entry.get("cells", {}))
    for name, keys in cells.items():
        check(_nest(keys), schema, f"{where}: cell {name!r}")
    one_of(scale, list(entry["scales"]), f"{where}: scales")
    for name, of_scale in entry["scales"].items():
        check(of_scale.get("set", {}), schema, f"{where}: scales.{name}.set")
        for cell in of_scale.get("cells", []):
            one_of(cell, list(cells), f"{where}: scales.{name}.cells")
    paper = _paper(entry.get("paper", {"columns": [], "rows": {}}), list(cells), entry["show"], f"{where}: paper")
    of_scale = entry["scales"][scale]
    base = merge(entry["base"], of_scale.get("set", {}))
    if "path" not in base:
        raise InputError(f"{where}: base", "no path", "`path: phantom` or a scan", "add `path`")
    for key in ("path", "truth"):
        if base.get(key) and base[key] != PHANTOM:
            base[key] = str((path.parent / base[key]).resolve())
    if (labels := base.get("labels", {})).get("path", PHANTOM) not in (None, PHANTOM):
        base["labels"] = {**labels, "path": str((path.parent / labels["path"]).resolve())}
    return Study(
        name=path.stem,
        scale=scale,
        title=entry["title"],
        about=" ".join(entry["about"].split()),
        base=base,
        cells=cells,
        chosen=of_scale.get("cells", list(cells)),
        seeds=of_scale["seeds"],
        show=entry["show"],
        paper=paper,
        paper_note=" ".join(entry.get("paper_note", "").split()),
        moves=entry.get("moves", False),
    )


def _paper(table: dict[str, Any], cells: list[str], show: list[str], where: str) -> dict[str, dict[str, float | None]]:
    """Cell -> what is shown -> the paper's number."""
    for column in table["columns"]:
        one_of(column, show, f"{where}.columns")
    for cell, numbers in table["rows"].items():
        one_of(cell, cells, f"{where}.rows")
        if len(numbers) != len(table["columns"]):
            found = f"{len(numbers)} numbers for {len(table['columns'])} columns"
            raise InputError(f"{where}.rows.{cell}", found, "a number per column", "write null where there is none")
    return {cell: dict(zip(table["columns"], numbers, strict=True)) for cell, numbers in table["rows"].items()}


def _nest(keys: dict[str, Any]) -> dict[str, Any]:
    layer: dict[str, Any] = {}
    for key, value in keys.items():
        layer = merge(layer, nested(key, value))
    return layer


def sample_name(cell: str, seed: int) -> str:
    """Name of the run of a cell with a seed."""
    return f"{cell}-seed{seed}"


def table_rows(study: Study) -> list[dict[str, str]]:
    """Rows of the sample table: one per cell and seed, cells as text that reads back as the same value.

    A seed is also that of a phantom, unless the study fixes it. Seeds are the outer loop, so that the first seed of
    every cell is run before the second of any.
    """
    rows = []
    for seed in study.seeds:
        for cell in study.chosen:
            keys = {"seed": seed, **study.cells[cell]}
            if study.base["path"] == PHANTOM and "seed" not in study.base.get("phantom", {}):
                keys = {"phantom.seed": seed, **keys}
            row = {"sample": sample_name(cell, seed), "path": study.base["path"]}
            rows.append(row | {key: as_text(key, value) for key, value in keys.items()})
    return rows


def as_text(column: str, value: Any) -> str:
    """A value as a cell of the sample table, which reads all but its own columns as YAML."""
    if column in TABLE_COLUMNS:
        return "" if value is None else str(value)
    if isinstance(value, str) and yaml.safe_load(value) == value:
        return value
    return json.dumps(value)


def write_workdir(study: Study, folder: Path) -> None:
    """Write `config/config.yaml` (the base) and `config/samples.tsv` (the cells) of the study's working directory."""
    config = folder / "config"
    config.mkdir(parents=True, exist_ok=True)
    rows = table_rows(study)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    base = {key: value for key, value in study.base.items() if key != "path"}
    with atomic_path(config / "config.yaml") as temporary:
        # Cells of one table are by one version of the program.
        settings = {"code": "tracked", **base, "samples": "config/samples.tsv"}
        temporary.write_text(yaml.safe_dump(settings, sort_keys=True))
    with atomic_path(config / "samples.tsv") as temporary, open(temporary, "w", newline="") as file:
        writer = csv.DictWriter(file, columns, delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
