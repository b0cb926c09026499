"""record: everything that one result was made from, and the way back from there to a run."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import yaml

from .annotations import files_of
from .bundle_files import without_paths
from .code import code_digest, script_of
from .config import TABLE_COLUMNS, Run, check_name, load_runs
from .errors import InputError
from .job import Kept
from .layers import PHANTOM, check, defaults, flatten, load_schema, merge, nested
from .plain_files import read_plain_json
from .provenance import CHECKOUT, atomic_path, digest, file_digest, made_now, read_json, write_json
from .readers import Linked, how_to_read, open_source
from .readers.source import content_digest
from .seen import content, is_gone

OF_THE_ROW = ("sample", "samples", "path", "truth", "bundle", "group", "reference", "preset", "code", "only")
"""Keys that name a run and its files, or say nothing of the result."""
SCHEMAS = CHECKOUT / "workflow" / "schemas"
OURS = "use a provenance.json that beamseg wrote"
FORM: dict[str, tuple[type, ...]] = {"group": (str,), "scans": (list,), "settings": (dict,)}
FORM |= {"code": (dict,), "versions": (dict,), "bundle": (str, NoneType)}
FORM_OF_A_SCAN: dict[str, tuple[type, ...]] = {"name": (str,), "file": (str,), "reference": (bool,)}
FORM_OF_A_SCAN |= {"settings": (dict,), "labels": (str, NoneType)}
OF_THE_BUNDLE = ("stage3", "label_source")
"""Keys that a bundle decides, whatever the configuration says."""


def effective(run: Run) -> dict[str, Any]:
    """The settings of a run without those that name it and its files."""
    return _of_no_row(run.settings)


def _of_no_row(settings: dict[str, Any]) -> dict[str, Any]:
    return without_paths({key: value for key, value in settings.items() if key not in OF_THE_ROW})


def described_scans(runs: dict[str, Run], name: str, references: list[str]) -> list[dict[str, Any]]:
    """The scans that a run draws from, its own included: name, base names of input and labels, and what differs.

    `settings` are the dotted keys in which a reference scan differs from the run. `paths` say where its files lie now;
    that is no reason to record anything again, so the text of an entry is without them.
    """
    mine = dict(flatten(effective(runs[name])))
    entries: list[dict[str, Any]] = []
    for other in [*references, *([] if name in references else [name])]:
        run = runs[other]
        path, labels = run.get("path"), run.file("labels.path")
        entry = {
            "name": other,
            "reference": other in references,
            "file": PHANTOM if path == PHANTOM else Path(path).name,
            "labels": None if labels is None else labels.name,
            "settings": {key: value for key, value in flatten(effective(run)) if mine.get(key, run) != value},
        }
        files = {"content": run.file("path"), "labels_content": labels}
        paths = {key: str(file) for key, file in files.items() if file is not None and file.name != PHANTOM}
        entries.append(Kept(entry | {"paths": paths}, repr(entry)))
    return entries


def scan_content(path: str | Path, settings: dict[str, Any]) -> str:
    """Digest of a scan's voxels as stored, read as its settings say; of a movie, of its files."""
    if settings["kind"] == "images":
        return str(content([path]))
    return content_digest(open_source(path, **how_to_read(settings["dataset"], settings["ingest"])))


def labels_content(path: str | Path) -> str | None:
    """Digest of the files that hold labels; None if they are not there."""
    return content(files_of(path))


def record(
    out: str | Path,
    *,
    name: str,
    group: str,
    settings: dict[str, Any],
    scans: list[dict[str, Any]],
    histograms: dict[str, str | Path],
    weights: dict[str, str | Path],
    labels: str | Path,
    code: dict[str, str],
    device: dict[str, str],
    bundle: str | Path | None = None,
    made: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Write `provenance.json`.

    Parameters
    ----------
    out : path
    name, group : str
    settings : dict
        `effective` settings of the run.
    scans : list of dict
        `described_scans`; in place of `paths` each gets `content`, the digest of its voxels as stored (of a movie, of
        its files), and `labels_content`; None where there is no file. `seen` is the content of files that have gone
        since, by path.
    histograms : dict
        Name of a scan -> its histogram.npz; empty for a movie.
    weights : dict
        Stage -> weights.
    labels : path
        `labels.json` of the product; of a movie, the manifest of its masks.
    code : dict
        Stage -> digest of the code that made it.
    device : dict
        Stage -> device and precision of its networks, and the threads of a CPU.
    bundle : path, optional
        Index of the bundle that was applied.
    made : dict, optional
        `commit` and `versions` that the stages ran with, see `ended.made_with`; else those of this process.
    """
    for scan in scans:
        paths = scan.pop("paths")
        then, path = scan.pop("seen", {}), paths.get("labels_content")
        scan["labels_content"] = path and (labels_content(path) or then.get(path))
        if histograms:
            with np.load(histograms[scan["name"]]) as found:
                scan["content"] = str(found["content"])
        else:
            movie = paths.get("content")
            gone = movie is None or is_gone(Path(movie))
            scan["content"] = then.get(movie) if gone else content([movie])
    product = read_json(labels)
    if "frames" in product:
        masks = {frame: entry["digest"] for frame, entry in product["frames"].items()}
        product = {"stage": "segment_frames", "digest": digest(masks)}
    result = {
        "sample": name,
        "group": group,
        "scans": scans,
        "bundle": None if bundle is None else digest(read_json(bundle)),
        "settings": settings,
        "seed": settings["seed"],
        "device": device,
        "code": code,
        **(made or made_now()),
        "weights": {stage: file_digest(path) for stage, path in weights.items()},
        "product": {key: product[key] for key in ("stage", "digest")},
    }
    write_json(out, result)
    return result


def repeat(provenance: str | Path, inputs: list[Path], workdir: Path, *, external_links: str = "none") -> list[str]:
    """Write the configuration of a recorded run into a folder that has none.

    Parameters
    ----------
    provenance : path
        `provenance.json` of the run.
    inputs : list of Path
        The scans, labels and, where one was applied, the bundle, wherever they are now; known by their base names and
        contents, the bundle by its content alone.
    workdir : Path
        Gets `config/config.yaml`, `config/samples.tsv` and `config/samples/`.
    external_links : str
        `ingest.external_links` of all scans; what the record says of it counts for nothing.

    Returns
    -------
    list of str
        What differs here from then, in words: code of stages, versions of packages; inputs whose content was not
        recorded.

    Raises
    ------
    InputError
        If an input is missing or has another content, the folder holds a configuration, or the record, which may come
        from anywhere, lacks something, names a sample that no file can be named after, or holds settings that are none.
    """
    found = _read(provenance)
    schema = load_schema(SCHEMAS)
    config = workdir / "config"
    if config.exists():
        raise InputError(config, "a configuration", "an empty folder", "give another with --directory")
    at_hand: dict[str, list[Path]] = {}
    for path in dict.fromkeys(inputs):
        at_hand.setdefault(path.name, []).append(path.resolve())
    bundles = [p for p in inputs if (p / "bundle.json").is_file()]
    bundle = next((p.resolve() for p in bundles if digest(read_json(p / "bundle.json")) == found["bundle"]), None)
    if found["bundle"] and bundle is None:
        raise InputError(provenance, f"the bundle {found['bundle']} among no input", "that bundle", "name its folder")

    differs: list[str] = []

    def place(file: str, candidates: list[Path], content: str | None, measure: Callable[[Path], str | None]) -> str:
        if file == PHANTOM:
            return file
        if content is None and len(candidates) == 1:
            differs.append(f"{candidates[0]} is taken by its name, its content was not recorded")
        return str(_of_content(provenance, file, candidates, content, measure))

    decided = OF_THE_BUNDLE if found["bundle"] else ()
    common = {key: value for key, value in _of_no_row(found["settings"]).items() if key not in decided}
    trusted = {"ingest": {"external_links": external_links}}
    check(common, schema, f"{provenance}: settings")
    common = merge(common, trusted)
    rows, layers = [], {}
    for scan in found["scans"]:
        own: dict[str, Any] = {}
        for dotted, value in scan["settings"].items():
            own = merge(own, nested(dotted, value))
        own = _of_no_row(own)
        check(own, schema, f"{provenance}: settings of {scan['name']}")
        own = merge(own, trusted) if "ingest" in own else own
        read = partial(scan_content, settings=merge(merge(defaults(schema), common), own))
        try:
            here = place(scan["file"], at_hand.get(scan["file"], []), scan.get("content"), read)
        except Linked as error:
            remedy = "if you trust where the scan comes from, give --external-links beside (any, for files elsewhere)"
            raise InputError(error.where, error.found, error.expected, remedy) from error
        # A bundle counts more than config.yaml, and the row's settings counted more than the bundle.
        layers[scan["name"]] = merge(common if bundle else {}, own) | {"reference": scan["reference"]}
        rows.append({"sample": scan["name"], "path": here, "group": found["group"], "bundle": str(bundle or "")})
    taken = {row["path"] for row in rows}
    for row, scan in zip(rows, found["scans"], strict=True):
        if scan["labels"]:
            candidates = at_hand.get(scan["labels"], [])
            content = scan.get("labels_content")
            if content is None:
                candidates = [other for other in candidates if str(other) not in taken] or candidates
            row["labels"] = place(scan["labels"], candidates, content, labels_content)
    for name, layer in layers.items():
        _write_yaml(config / "samples" / f"{name}.yaml", layer)
    _write_yaml(config / "config.yaml", {**common, "preset": None})
    lines = ["\t".join(row.get(column, "") for column in TABLE_COLUMNS) for row in rows]
    with atomic_path(config / "samples.tsv") as temporary:
        temporary.write_text("\n".join(["\t".join(TABLE_COLUMNS), *lines, ""]))
    try:
        load_runs(workdir, CHECKOUT)
    except InputError as error:
        shutil.rmtree(config)
        raise InputError(provenance, f"{error.where}: {error.found}", error.expected, error.remedy) from error
    made_by = {stage: (_code_here(stage), then) for stage, then in sorted(found["code"].items())}
    differs += [f"code of {stage} {now}, then {then}" for stage, (now, then) in made_by.items() if now != then]
    held = made_now()["versions"]
    return differs + [f"{p} {held.get(p)}, then {v}" for p, v in sorted(found["versions"].items()) if held.get(p) != v]


def _read(provenance: str | Path) -> dict[str, Any]:
    """A record, once its form is known to be right and no name in it is a path.

    Raises
    ------
    InputError
    """
    found = read_plain_json(Path(provenance), OURS)
    _check_form(provenance, "the record", found, FORM)
    if not found["scans"]:
        raise InputError(provenance, "no scans", "the scans that the run drew from", OURS)
    check_name(provenance, "group", found["group"])
    for number, scan in enumerate(found["scans"]):
        _check_form(provenance, f"scans[{number}]", scan, FORM_OF_A_SCAN)
        check_name(provenance, "sample", scan["name"])
    return dict(found)


def _check_form(provenance: str | Path, what: str, found: Any, form: dict[str, tuple[type, ...]]) -> None:
    if not isinstance(found, dict):
        raise InputError(provenance, f"{what}: {str(found)[:80]}", f"an object with {', '.join(form)}", OURS)
    for key, types in form.items():
        if key not in found or not isinstance(found[key], types):
            said = f"{key}: {str(found[key])[:80]!r}" if key in found else f"no {key}"
            wanted = " or ".join("null" if each is NoneType else each.__name__ for each in types)
            raise InputError(provenance, f"{what}: {said}", f"{key}, a {wanted}", OURS)


def _code_here(stage: str) -> str | None:
    """Digest of the code of a stage here; None if this version has no such stage."""
    try:
        return code_digest(script_of(stage))
    except FileNotFoundError:
        return None


def _of_content(
    where: str | Path,
    file: str,
    candidates: list[Path],
    content: str | None,
    measure: Callable[[Path], str | None],
) -> Path:
    """The candidate of the recorded content; where none was recorded, the only candidate.

    Raises
    ------
    InputError
        If there is none, or several without a recorded content.
    """
    named = ", ".join(map(str, candidates))
    if not candidates:
        raise InputError(where, f"{file!r} among no input", "every scan and its labels", "name its path")
    if content is None:
        if len(candidates) > 1:
            remedy = "leave out those that are not meant"
            raise InputError(where, f"{file!r} without a recorded content, and {named}", "one input so named", remedy)
        return candidates[0]
    contents: dict[str, str] = {}
    for path in candidates:
        try:
            found = measure(path)
        except InputError as error:
            if len(candidates) == 1:
                raise
            found = str(error)
        if found == content:
            return path
        contents[str(path)] = str(found)
    described = ", ".join(f"{path} ({found})" for path, found in contents.items())
    raise InputError(
        where, f"for {file!r} {described}", f"the content {content}", "name the file that the run was made from"
    )


def _write_yaml(path: Path, value: dict[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(yaml.safe_dump(value, sort_keys=True, allow_unicode=True))
