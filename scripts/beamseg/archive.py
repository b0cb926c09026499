"""archive: everything of a group that belongs with a publication, in one file ready for a repository."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from .config import Run, load_runs
from .errors import InputError
from .provenance import atomic_path, read_json
from .runs import Runs

EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that zip knows; equal contents, equal bytes
PATHS = ("path", "truth", "labels.path", "samples", "bundle")
OF_A_SAMPLE = (
    *("report.html", "metrics.json", "metrics.csv", "labels.json", "provenance.json"),
    *("quantities.json", "quantities.csv", "component_sizes.csv", "figures"),
)
README = """\
# {group}

Segmentation of {n} scan(s) by beamseg {version} ({stage} of its pipeline).

- `bundle/`: the trained model with grey range, class table, histograms, settings and versions (`bundle.json`).
- `config/<sample>.yaml`: the effective configuration, every key; paths are reduced to names.
- `<sample>/`: the labels in each exported format (`labels.json` says what they are), metrics, report, quantities, and
  `provenance.json`: digests of voxels, weights, labels and code, versions, settings; enough to repeat the run.
- `methods.md`, where there is one: methods and parameters that were used, with citations.

The scans themselves are not part of this archive.

## Classes

| id | name | colour |
|---|---|---|
{classes}

Voxels outside the field of view are 255.

## Files

SHA-256 and name of each, as `sha256sum --check` reads them:

```
{files}
```
"""


def archive(workdir: Path, basedir: Path, group: str) -> Path:
    """Write `results/groups/<group>/archive.zip`: bundle, configuration, provenance, labels, methods, and a README.

    The files lie in it uncompressed (what is large is compressed already), in order of name, without times or owners.

    Returns
    -------
    path
        Of the archive.

    Raises
    ------
    InputError
        If there is no such group, or a result is missing.
    """
    runs = Runs(load_runs(workdir, basedir)[0])
    if group not in runs.groups:
        raise InputError("group", repr(group), f"one of {', '.join(runs.groups)}", "see the sample table")
    members = [runs.runs[name] for name in runs.groups[group]]
    if members[0].get("bundle") and not members[0].get("apply.adapt"):
        raise InputError(
            f"group {group!r}", "its model is a bundle's", "a group that was trained", "archive the bundle's own group"
        )
    results = workdir / "results"
    bundle = results / "groups" / runs.owner("bundle", members[0].name) / "bundle" / "bundle.json"
    for path in (bundle, *(results / run.name / "labels.json" for run in members)):
        if not path.exists():
            raise InputError(path, "no such file", "a finished group", "run the workflow first")
    described = read_json(bundle)
    files = dict(_files(members, runs, results, bundle))
    methods = results / "groups" / group / "methods.md"
    if methods.exists():
        files["methods.md"] = methods
    texts = {f"config/{run.name}.yaml": yaml.safe_dump(_without_folders(run)) for run in members}
    out = results / "groups" / group / "archive.zip"
    with atomic_path(out) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as file:
        sums = []
        for name in sorted(files | texts):
            sums.append(f"{_add(file, name, texts[name] if name in texts else files[name])}  {name}")
        rows = (f"| {row['id']} | {row['name']} | {row['colour']} |" for row in described["class_table"])
        readme = README.format(
            group=group,
            n=len(members),
            version=described["versions"]["beamseg"],
            stage=described["stage"],
            classes="\n".join(rows),
            files="\n".join(sums),
        )
        _add(file, "README.md", readme)
    return out


def _files(members: list[Run], runs: Runs, results: Path, bundle: Path) -> Iterator[tuple[str, Path]]:
    """Name in the archive and path of every file that is copied."""
    yield "bundle/bundle.json", bundle
    for name in read_json(bundle)["files"]:
        yield f"bundle/{name}", bundle.with_name(name)
    for run in members:
        folder = results / run.name
        yield f"{run.name}/scan.json", results / runs.owner("ingest", run.name) / "scan.json"
        exported = read_json(folder / "labels.json")["exports"]
        parts = [exported["nexus_virtual"].removesuffix(".h5")] if "nexus_virtual" in exported else []
        for name in (*OF_A_SAMPLE, *exported.values(), *parts):
            path = folder / name
            for file in [path] if path.is_file() else path.rglob("*"):
                if file.is_file() and not file.name.endswith(".tmp"):
                    yield f"{run.name}/{file.relative_to(folder).as_posix()}", file


def _add(file: zipfile.ZipFile, name: str, content: Path | str) -> str:
    """Add a file or a text under a name; its SHA-256."""
    info = zipfile.ZipInfo(name, EPOCH)
    info.create_system = 3  # Unix, wherever it is written
    info.external_attr = 0o644 << 16
    digest = hashlib.sha256()
    size = content.stat().st_size if isinstance(content, Path) else len(content)
    with file.open(info, "w", force_zip64=size >= zipfile.ZIP64_LIMIT) as out:
        for block in _blocks(content):
            digest.update(block)
            out.write(block)
    return digest.hexdigest()


def _blocks(content: Path | str) -> Iterator[bytes]:
    if isinstance(content, str):
        yield content.encode()
        return
    with open(content, "rb") as file:
        while block := file.read(2**20):
            yield block


def _without_folders(run: Run) -> dict[str, Any]:
    """The effective configuration of a run; of paths only the last part, since folders concern nobody else."""
    settings: dict[str, Any] = yaml.safe_load(yaml.safe_dump(run.settings))
    for key in PATHS:
        *parents, last = key.split(".")
        section = settings
        for parent in parents:
            section = section[parent]
        if section[last]:
            section[last] = Path(str(section[last])).name
    return settings
