"""A sample's scan as a command opens it, before any stage has run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .config import Run
from .corrections import corrected, estimate
from .errors import InputError
from .ingest import field_of_view
from .layers import PHANTOM
from .readers import Source, how_to_read, open_source
from .runs import corrections, is_images, scan_path


def open_sample(runs: dict[str, Run], sample: str, results: Path) -> tuple[Run, Source, dict[str, Any]]:
    """The run of a sample, its corrected scan, and of scan.json fov and, where there is one, correction.

    Raises
    ------
    InputError
        For an unknown sample, one of frames, or a missing scan.
    """
    if sample not in runs:
        raise InputError("sample", repr(sample), f"one of {', '.join(runs)}", "see the sample table")
    run = runs[sample]
    if is_images(run):
        raise InputError("sample", f"{sample}, which is frames", "a volume", "run the workflow instead")
    path = scan_path(run, results)
    if path is None or not path.exists():
        remedy = "run the workflow once, which makes it" if run.get("path") == PHANTOM else "check the path"
        raise InputError(path or "path", "no such file", "a scan", remedy)
    source = open_source(path, **how_to_read(run.get("dataset"), run.get("ingest")))
    scan: dict[str, Any] = {"fov": field_of_view(source, run.get("ingest.fov"))}
    if chosen := corrections(run):
        scan["correction"] = estimate(source, scan["fov"], chosen)
        source = corrected(source, scan)
    return run, source, scan
