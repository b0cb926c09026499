"""Ingest: what a scan is, from its headers and a few slices, in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from .corrections import estimate
from .errors import InputError
from .fov import inside_mask
from .provenance import digest, read_json, write_json
from .readers import Source, how_to_read, known_size, open_source
from .readers.source import content_digest, file_stat
from .slabs import default_depth

SAMPLED_SLICES = 5
BLANK_SLICES = 64
MISMATCH = 0.02


def ingest(
    path: str | Path,
    dataset: str | None,
    settings: dict[str, Any],
    out_scan: str | Path,
    out_source: str | Path,
    *,
    name: str,
    voxel_size_um: float | list[float] | None = None,
    n_slices: int = 1,
    histogram: str | Path | None = None,
    correct: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Take in a scan: write `scan.json` (what it is) and `source.json` (where it lies now).

    `scan.json` depends on the voxels' content alone. Where the input's place, time stamps or sizes differ from those
    of the last time and a histogram was made since, the voxels are read again and compared with the histogram's
    digest; only if they differ does `scan.json` change, by its entry `content`. An input that was archived away leaves
    both as they were. What the comparison needs lies in
    `.ingest.json` beside `scan.json`, since declared outputs are deleted before a job runs.

    Parameters
    ----------
    path : path
        The input; relative to the working directory or absolute.
    dataset : str, optional
        Data set inside an HDF5 file.
    settings : dict
        Section `ingest`: fov {kind, cy, cx, radius, value}, axes, flip, level, allow_gaps, external_links; and the key
        `slab_depth` (0 chooses).
    out_scan, out_source : path
    name : str
        The sample's name.
    voxel_size_um : float or [z, y, x], optional
        In place of what the file says, micrometres.
    n_slices : int
        Slices that the network sees at once; a thinner scan is refused.
    histogram : path, optional
        `histogram.npz` of an earlier run, if there is one.
    correct : dict, optional
        `runs.corrections` of the run; what they need to know of the scan is estimated from a few slices.

    Returns
    -------
    dict
        The content of `scan.json`.

    Raises
    ------
    InputError
        For input that cannot be read, and settings that do not fit it.
    """
    out_scan = Path(out_scan)
    sidecar = out_scan.with_name(".ingest.json")
    asked = digest([str(Path(path).absolute()), dataset, settings, name, voxel_size_um, correct])
    if not Path(path).exists() and sidecar.exists() and (held := read_json(sidecar)).get("asked") == asked:
        print(f"{path} is not there; what was known of it is kept, and whatever needs its voxels will fail")
        write_json(out_scan, held["scan"])
        write_json(out_source, held["source"])
        return dict(held["scan"])
    how = how_to_read(dataset, settings)
    source = open_source(path, **how)
    size, doubts = known_size(source, voxel_size_um)
    refuse_thin(path, source.shape, n_slices)
    depth = settings["slab_depth"] or default_depth(source.shape)
    fov = field_of_view(source, settings["fov"])
    refuse_blank(path, source, fov)
    scan: dict[str, Any] = {
        "name": name,
        "shape": list(source.shape),
        "dtype": source.dtype.name,
        "voxel_size_um": size,
        "fov": fov,
        "slab_depth": int(depth),
        "format": source.format,
        "axes": source.axes,
        "flip": list(source.flip),
        "warnings": [*source.warnings, *doubts],
    }
    if correct is not None:
        scan["correction"] = estimate(source, scan["fov"], correct)
    where = {"path": str(Path(path).absolute()), **how, "files": file_stat(source.files)}
    first, content = _content(source, where, sidecar, histogram)
    if content is not None and content != first:
        scan["content"] = content
    write_json(out_scan, scan)
    write_json(out_source, where)
    write_json(sidecar, {"source": where, "first": first, "content": content, "scan": scan, "asked": asked})
    return scan


def refuse_thin(path: str | Path, shape: tuple[int, int, int], n_slices: int) -> None:
    """Raise InputError for a scan of fewer slices than the network's stack."""
    if shape[0] < n_slices:
        raise InputError(
            path,
            f"{shape[0]} slices of {shape[1]}×{shape[2]}",
            f"at least {n_slices}, the stack of slices that the network sees (`model.n_slices`)",
            "correct the order of the axes (`ingest.axes`) if z is another axis, or set a smaller odd `model.n_slices`",
        )


def refuse_blank(path: str | Path, source: Source, fov: dict[str, Any]) -> None:
    """Raise InputError for a scan of one value, or of no number, in the field of view of up to 64 slices.

    They are read one by one, from the middle outwards by halves, until two values are found: usually in the first.
    """
    seen: float | None = None
    last = source.shape[0] - 1
    few = range(last + 1) if last < BLANK_SLICES else ()
    chosen = dict.fromkeys([*(round(share * last) for share in _halves(BLANK_SLICES)), *few])
    for z in chosen:
        raw = source.read(z, z + 1)
        values = raw[inside_mask(raw, fov)]
        if not values.size:
            continue
        least, most = float(values.min()), float(values.max())
        if least != most or (seen is not None and seen != least):
            return
        seen = least
    found = "no finite voxel" if seen is None else f"one value only, {seen:g},"
    raise InputError(
        path,
        f"{found} in the field of view of {len(chosen)} slices",
        "a reconstructed volume",
        "check ingest.fov and the reconstruction",
    )


def _halves(count: int) -> list[float]:
    """1/2, 1/4, 3/4, 1/8 …: `count` numbers that cover 0 … 1 ever more finely (van der Corput's)."""
    return [sum((k >> bit & 1) / 2 ** (bit + 1) for bit in range(k.bit_length())) for k in range(1, count + 1)]


def _content(
    source: Source, where: dict[str, Any], sidecar: Path, histogram: str | Path | None
) -> tuple[str | None, str | None]:
    """(digest of the content first seen, of the content now), None while no pass has found one."""
    before: dict[str, Any] = (
        read_json(sidecar) if sidecar.exists() else {"source": where, "first": None, "content": None}
    )
    first: str | None = before["first"]
    content: str | None = before["content"]
    if first is None and histogram is not None and Path(histogram).exists():
        with np.load(histogram) as found:
            first = content = str(found["content"])
    if first is not None and where != before["source"]:
        content = content_digest(source)
    return first, content


def field_of_view(source: Source, settings: dict[str, Any]) -> dict[str, Any]:
    """The `fov` of `scan.json`: as the settings say, or found in up to 5 slices.

    `auto` takes a circle where the corners of the sampled slices hold one constant (or NaN) and the pixels that
    always hold it lie outside a disc, to 2 % of the smaller of disc and corners; else the full slice.

    Raises
    ------
    InputError
        If a circle's settings are incomplete or it misses the slice, or the scan's type cannot hold the marker.
    """
    kind = settings["kind"]
    given = {key: float(settings[key]) for key in ("cy", "cx", "radius") if settings.get(key) is not None}
    if kind == "auto":
        return _found_circle(_sample(source)) or {"kind": "full"}
    if kind == "full":
        return {"kind": "full"}
    rows, columns = source.shape[1:]
    if kind == "circle" or given:
        given = {"cy": (rows - 1) / 2, "cx": (columns - 1) / 2, **given}
        near = (np.clip(given["cy"], 0, rows - 1), np.clip(given["cx"], 0, columns - 1))
        gap = np.hypot(near[0] - given["cy"], near[1] - given["cx"])
        if not given.get("radius", 0) > gap:
            raise InputError(
                "ingest.fov",
                f"radius {given.get('radius')}",
                "a circle that meets the slice",
                "set fov.radius in pixels",
            )
    if kind == "constant":
        return {"kind": "constant", "value": _marker(settings["value"], source.dtype), **given}
    return {"kind": "circle", **given}


def _marker(value: float | None, dtype: np.dtype) -> float | None:
    """The value that marks the outside; None stands for NaN."""
    if value is None or np.isnan(value):
        return None
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        if value != round(value) or not info.min <= value <= info.max:
            raise InputError(
                "ingest.fov.value",
                f"{value:g}, in a scan of {dtype.name}",
                f"a whole number from {info.min} to {info.max}",
                "set fov.value to the value that the scan has outside",
            )
    return value


def _sample(source: Source) -> np.ndarray:
    """Up to 5 slices between 10 % and 90 % of the height, (n, y, x)."""
    last = source.shape[0] - 1
    chosen = np.unique(np.linspace(0.1 * last, 0.9 * last, SAMPLED_SLICES).round().astype(int))
    return np.concatenate([source.read(z, z + 1) for z in chosen.tolist()])


def _found_circle(slices: np.ndarray) -> dict[str, Any] | None:
    """The disc outside which all slices hold the corners' constant or NaN, else None."""
    corners = slices[:, [0, 0, -1, -1], [0, -1, 0, -1]]
    empty = np.isnan(slices) if slices.dtype.kind == "f" else np.zeros(slices.shape, bool)
    constant = corners.ravel()[~empty[:, [0, 0, -1, -1], [0, -1, 0, -1]].ravel()]
    if constant.size:
        if (constant != constant[0]).any():
            return None
        empty |= slices == constant[0]
    inside = ndimage.binary_fill_holes(~empty.all(axis=0))
    outside_area, area = int((~inside).sum()), int(inside.sum())
    if min(outside_area, area) < 16:
        return None
    rim = inside & ~ndimage.binary_erosion(inside, border_value=1)
    y, x = (v.astype(float) for v in np.nonzero(rim))
    if len(y) < 8:
        return None
    # Circle through the rim by linear least squares (Kåsa 1976): y² + x² = 2 cy y + 2 cx x + c.
    system = np.stack([2 * y, 2 * x, np.ones_like(y)], axis=1)
    (cy, cx, c), *_ = np.linalg.lstsq(system, y * y + x * x, rcond=None)
    if cy * cy + cx * cx + c <= 0:
        return None
    cy, cx, radius, wrong = _refined(inside, cy, cx, float(np.sqrt(c + cy * cy + cx * cx)))
    if wrong > MISMATCH * min(area, outside_area):
        return None
    return {"kind": "circle", "cy": cy, "cx": cx, "radius": radius}


def _refined(inside: np.ndarray, cy: float, cx: float, radius: float) -> tuple[float, float, float, int]:
    """Centre and radius, in half pixels near the fit, that differ least from the mask, and by how many pixels."""
    rows, columns = np.ogrid[: inside.shape[0], : inside.shape[1]]
    distance = np.hypot(rows - cy, columns - cx)
    near = np.abs(distance - radius) < 5
    far_wrong = int(((distance <= radius) != inside)[~near].sum())
    y, x = np.nonzero(near)
    wanted = inside[near]
    grid = np.arange(-1, 1.01, 0.5)
    trials = [
        (round(2 * cy) / 2 + dy, round(2 * cx) / 2 + dx, round(2 * radius) / 2 + dr)
        for dy in grid
        for dx in grid
        for dr in np.arange(-1, 2.01, 0.5)
    ]
    best = min(
        (int((((y - a) ** 2 + (x - b) ** 2 <= r * r) != wanted).sum()), abs(a - cy) + abs(b - cx), a, b, r)
        for a, b, r in trials
        if r > 0
    )
    return float(best[2]), float(best[3]), float(best[4]), best[0] + far_wrong
