"""What a finished run left, opened for whoever looks at it afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .config import Run
from .errors import InputError
from .palette import class_ids
from .provenance import read_json
from .runs import Runs
from .slabs import SlabVolume
from .volumes import TableVolume, Volume, open_normalized

SLABS = {
    "stage2": ("segment_stage2", "segment/stage2"),
    "stage3": ("segment_stage3", "segment/stage3"),
    "mpp": ("refine_mpp", "refine_mpp"),
    "scm": ("refine_scm", "refine_scm"),
}


@dataclass(frozen=True)
class Finished:
    """A run that has its metrics: what it measured, and its volumes of class ids, uint8, 255 is unlabelled."""

    run: Run
    folder: Path
    metrics: dict[str, Any]
    product: Volume
    network: Volume
    """Labels of the network that the product comes from, before refinement; `confidence` is of these."""
    confidence: Volume
    grey: Volume
    """uint16 grey levels, 0 outside."""
    voxel_size_um: list[float] | None

    @property
    def names(self) -> list[str]:
        """Names of the classes, by id."""
        return [row["name"] for row in self.metrics["classes"]]


def open_finished(runs: Runs, name: str, results: Path) -> Finished:
    """Open the results of a run.

    Raises
    ------
    InputError
        If there is no such run, or it has not been evaluated yet.
    """
    if name not in runs.runs:
        raise InputError("sample", repr(name), f"one of {', '.join(runs.runs)}", "see the sample table")
    run = runs.runs[name]
    path = results / name / "metrics.json"
    if not path.exists():
        raise InputError(path, "no such file", "the metrics of a finished run", "run the workflow first")
    metrics = read_json(path)
    to_class = class_ids(metrics["classes"])
    parts = [f"{index + 1}-of-{run.get('parts')}.json" for index in range(run.get("parts"))]

    def slabs(stage: str, array: str) -> SlabVolume:
        rule, folder = SLABS[stage]
        manifests = [results / runs.owner(rule, name) / folder / part for part in parts]
        for manifest in manifests:
            if not manifest.exists():
                raise InputError(manifest, "no such file", "labels of a finished run", "run the workflow again")
        return SlabVolume(manifests, array)

    used = (metrics["verdict"] or {"use": "stage2"})["use"]
    scan = results / runs.owner("ingest", name) / "scan.json"
    plan = results / "groups" / runs.owner("plan", name) / "plan.json"
    cache = [results / runs.owner("normalize", name) / "normalize" / part for part in parts]
    return Finished(
        run,
        results / name,
        metrics,
        product=TableVolume(slabs(metrics["product"]["stage"], "labels"), to_class),
        network=TableVolume(slabs(used, "labels"), to_class),
        confidence=slabs(used, "confidence"),
        grey=open_normalized(scan, plan, [path for path in cache if path.exists()]),
        voxel_size_um=read_json(scan)["voxel_size_um"],
    )
