"""Configuration: layers, each checked against the schema, merged once, defaults filled last.

schema defaults < preset < config.yaml < bundle < samples/<sample>.yaml < columns of the table < --config. Dicts merge,
lists replace. Nothing here knows a stage: what a section may hold is in `workflow/schemas/<section>.yaml`.
"""

from __future__ import annotations

import copy
import csv
import difflib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from .annotations import FOLDER, files_of
from .bundle_files import read_index, settings_of
from .errors import InputError
from .palette import class_table, word_for
from .strict_yaml import parse_yaml

TABLE_COLUMNS = ("sample", "path", "dataset", "labels", "truth", "group", "preset", "bundle")
PHANTOM = "phantom"
BY_HAND = ("slices", "pixels")
"""Values of `label_source` with labels of volumes by their user."""
RESERVED = {"groups", "index.html", "preview", "summary.csv"}
"""What lies in `results/` beside the folders of samples, in lower case."""
NAME_LENGTH = 100
NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9_.-]{{0,{NAME_LENGTH - 1}}}")
WRITTEN_OUT = 1_000_000
SHOWN = 200


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


def load_schema(folder: str | Path) -> dict[str, Any]:
    """Assemble the schema: `config.yaml` for the top level, every other file a section of its name."""
    folder = Path(folder)
    schema = yaml.safe_load((folder / "config.yaml").read_text())
    for path in sorted(folder.glob("*.yaml")):
        if path.stem != "config":
            schema["properties"][path.stem] = yaml.safe_load(path.read_text())
    return schema


def defaults(schema: dict[str, Any]) -> Any:
    """The default of every key of a schema, nested as the schema is."""
    if "properties" in schema:
        return {key: defaults(entry) for key, entry in schema["properties"].items()}
    return copy.deepcopy(schema.get("default"))


def merge(base: dict[str, Any], layer: dict[str, Any]) -> dict[str, Any]:
    """A new dict: dicts merge key by key, anything else of `layer` replaces what `base` has."""
    result = dict(base)
    for key, value in layer.items():
        old = result.get(key)
        result[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def check(layer: dict[str, Any], schema: dict[str, Any], where: str) -> None:
    """Validate one layer without filling defaults.

    Raises
    ------
    InputError
        Naming the key, its value, what is wanted and, for an unknown key, the nearest known one.
    """
    if _is_longer(layer, WRITTEN_OUT):
        raise InputError(
            where,
            f"over {WRITTEN_OUT:,} values and characters, each alias (*name) written out",
            "a configuration of a few hundred",
            "remove anchors (&name) and aliases that repeat each other",
        )
    validator = jsonschema.Draft202012Validator(schema)
    errors = sorted(validator.iter_errors(layer), key=lambda error: [str(part) for part in error.absolute_path])
    for error in errors:
        path = ".".join(str(part) for part in error.absolute_path)
        if error.validator == "additionalProperties" and isinstance(error.instance, dict):
            known = list(error.schema.get("properties", {}))
            unknown = next(key for key in error.instance if key not in known)
            dotted = f"{path}.{unknown}" if path else str(unknown)
            near = difflib.get_close_matches(str(unknown), known, n=1, cutoff=0.5)
            remedy = f"did you mean {near[0]!r}?" if near else f"remove it; known here: {', '.join(sorted(known))}"
            raise InputError(where, f"unknown key {dotted!r}", "a key of the schema", remedy)
        entry = error.schema if isinstance(error.schema, dict) else {}
        about = entry.get("description", "")
        whole = repr(error.instance)
        short = whole if len(whole) <= SHOWN else f"{whole[:SHOWN]} … ({len(whole):,} characters)"
        raise InputError(
            f"{where}: {path or 'top level'}",
            short,
            error.message.replace(whole, short),
            f"change the value. {about}".strip(),
        )


def _is_longer(value: Any, most: int) -> bool:
    """Whether a value holds more than so many others and characters; one that YAML's aliases repeat counts each time.

    Asked before jsonschema looks, whose messages hold whatever they are about in full.
    """
    left, stack = most, [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str | bytes):
            left -= len(item)
        elif isinstance(item, dict | list | tuple | set):
            left -= len(item)
            if left >= 0:
                stack += [part for pair in item.items() for part in pair] if isinstance(item, dict) else item
        if left < 0:
            return True
    return False


def read_layer(path: Path, schema: dict[str, Any]) -> dict[str, Any]:
    """A YAML file as a checked layer; an absent file raises InputError."""
    if not path.exists():
        raise InputError(path, "no such file", "a YAML file", "check the name")
    try:
        layer = parse_yaml(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise InputError(path, str(error), "YAML", "mend the syntax at that line") from error
    if not isinstance(layer, dict):
        raise InputError(path, f"a {type(layer).__name__}", "keys and values", "write `key: value` lines")
    check(layer, schema, str(path))
    return layer


def nested(dotted: str, value: Any) -> dict[str, Any]:
    """`'train.lr', 1` -> {'train': {'lr': 1}}."""
    *parents, last = dotted.split(".")
    result: dict[str, Any] = {last: value}
    for key in reversed(parents):
        result = {key: result}
    return result


def flatten(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of every leaf."""
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


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
    workdir: str | Path, basedir: str | Path, overrides: dict[str, Any] | None = None
) -> tuple[dict[str, Run], dict[str, Any]]:
    """All runs of a working directory, and the configuration common to them.

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
    for row in read_table(table):
        name = row["sample"]
        where = f"{table}, sample {name!r}"
        of_row = row_layer(row, schema, where)
        own_file = table.parent / "samples" / f"{name}.yaml"
        of_sample = read_layer(own_file, schema) if own_file.exists() else {}
        layers = [(str(config_file), base), (str(own_file), of_sample), (str(table), of_row), ("--config", top)]
        index = None
        bundle = next((layer["bundle"] for _, layer in reversed(layers) if layer.get("bundle")), None)
        if bundle is not None:
            index = read_index(table.parent / Path(bundle).expanduser())
            of_bundle = settings_of(index, schema)
            check(of_bundle, schema, f"bundle {bundle}")
            layers.insert(1, (f"bundle {bundle}", of_bundle))
        preset = next((layer["preset"] for _, layer in reversed(layers) if "preset" in layer), common["preset"])
        if preset:
            layers.insert(0, (f"preset {preset}", _preset(preset, workdir, shipped, schema)))
        settings = defaults(schema)
        origins = {key: "default" for key, _ in flatten(settings)}
        for layer_name, layer in layers:
            settings = merge(settings, layer)
            origins.update({key: layer_name for key, _ in flatten(layer)})
        own = workdir.resolve() / FOLDER / name
        if index is not None:
            _without_training(settings, origins, index, where)
        elif settings["label_source"] in BY_HAND and not settings["labels"]["path"] and files_of(own):
            settings = merge(settings, {"labels": {"path": str(own)}})
            origins["labels.path"] = f"{FOLDER}/{name}"
        _combine(settings, origins, where)
        runs[name] = Run(name, settings["group"] or name, settings, origins, table.parent)
    if not runs:
        raise InputError(table, "no samples", "a row per scan", "run `beamseg init FOLDER` to write them")
    _check_groups(runs, table)
    return runs, common


def _without_training(settings: dict[str, Any], origins: dict[str, str], index: dict[str, Any], where: str) -> None:
    """What a bundle decides whatever the layers say: nothing is trained, unless a short stage 3 is asked for.

    `label_source` is `bundle` where the network learned classes of its user and answers in their numbers,
    `bundle_pixels` where these were painted (a label file is then read as one of `pixels`), else `clusters`.
    """
    adapt = settings["apply"]["adapt"]
    trained = index["settings"].get("train")
    learned = trained.get("label_source", "clusters") if isinstance(trained, dict) else "clusters"
    source = "bundle_pixels" if learned in ("pixels", "bundle_pixels") else "bundle"
    source = "clusters" if learned == "clusters" else source
    settings |= {"stage3": "unbiased_teacher" if adapt else "none", "label_source": source}
    origins |= {"stage3": "apply.adapt", "label_source": "bundle"}
    if adapt:
        settings["self_correct"] = {**settings["self_correct"], "steps": settings["apply"]["adapt_steps"]}
        origins["self_correct.steps"] = "apply.adapt_steps"
    if "scm" in settings["refine"] and "scm.safetensors" not in index["files"]:
        raise InputError(
            f"{where}: refine",
            f"{settings['refine']}, with a bundle that holds no SCM",
            "[mpp] or []",
            "remove scm, or train the bundle with refine: [mpp, scm]",
        )


def _combine_images(settings: dict[str, Any], origins: dict[str, str], where: str) -> None:
    """Refuse what has no meaning for frames, or for frames alone."""
    images = settings["kind"] == "images"
    if images and settings["bundle"]:
        raise InputError(
            f"{where}: bundle",
            f"{settings['bundle']} with kind: images",
            "an empty cell",
            "bundles are of volumes; train",
        )
    if images != (settings["label_source"] == "images"):
        raise InputError(
            f"{where}: label_source",
            f"{settings['label_source']} with kind: {settings['kind']}",
            "images for kind: images, clusters or slices for kind: volume",
            "networks of frames learn from labelled frames alone; take one of the presets nanowires_a to nanowires_f",
        )
    if images and settings["refine"]:
        raise InputError(
            f"{where}: refine",
            f"{settings['refine']} with kind: images",
            "[]",
            "frames have no z along which labels could be continued",
        )
    allowed = ("none", "pseudo_labeling") if images else ("none", "unbiased_teacher")
    if settings["stage3"] not in allowed:
        raise InputError(
            f"{where}: stage3",
            f"{settings['stage3']} with kind: {settings['kind']}",
            f"one of {', '.join(allowed)}",
            "pseudo_labeling is for frames, the teacher for volumes",
        )
    if not images:
        return
    if settings["path"] != PHANTOM and not settings["labels"]["path"]:
        raise InputError(f"{where}: labels", "an empty cell", "a folder of masks named as the frames", "label frames")
    training = settings["train_frames"]
    if training["pretrain"] and training["network"] != "frame_pspnet":
        raise InputError(
            f"{where}: train_frames.pretrain",
            f"true with {training['network']}",
            "frame_pspnet",
            "it freezes the ResNet",
        )
    by_prediction = {"object_masking", "context_masking", "guided_cutout", "adversarial"}
    meaningless = by_prediction & set(training["perturbations"])
    if training["objective"] == "cross_consistency" and training["network"] == "frame_unet" and meaningless:
        raise InputError(
            f"{where}: train_frames.perturbations",
            f"{', '.join(sorted(meaningless))} with frame_unet",
            "feature_noise, feature_drop, spatial_dropout",
            "skip connections carry past the perturbation what it would hide",
        )


def _combine(settings: dict[str, Any], origins: dict[str, str], where: str) -> None:
    """Refuse combinations without a meaning; slices far apart turn off whatever looks along z."""
    _combine_images(settings, origins, where)
    if not settings["z_continuous"]:
        forced = {"refine": [], "model": {**settings["model"], "n_slices": 1}}
        features = {**settings["pseudo_label"]["features"], "dimensions": 2}
        forced["pseudo_label"] = {**settings["pseudo_label"], "features": features}
        settings.update(forced)
        keys = ("refine", "model.n_slices", "pseudo_label.features.dimensions")
        origins |= dict.fromkeys(keys, "z_continuous: false")
    if settings["refine"] == ["scm"]:
        raise InputError(f"{where}: refine", "[scm]", "[mpp, scm]", "add mpp: SCM learns from what MPP leaves")
    normalize = settings["normalize"]
    corrections = [key for key in ("shading", "rings", "denoise") if normalize[key] != "none"]
    if corrections and normalize["materialize"] == "never":
        raise InputError(
            f"{where}: normalize.materialize",
            f"never, with normalize.{corrections[0]}: {normalize[corrections[0]]}",
            "auto or always: a window of a corrected scan costs whole slices",
            "remove materialize: never",
        )
    if settings["pseudo_label"]["labeler"] == "features" and settings["pseudo_label"]["scope"] != "volume":
        raise InputError(
            f"{where}: pseudo_label.scope",
            f"{settings['pseudo_label']['scope']} with labeler: features",
            "scope: volume",
            "features are clustered over the group; their background takes out shading in the slice",
        )
    trains = not settings["bundle"]
    if trains and settings["train"]["objective"] == "contrastive" and settings["label_source"] == "clusters":
        raise InputError(
            f"{where}: train.objective",
            "contrastive with label_source: clusters",
            "painted pixels",
            "set label_source: pixels, or objective: classification",
        )
    if trains and settings["train"]["objective"] == "contrastive" and settings["gpus"] > 1:
        raise InputError(
            f"{where}: gpus",
            f"{settings['gpus']} with train.objective: contrastive",
            "1: the pixels of a batch are contrasted with each other, and are not shared out",
            "remove `gpus`, or set objective: classification",
        )
    training = settings["train"]
    for key, value in (
        ("piecewise_affine.scale", training["piecewise_affine"]["scale"]),
        ("strong_share", training["strong_share"]),
    ):
        if trains and training["objective"] == "contrastive" and value:
            raise InputError(
                f"{where}: train.{key}",
                f"{value} with objective: contrastive",
                "0: contrastive training transforms by `train.contrastive.transform` alone",
                f"set train.{key}: 0, or objective: classification",
            )
    if trains and training["prior"] and settings["label_source"] in ("slices", "clusters"):
        raise InputError(
            f"{where}: train.prior",
            f"{training['prior']} with label_source: {settings['label_source']}",
            "0: clusters speak only beside painted pixels",
            "set train.prior: 0, or label_source: pixels",
        )
    word = word_for(settings["label_source"])
    class_table(settings["pseudo_label"]["n_clusters"], settings["classes"], f"{where}: classes", word)


def _preset(name: str, workdir: Path, shipped: Path, schema: dict[str, Any]) -> dict[str, Any]:
    for folder in (workdir / "config" / "presets", shipped / "presets"):
        path = folder / f"{name}.yaml"
        if path.exists():
            return read_layer(path, schema)
    known = sorted(path.stem for path in (shipped / "presets").glob("*.yaml"))
    near = difflib.get_close_matches(name, known, n=1)
    raise InputError(
        "preset",
        repr(name),
        f"one of {', '.join(known)}",
        f"did you mean {near[0]!r}?" if near else "choose one of them",
    )
