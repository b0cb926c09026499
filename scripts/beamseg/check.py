"""check: validate every sample before anything expensive starts, and forecast time, memory and disk."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from .apply import apply
from .config import BY_HAND, Run, load_runs
from .device import choose
from .errors import InputError
from .footprint import PART_GVOXELS, footprint, parts_for
from .forecast import cores, network_rates, rates_key, scan_rates, stage_seconds, training_seconds
from .frames import open_frames, paired, split
from .ingest import field_of_view, refuse_blank, refuse_thin
from .inputs import user_labels, user_truth
from .layers import PHANTOM
from .normalize import worth_materializing
from .readers import how_to_read, known_size, open_source
from .runs import Runs, corrections, is_assigned, is_images
from .summary import text_table
from .training_labels import check_painted
from .volumes import Volume

PHANTOM_RATES = {"histogram": 3e-8, "normalize": 2e-8}  # seconds per voxel; it is not there yet to be timed
COLUMNS = (
    *("sample", "group", "shape", "dtype", "voxel µm", "scan GB", "scratch GB", "results GB", "files", "memory GB"),
    "state",
)
TIMES = ("sample", "histogram", "normalize", "segment", "refine_mpp", "refine_scm", "sum")


def check(workdir: Path, basedir: Path) -> int:
    """Open every scan, its labels and truth; time a few slices and the network; print the forecasts.

    Returns
    -------
    int
        Exit status: 1 if any sample is not valid.
    """
    loaded, _ = load_runs(workdir, basedir)
    graph = Runs(loaded)
    rates: dict[str, dict[str, float]] = {}
    rows, times = [], []
    errors: list[str] = []
    slices: dict[str, int] = {}
    labels: dict[str, Volume] = {}
    scratch = 0.0
    for run in loaded.values():
        row = dict.fromkeys(COLUMNS, "") | {"sample": run.name, "group": run.group, "state": "ok"}
        try:
            if is_images(run):
                rows.append(row | {"shape": inspect_frames(run)})
                continue
            found = inspect(run)
        except InputError as error:
            errors.append(f"{run.name}: {error}")
            rows.append(row | {"state": "error"})
            continue
        shape = found["shape"]
        slices[run.name] = shape[0]
        if found["labels"] is not None:
            labels[run.name] = found["labels"]
        key = rates_key(run.settings)
        if key not in rates:
            rates[key] = network_rates(run.settings)
        size = footprint(shape, found["itemsize"], found["is_cached"], run.settings, is_assigned(run))
        scratch += size["scratch"]
        rows.append(
            row
            | {
                "shape": "×".join(map(str, shape)),
                "dtype": found["dtype"],
                "voxel µm": found["voxel"],
                "scan GB": f"{found['bytes'] / 1e9:.3g}",
                "scratch GB": f"{size['scratch'] / 1e9:.3g}",
                "results GB": f"{size['results'] / 1e9:.3g}",
                "files": f"{size['files']:.0f}",
                "memory GB": f"{size['memory_mb'] / 1024:.2g}",
                "state": "ok" if not found["warnings"] else f"ok, {len(found['warnings'])} warnings",
            }
        )
        seconds = stage_seconds(shape, rates[key] | found["rates"], run.settings, cores())
        seconds["sum"] = sum(seconds.values())
        times.append(dict.fromkeys(TIMES, "") | {"sample": run.name} | {k: duration(s) for k, s in seconds.items()})
        errors += [f"{run.name}: warning: {warning}" for warning in found["warnings"]]
    errors += painted_in_groups(graph, labels, rows)
    print(text_table(rows, COLUMNS, 200))
    if times:
        print(text_table(times, TIMES, 200))
        print(f"scratch of all scans at once: {scratch / 1e9:.3g} GB (bounded by --resources disk_mb=…)")
    for group, members in graph.groups.items():
        references = graph.references(group)
        if any(name not in slices for name in references):
            continue
        run = loaded[members[0]]
        if run.get("bundle") and not run.get("apply.adapt"):
            print(f"group {group}: {len(members)} scans, applies {run.get('bundle')} without training")
            continue
        found_times = training_seconds(
            sum(slices[name] for name in references), rates[rates_key(run.settings)], run.settings
        )
        stages = "; ".join(f"{name} {steps} steps, {duration(s)}" for name, (steps, s) in found_times.items())
        print(
            f"group {group}: {len(members)} scans, trains on {', '.join(references)}; {stages} "
            f"on {choose(run.get('device')).name}, {torch.get_num_threads()} threads"
        )
    print(*errors, sep="\n")
    bad = sum(row["state"] == "error" for row in rows)
    print(f"{len(rows) - bad} of {len(rows)} samples are valid")
    return int(bad > 0)


def painted_in_groups(graph: Runs, labels: dict[str, Volume], rows: list[dict[str, Any]]) -> list[str]:
    """What is wrong with the user's labels of each group taken together; rows of such groups become errors."""
    found = []
    for group, members in graph.groups.items():
        run = graph.runs[members[0]]
        given = {name: labels[name] for name in graph.references(group) if name in labels}
        if not given or run.get("label_source") not in BY_HAND:
            continue
        try:
            said = check_painted(
                list(given.values()), run.get("pseudo_label.n_clusters"), f"labels of {', '.join(given)}"
            )
            found += [f"{group}: warning: {warning}" for warning in said]
        except InputError as error:
            found.append(f"{group}: {error}")
            for row in rows:
                row["state"] = "error" if row["group"] == group else row["state"]
    return found


def inspect_frames(run: Run) -> str:
    """Frames of a run and what each part of the labelled ones has; masks are paired and split as training does it."""
    if run.get("path") == PHANTOM:
        return f"{run.get('frames.phantom.frames')} frames"
    frames = open_frames(run.file("path") or "", run.get("dataset"))
    masks = paired(frames.names, run.file("labels.path") or "")
    parts = split(list(masks), run.get("seed"), run.get("frames"))
    return f"{len(frames.names)} frames, " + ", ".join(f"{len(names)} {part}" for part, names in parts.items() if names)


def inspect(run: Run) -> dict[str, Any]:
    """Shape, type, size, rates and warnings of a run's scan; its bundle, labels and truth are opened too."""
    if run.get("path") == PHANTOM:
        size = run.get("phantom.size")
        voxel = f"{run.get('phantom.voxel_size_um'):g}"
        return {
            "shape": size,
            "dtype": "float32",
            "itemsize": 4,
            "voxel": voxel,
            "bytes": 4 * math.prod(size),
            "is_cached": True,
            "rates": PHANTOM_RATES,
            "warnings": [],
            "labels": None,
        }
    if bundle := run.file("bundle"):
        apply(bundle, {})
    source = open_source(run.file("path") or "", **how_to_read(run.get("dataset"), run.get("ingest")))
    size, doubts = known_size(source, run.get("voxel_size_um"))
    refuse_thin(run.file("path") or "", source.shape, run.get("model.n_slices"))
    warnings = [*source.warnings, *doubts]
    if run.get("parts") == 1 and (parts := parts_for(source.shape, PART_GVOXELS)) > 1:
        warnings.append(
            f"{math.prod(source.shape) / 1e9:.3g} Gvoxels in one part, so that each stage is one long job; set "
            f"`parts: {parts}` in config/samples/{run.name}.yaml, as `beamseg init` does above {PART_GVOXELS:g}"
        )
    truth = user_truth(run.get("evaluate"), str(run.file("truth") or ""), source.shape)
    n_classes = run.get("pseudo_label.n_clusters") if run.get("label_source") in BY_HAND else None
    labels = user_labels(run.settings, str(run.file("labels.path") or ""), source.shape, n_classes)
    if run.get("label_source") != "clusters" and labels is not None and run.group == run.name:
        warnings += check_painted([labels], run.get("pseudo_label.n_clusters"), str(run.file("labels.path")))
    for what, given in (("truth", truth), ("labels", labels)):
        warnings += [f"{what}: {warning}" for warning in (given.warnings if given else [])]
    fov = field_of_view(source, run.get("ingest.fov"))
    refuse_blank(run.file("path") or "", source, fov)
    return {
        "shape": source.shape,
        "dtype": source.dtype.name,
        "itemsize": source.dtype.itemsize,
        "is_cached": worth_materializing(
            source, {**run.get("normalize"), "mem_budget_mb": run.get("mem_budget_mb")}, corrections(run) is not None
        ),
        "rates": scan_rates(source, fov, corrections(run), run.get("normalize.dtype")),
        "voxel": "unknown" if size is None else "×".join(f"{v:g}" for v in size),
        "bytes": sum(Path(path).stat().st_size for path in source.files),
        "warnings": warnings,
        "labels": labels,
    }


def duration(seconds: float) -> str:
    """`'40 s'`, `'12 min'`, `'3.5 h'`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
