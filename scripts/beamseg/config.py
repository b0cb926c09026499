"""Configuration: layers, each checked against the schema, merged once, defaults filled last.

schema defaults < preset < config.yaml < bundle < samples/<sample>.yaml < columns of the table < --config. Dicts merge,
lists replace. With `code: frozen` defaults and shipped presets are those of the group's first run (`kept_defaults`).
Nothing here knows a stage: what a section may hold is in `workflow/schemas/<section>.yaml`.
"""

from __future__ import annotations

import csv
import difflib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .annotations import FOLDER, files_of
from .bundle_files import read_index, settings_of
from .combinations import combine, without_training
from .errors import InputError
from .kept_defaults import EARLIER, Earlier
from .layers import check, defaults, flatten, load_schema, merge, nested, read_layer
from .strict_yaml import parse_yaml

TABLE_COLUMNS = ("sample", "path", "dataset", "labels", "truth", "group", "preset", "bundle")
BY_HAND = ("slices", "pixels")
"""Values of `label_source` with labels of volumes by their user."""
RESERVED = {"groups", "index.html", "preview", "summary.csv"}
"""What lies in `results/` beside the folders of samples, in lower case."""
NAME_LENGTH = 100
NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{NAME_LENGTH - 1}}}")


@dataclass(frozen=True)
class Run:
    """A row of the sample table with its effective configuration and, per key, the layer it came from."""

    name: str
    group: str
    settings: dict[str, Any]
    origins: dict[str, str]
    folder: Path
    """What relative paths of the table are relative to."""

    def file(self, key: str) -> Path | None:
        """A path of the table, resolved; None if it is empty."""
        value = self.get(key)
        return None if not value else self.folder / Path(str(value)).expanduser()

    def get(self, dotted: str) -> Any:
        """The value of a dotted key."""
        value: Any = self.settings
        for key in dotted.split("."):
            value = value[key]
        return value


def check_name(where: str | Path, what: str, name: str) -> None:
    """Refuse a name of a `sample` or `group` that no folder can have; samples lie beside what `RESERVED` names."""
    taken = RESERVED if what == "sample" else set[str]()
    if name.lower() in taken or not NAME.fullmatch(name):
        others = f", and none of: {', '.join(sorted(taken))}" if taken else ""
        raise InputError(
            where,
            f"{what} {name!r}",
            f"a name of a folder, of {NAME_LENGTH} characters at most{others}",
            "rename it: letters, digits, and then also dots, dashes and underscores",
        )


def _refuse_same_folder(where: str | Path, what: str, name: str, folders: dict[str, str]) -> None:
    """Names that differ in case alone have one folder on some file systems; `folders` holds those so far."""
    other = folders.setdefault(name.lower(), name)
    if other != name:
        remedy = "rename one of them, or write them alike"
        raise InputError(where, f"{what} {name!r} beside {other!r}", "names that differ in more than case", remedy)


def _check_groups(runs: dict[str, Run], table: Path) -> None:
    """Refuse groups of one folder, and a scan that would fall into a group which is only named as it is."""
    folders: dict[str, str] = {}
    given = {run.group: run.name for run in runs.values() if run.get("group")}
    for run in runs.values():
        _refuse_same_folder(f"{table}, sample {run.name!r}", "group", run.group, folders)
        if not run.get("group") and run.name in given:
            raise InputError(
                f"{table}, sample {run.name!r}",
                f"no group, and sample {given[run.name]!r} in a group {run.name!r}",
                "a group of its own for a scan without one",
                f"write group {run.name} in its row too, if they share a model; else rename the group",
            )


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of the sample table, tab-separated; empty cells, and lines and columns that begin with #, are left out.

    Raises
    ------
    InputError
        For a missing file, a missing column `sample` or `path`, a row without a path, a name given twice or reserved.
    """
    if not path.exists():
        raise InputError(path, "no such file", "a sample table", "run `beamseg init FOLDER` to write one")
    lines = [line for line in path.read_text().split("\n") if line.strip() and not line.startswith("#")]
    reader = csv.DictReader(lines, delimiter="\t")
    header = reader.fieldnames or []
    for column in ("sample", "path"):
        if column not in header:
            raise InputError(path, f"columns {header}", f"a column {column!r}", "separate columns by tabs")
    rows: list[dict[str, str]] = []
    names: dict[str, int] = {}
    folders: dict[str, str] = {}
    for number, row in enumerate(reader, start=1):
        if None in row:
            raise InputError(
                f"{path}, row {number}", "more cells than columns", "one cell per column", "count the tabs"
            )
        cells = {
            key: value.strip() for key, value in row.items() if value and value.strip() and not key.startswith("#")
        }
        name = cells.get("sample", "")
        if name in names:
            raise InputError(
                path, f"sample {name!r} in rows {names[name]} and {number}", "a name given once", "rename one of them"
            )
        check_name(f"{path}, row {number}", "sample", name)
        _refuse_same_folder(f"{path}, row {number}", "sample", name, folders)
        if "path" not in cells:
            raise InputError(
                f"{path}, row {number}",
                f"sample {name!r} without a path",
                "the path of a scan",
                "fill in the cell `path`, or put # before the row to leave it out",
            )
        names[name] = number
        rows.append(cells)
    return rows


def row_layer(row: dict[str, str], schema: dict[str, Any], where: str) -> dict[str, Any]:
    """Cells of a row as a layer: dotted columns nest; `labels` is `labels.path`; values are read as YAML."""
    layer: dict[str, Any] = {}
    for column, text in row.items():
        key = "labels.path" if column == "labels" else column
        try:
            value = text if column in TABLE_COLUMNS else parse_yaml(text)
        except yaml.YAMLError as error:
            raise InputError(f"{where}: {column}", repr(text), "a value in YAML", "mend the cell") from error
        layer = merge(layer, nested(key, value))
    check(layer, schema, where)
    return layer


def _config_file(workdir: Path, basedir: Path) -> Path:
    own = workdir / "config" / "config.yaml"
    return own if own.exists() else basedir / "config" / "config.yaml"


def common_settings(workdir: Path, basedir: Path) -> dict[str, Any]:
    """What config.yaml says, the rest as the schema has it; no table is needed."""
    schema = load_schema(basedir / "workflow" / "schemas")
    return dict(merge(defaults(schema), read_layer(_config_file(workdir, basedir), schema)))


def load_runs(
    workdir: str | Path, basedir: str | Path, overrides: dict[str, Any] | None = None, *, lenient: bool = False
) -> tuple[dict[str, Run], dict[str, Any]]:
    """All runs of a working directory, and the configuration common to them.

    Where `lenient`, or with `only`, a row that `only` does not name, and whose bundle cannot be read, is left out:
    `left_out` of the common configuration, sample -> InputError.

    Parameters
    ----------
    workdir : path
        Its `config/` serves if it is there, else the one shipped in `basedir`.
    basedir : path
        Where the Snakefile lies.
    overrides : dict, optional
        The command line's `--config`, the topmost layer.

    Raises
    ------
    InputError
        For whatever a layer holds that the schema does not allow.
    """
    workdir, basedir = Path(workdir), Path(basedir)
    schema = load_schema(basedir / "workflow" / "schemas")
    top = json.loads(json.dumps(overrides or {}))  # keys as parse_yaml has them
    check(top, schema, "--config")
    shipped = basedir / "config"
    config_file = _config_file(workdir, basedir)
    base = read_layer(config_file, schema)
    common = merge(merge(defaults(schema), base), top)
    table = config_file.parent.parent / common["samples"]
    runs: dict[str, Run] = {}
    kept: dict[str, dict[str, Any] | None] = {}
    earlier = Earlier(schema, shipped / "presets")
    rows = read_table(table)
    if lost := set(common["only"]) - {row["sample"] for row in rows}:
        raise InputError("only", ", ".join(sorted(lost)), f"samples of {table}", "check the names")
    left_out: dict[str, InputError] = {}
    for row in rows:
        name = row["sample"]
        where = f"{table}, sample {name!r}"
        of_row = row_layer(row, schema, where)
        own_file = table.parent / "samples" / f"{name}.yaml"
        of_sample = read_layer(own_file, schema) if own_file.exists() else {}
        layers = [(str(config_file), base), (str(own_file), of_sample), (str(table), of_row), ("--config", top)]
        index = None
        bundle = next((layer["bundle"] for _, layer in reversed(layers) if layer.get("bundle")), None)
        if bundle is not None:
            try:
                index = read_index(table.parent / Path(bundle).expanduser())
                of_bundle = settings_of(index, schema)
                check(of_bundle, schema, f"bundle {bundle}")
            except InputError as error:
                if name in common["only"] or not (common["only"] or lenient):
                    raise
                left_out[name] = error
                continue
            layers.insert(1, (f"bundle {bundle}", of_bundle))
        folders = (workdir / "config" / "presets", shipped / "presets")
        settings, origins = _merged(layers, schema, folders)
        group = settings["group"] or name
        if group not in kept:  # as its first run says
            frozen = settings["code"] == "frozen" and NAME.fullmatch(group)
            kept[group] = earlier(workdir / "results" / "groups" / group) if frozen else None
        if (then := kept[group]) is not None:
            now = dict(flatten(settings))
            settings, origins = _merged(layers, schema, folders, then)
            moved = {key: value for key, value in flatten(settings) if now.get(key, value) != value}
            origins |= {key: f"{EARLIER}{now[key]!r}" for key in moved}
        own = workdir.resolve() / FOLDER / name
        if index is not None:
            without_training(settings, origins, index, where)
        elif settings["label_source"] in BY_HAND and not settings["labels"]["path"] and files_of(own):
            settings = merge(settings, {"labels": {"path": str(own)}})
            origins["labels.path"] = f"{FOLDER}/{name}"
        combine(settings, origins, where)
        runs[name] = Run(name, settings["group"] or name, settings, origins, table.parent)
    if not runs:
        raise InputError(table, "no samples", "a row per scan", "run `beamseg init FOLDER` to write them")
    _check_groups(runs, table)
    return runs, {**common, "left_out": left_out}


def _merged(
    layers: list[tuple[str, dict[str, Any]]],
    schema: dict[str, Any],
    folders: tuple[Path, Path],
    kept: dict[str, Any] | None = None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Settings and, per dotted key, the layer they come from; `kept` are defaults and presets of an earlier version."""
    kept = kept or {"defaults": {}, "presets": {}}
    settings = merge(defaults(schema), kept["defaults"])
    preset = next((layer["preset"] for _, layer in reversed(layers) if "preset" in layer), settings["preset"])
    if preset:
        own = (folders[0] / f"{preset}.yaml").exists()
        then = None if own else kept["presets"].get(preset)
        layers = [(f"preset {preset}", then or _preset(preset, folders, schema)), *layers]
    origins = {key: "default" for key, _ in flatten(settings)}
    for layer_name, layer in layers:
        settings = merge(settings, layer)
        origins.update({key: layer_name for key, _ in flatten(layer)})
    return settings, origins


def _preset(name: str, folders: tuple[Path, Path], schema: dict[str, Any]) -> dict[str, Any]:
    for folder in folders:
        path = folder / f"{name}.yaml"
        if path.exists():
            return read_layer(path, schema)
    known = sorted(path.stem for path in folders[1].glob("*.yaml"))
    near = difflib.get_close_matches(name, known, n=1)
    raise InputError(
        "preset",
        repr(name),
        f"one of {', '.join(known)}",
        f"did you mean {near[0]!r}?" if near else "choose one of them",
    )
