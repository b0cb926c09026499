"""release: delete slab files that can be rebuilt; their manifests stay, and readers fall back to the source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .provenance import read_json, write_json


def release(manifests: Sequence[str | Path], out: str | Path | None = None) -> dict[str, Any]:
    """Delete the slab files that manifests list.

    A manifest's bytes stay, so nothing that depends on it runs again.

    Returns
    -------
    dict
        `slabs` that were deleted, by file name, and how many `bytes` that freed; written to `out` if given.
    """
    names: list[str] = []
    size = 0
    for manifest in map(Path, manifests):
        for slab in read_json(manifest)["slabs"]:
            path = manifest.parent / slab["file"]
            if path.exists():
                size += path.stat().st_size
                path.unlink()
                names.append(slab["file"])
    result = {"slabs": sorted(names), "bytes": size}
    if out is not None:
        write_json(out, result)
    return result
