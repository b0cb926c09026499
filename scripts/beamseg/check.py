"""check: validate every sample before anything expensive starts, and forecast time, memory and disk."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch

from .config import PHANTOM, Run, load_runs
from .device import choose
from .errors import InputError
from .ingest import refuse_thin
from .inputs import user_labels, user_truth
from .models import build_model
from .readers import how_to_read, known_size, open_source
from .runs import Runs
from .summary import text_table
from .train import n_steps

COLUMNS = ("sample", "group", "shape", "dtype", "voxel µm", "scan GB", "cache GB", "results GB", "predict", "state")
LABEL_BYTES = 1 / 15  # per voxel and stage of labels: gzip makes them 15 to 20 times smaller
STAGES_OF_LABELS = 5
CONFIDENCE_BYTES = 0.5


def check(workdir: Path, basedir: Path) -> int:
    """Open every scan, its labels and truth; time the network; print a table and the forecast of each group.

    Returns
    -------
    int
        Exit status: 1 if any sample is not valid.
    """
    loaded, _ = load_runs(workdir, basedir)
    graph = Runs(loaded)
    rates: dict[str, tuple[float, float]] = {}
    rows: list[dict[str, str]] = []
    errors: list[str] = []
    slices: dict[str, int] = {}
    for run in loaded.values():
        row = dict.fromkeys(COLUMNS, "") | {"sample": run.name, "group": run.group, "state": "ok"}
        try:
            found = inspect(run)
        except InputError as error:
            errors.append(f"{run.name}: {error}")
            rows.append(row | {"state": "error"})
            continue
        shape = found["shape"]
        slices[run.name] = shape[0]
        key = repr([run.get("model"), run.get("train"), run.get("pseudo_label.n_clusters"), run.get("device")])
        if key not in rates:
            rates[key] = network_rates(run)
        _, per_crop = rates[key]
        voxels = math.prod(shape)
        tile = run.get("train.crop")
        tiles = shape[0] * math.prod(max(1, math.ceil(n / (0.75 * tile))) for n in shape[1:])
        rows.append(
            row
            | {
                "shape": "×".join(map(str, shape)),
                "dtype": found["dtype"],
                "voxel µm": found["voxel"],
                "scan GB": f"{found['bytes'] / 1e9:.3g}",
                "cache GB": f"{voxels * 1.4 / 1e9:.3g}",
                "results GB": f"{voxels * (STAGES_OF_LABELS * LABEL_BYTES + 2 * CONFIDENCE_BYTES) / 1e9:.3g}",
                "predict": duration(2 * tiles * per_crop),
                "state": "ok" if not found["warnings"] else f"ok, {len(found['warnings'])} warnings",
            }
        )
        errors += [f"{run.name}: warning: {warning}" for warning in found["warnings"]]
    print(text_table(rows, COLUMNS, 200))
    for group, members in graph.groups.items():
        if any(name not in slices for name in graph.references(group)):
            continue
        run = loaded[members[0]]
        key = repr([run.get("model"), run.get("train"), run.get("pseudo_label.n_clusters"), run.get("device")])
        epoch = sum(slices[name] for name in graph.references(group))
        steps = [n_steps(run.get(stage), epoch) for stage in ("train", "self_correct")]
        seconds = [steps[0] * rates[key][0], steps[1] * rates[key][0] * 1.4]
        print(
            f"group {group}: {len(members)} scans, trains on {', '.join(graph.references(group))}; "
            f"stage 2 {steps[0]} steps, {duration(seconds[0])}; stage 3 {steps[1]} steps, {duration(seconds[1])} "
            f"on {choose(run.get('device')).name}, {torch.get_num_threads()} threads"
        )
    print(*errors, sep="\n")
    bad = sum(row["state"] == "error" for row in rows)
    print(f"{len(rows) - bad} of {len(rows)} samples are valid")
    return int(bad > 0)


def inspect(run: Run) -> dict[str, Any]:
    """Shape, type, size and warnings of a run's scan; its labels and truth are opened and compared with it."""
    if run.get("path") == PHANTOM:
        size = run.get("phantom.size")
        voxel = f"{run.get('phantom.voxel_size_um'):g}"
        return {"shape": size, "dtype": "float32", "voxel": voxel, "bytes": 4 * math.prod(size), "warnings": []}
    source = open_source(run.file("path") or "", **how_to_read(run.get("dataset"), run.get("ingest")))
    size, doubts = known_size(source, run.get("voxel_size_um"))
    refuse_thin(run.file("path") or "", source.shape, run.get("model.n_slices"))
    warnings = [*source.warnings, *doubts]
    truth = user_truth(run.get("evaluate"), str(run.file("truth") or ""), source.shape)
    n_classes = run.get("pseudo_label.n_clusters") if run.get("label_source") == "slices" else None
    labels = user_labels(run.get("labels"), str(run.file("labels.path") or ""), source.shape, n_classes)
    for what, given in (("truth", truth), ("labels", labels)):
        warnings += [f"{what}: {warning}" for warning in (given.warnings if given else [])]
    return {
        "shape": source.shape,
        "dtype": source.dtype.name,
        "voxel": "unknown" if size is None else "×".join(f"{v:g}" for v in size),
        "bytes": sum(Path(path).stat().st_size for path in source.files),
        "warnings": warnings,
    }


def network_rates(run: Run) -> tuple[float, float]:
    """Seconds of a training step and of predicting one crop, measured on this machine with three of each."""
    compute = choose(run.get("device"))
    batch, crop = run.get("train.batch"), run.get("train.crop")
    n_classes = run.get("pseudo_label.n_clusters")
    model = build_model(run.get("model.name"), run.get("model.n_slices"), n_classes).to(compute.device)
    images = torch.rand(batch, run.get("model.n_slices"), crop, crop, device=compute.device)
    images = images.contiguous(memory_format=torch.channels_last)

    def step() -> float:
        started = time.monotonic()
        with compute.precision():
            loss = model(images).float().square().mean()
        loss.backward()
        float(loss.detach())  # waits for the device
        return time.monotonic() - started

    def predict() -> float:
        started = time.monotonic()
        with torch.inference_mode(), compute.precision():
            float(model(images).float().mean())
        return (time.monotonic() - started) / batch

    step()
    return min(step() for _ in range(3)), min(predict() for _ in range(3))


def duration(seconds: float) -> str:
    """`'40 s'`, `'12 min'`, `'3.5 h'`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
