"""record: everything that one result was made from, and the way back from there to a run."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from .bundle_files import without_paths
from .config import PHANTOM, TABLE_COLUMNS, Run, flatten, merge, nested
from .errors import InputError
from .provenance import atomic_path, digest, file_digest, read_json, versions, write_json

OF_THE_ROW = ("sample", "samples", "path", "truth", "bundle", "group", "reference", "preset", "code")
"""Keys that name a run and its files, or say nothing of the result."""


def effective(run: Run) -> dict[str, Any]:
    """The settings of a run without those that name it and its files."""
    return without_paths({key: value for key, value in run.settings.items() if key not in OF_THE_ROW})


def described_scans(runs: dict[str, Run], name: str, references: list[str]) -> list[dict[str, Any]]:
    """The scans that a run draws from, its own included: name, base names of input and labels, and what differs.

    `settings` are the dotted keys in which a reference scan differs from the run.
    """
    mine = dict(flatten(effective(runs[name])))
    entries = []
    for other in [*references, *([] if name in references else [name])]:
        run = runs[other]
        path, labels = run.get("path"), run.file("labels.path")
        entries.append(
            {
                "name": other,
                "reference": other in references,
                "file": PHANTOM if path == PHANTOM else Path(path).name,
                "labels": None if labels is None else labels.name,
                "settings": {key: value for key, value in flatten(effective(run)) if mine.get(key, run) != value},
            }
        )
    return entries


def record(
    out: str | Path,
    *,
    name: str,
    group: str,
    settings: dict[str, Any],
    scans: list[dict[str, Any]],
    histograms: dict[str, str | Path],
    weights: dict[str, str | Path],
    manifests: list[str],
    labels: str | Path,
    code: dict[str, str],
    bundle: str | Path | None = None,
) -> dict[str, Any]:
    """Write `provenance.json`.

    Parameters
    ----------
    out : path
    name, group : str
    settings : dict
        `effective` settings of the run.
    scans : list of dict
        `described_scans`; each gets `content`, the digest of its voxels as stored.
    histograms : dict
        Name of a scan -> its histogram.npz.
    weights : dict
        Stage -> weights.
    manifests : list of path
        Of the networks' labels; they name the device.
    labels : path
        `labels.json` of the product.
    code : dict
        Stage -> digest of the code that made it.
    bundle : path, optional
        Index of the bundle that was applied.
    """
    for scan in scans:
        with np.load(histograms[scan["name"]]) as found:
            scan["content"] = str(found["content"])
    product = read_json(labels)
    result = {
        "sample": name,
        "group": group,
        "scans": scans,
        "bundle": None if bundle is None else digest(read_json(bundle)),
        "settings": settings,
        "seed": settings["seed"],
        "device": sorted({str(read_json(path).get("device")) for path in manifests}),
        "code": code,
        "versions": {**versions(), "python": platform.python_version()},
        "weights": {stage: file_digest(path) for stage, path in weights.items()},
        "product": {key: product[key] for key in ("stage", "digest")},
    }
    write_json(out, result)
    return result


def repeat(provenance: str | Path, inputs: list[Path], workdir: Path) -> list[str]:
    """Write the configuration of a recorded run into a folder that has none.

    Parameters
    ----------
    provenance : path
        `provenance.json` of the run.
    inputs : list of Path
        The scans, labels and, where one was applied, the bundle, wherever they are now; known by their base names, the
        bundle by its content.
    workdir : Path
        Gets `config/config.yaml`, `config/samples.tsv` and `config/samples/`.

    Returns
    -------
    list of str
        What differs here from then, in words: versions of packages.

    Raises
    ------
    InputError
        If an input is missing, or the folder holds a configuration.
    """
    found = read_json(provenance)
    config = workdir / "config"
    if config.exists():
        raise InputError(config, "a configuration", "an empty folder", "give another with --directory")
    at_hand = {path.name: path.resolve() for path in inputs}
    bundles = [p for p in inputs if (p / "bundle.json").is_file()]
    bundle = next((p.resolve() for p in bundles if digest(read_json(p / "bundle.json")) == found["bundle"]), None)
    if found["bundle"] and bundle is None:
        raise InputError(provenance, f"the bundle {found['bundle']} among no input", "that bundle", "name its folder")

    def place(file: str) -> str:
        if file != PHANTOM and file not in at_hand:
            raise InputError(provenance, f"{file!r} among no input", "every scan and its labels", "name its path")
        return str(at_hand.get(file, file))

    rows = []
    for scan in found["scans"]:
        cells = {
            "sample": scan["name"],
            "path": place(scan["file"]),
            "labels": place(scan["labels"]) if scan["labels"] else "",
            "group": found["group"],
            "bundle": str(bundle or ""),
        }
        rows.append("\t".join(cells.get(column, "") for column in TABLE_COLUMNS))
        own: dict[str, Any] = {"reference": scan["reference"]}
        for dotted, value in scan["settings"].items():
            own = merge(own, nested(dotted, value))
        _write_yaml(config / "samples" / f"{scan['name']}.yaml", own)
    _write_yaml(config / "config.yaml", {**found["settings"], "preset": None})
    with atomic_path(config / "samples.tsv") as temporary:
        temporary.write_text("\n".join(["\t".join(TABLE_COLUMNS), *rows, ""]))
    now = {**versions(), "python": platform.python_version()}
    return [f"{p} {now.get(p)}, then {v}" for p, v in sorted(found["versions"].items()) if now.get(p) != v]


def _write_yaml(path: Path, value: dict[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(yaml.safe_dump(value, sort_keys=True, allow_unicode=True))
