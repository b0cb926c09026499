"""quantities: how much there is of each class, its surface, its pieces, how thick it is and whether it connects."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from . import figures
from .components import Sizes, component_sizes
from .label_values import UNLABELLED
from .morphology import DIRECTIONS, euler_counts, interface_areas, local_thickness, pair_counts
from .palette import class_ids
from .progress import Progress
from .provenance import atomic_path, write_json
from .volumes import TableVolume, Volume, block_depth

BYTES = {"counts": 24, "components": 48, "thickness": 72}
"""Per voxel that is held, with what is computed from it."""
METHODS = {
    "volume": "voxels of the class times the volume of a voxel; the fraction is of the field of view",
    "surface": "Crofton formula, 13 directions: within 2 % for surfaces without a preferred direction, a plane "
    "along the voxel grid comes out 7 % too small; the rim of the field of view is no surface",
    "components": "voxels of one class that touch by faces (6-connected), over the whole volume",
    "connectivity": "Euler number of the 6-connected class: pieces less tunnels plus cavities, cut off at the rim of "
    "the field of view; an axis is spanned by components that touch both ends of the volume",
    "thickness": "diameter of the largest ball in the class that holds a voxel (Hildebrand and Ruegsegger 1997), by "
    "at most 25 radii; right to a voxel; the rim of the window ends no object",
}
ORDER = ("volume", "surface", "components", "connectivity", "thickness")


def quantities(
    product: Volume,
    *,
    table: list[dict[str, Any]],
    stage: dict[str, Any],
    fov: dict[str, Any],
    voxel_size_um: Sequence[float] | None,
    settings: dict[str, Any],
    out_json: str | Path,
    out_csv: str | Path,
    out_sizes: str | Path,
    out_figure: str | Path,
    mem_budget_mb: float = 512,
) -> dict[str, Any]:
    """Measure the product and write numbers and a figure.

    Parameters
    ----------
    product : Volume
        uint8 cluster ids, 255 outside the field of view.
    table : list of dict
        The class table; what is measured are its classes.
    stage : dict
        `stage` and `reason` of the product.
    fov : dict
        Of `scan.json`.
    voxel_size_um : (z, y, x) or None
        None measures in voxels.
    settings : dict
        Section `quantities`: measure, thickness_window.
    out_json, out_csv, out_sizes, out_figure : path
        All numbers; a row per class and quantity; a row per class and size of components; a PNG.
    mem_budget_mb : float
        MiB that are held of the volume and of what is computed from it.

    Returns
    -------
    dict
        What `out_json` holds: stage, reason, unit, voxel_size_um, voxels, methods, notes, classes [{id, name, colour,
        and an entry per measure}], interfaces [{classes, area}].
    """
    measure = [name for name in ORDER if name in settings["measure"]]
    labels = TableVolume(product, class_ids(table))
    size = [1.0, 1.0, 1.0] if voxel_size_um is None else [float(v) for v in voxel_size_um]
    found = _count(labels, len(table), {"surface", "connectivity"} & set(measure), mem_budget_mb)
    result: dict[str, Any] = {
        "stage": stage["stage"],
        "reason": stage["reason"],
        "unit": "voxel" if voxel_size_um is None else "um",
        "voxel_size_um": None if voxel_size_um is None else size,
        "voxels": int(found["voxels"].sum()),
        "methods": {name: METHODS[name] for name in measure},
        "notes": [],
        "classes": [{key: row[key] for key in ("id", "name", "colour")} for row in table],
    }
    classes = result["classes"]
    if "volume" in measure:
        for row, voxels in zip(classes, found["voxels"].tolist(), strict=True):
            share = voxels / result["voxels"] if result["voxels"] else 0.0
            row["volume"] = {"voxels": voxels, "volume": voxels * float(np.prod(size)), "fraction": share}
    if "surface" in measure:
        areas = interface_areas(found["pairs"], size)
        for row, area, voxels in zip(classes, areas.sum(0), found["voxels"], strict=True):
            volume = float(voxels * np.prod(size))
            row["surface"] = {"area": float(area), "area_per_volume": float(area) / volume if voxels else None}
        result["interfaces"] = [
            {"classes": [table[a]["name"], table[b]["name"]], "area": float(areas[a, b])}
            for a in range(len(table))
            for b in range(a + 1, len(table))
            if areas[a, b] > 0
        ]
    sizes: list[Sizes] = []
    if {"components", "connectivity"} & set(measure):
        sizes = _components(labels, len(table), mem_budget_mb)
    if "components" in measure:
        for row, of in zip(classes, sizes, strict=True):
            row["components"] = _of_sizes(of)
    if "connectivity" in measure:
        circle = "radius" in fov
        if circle:
            result["notes"].append("a circular field of view has no ends along y and x: spanned along z alone")
        for row, of, voxels, euler in zip(classes, sizes, found["voxels"], found["euler"], strict=True):
            share = [None if not voxels or (circle and axis) else of.spanning[axis] / voxels for axis in range(3)]
            row["connectivity"] = {
                "euler": int(euler),
                "spanning_fraction": dict(zip("zyx", share, strict=True)),
                "spans": {a: None if s is None else bool(s > 0) for a, s in zip("zyx", share, strict=True)},
            }
    if "thickness" in measure:
        window = thickness_window(labels.shape, settings["thickness_window"], mem_budget_mb)
        shape = [w.stop - w.start for w in window]
        result["thickness_window"] = [[w.start, w.stop] for w in window]
        if tuple(shape) != labels.shape:
            whole = "×".join(map(str, labels.shape))
            part = "×".join(map(str, shape))
            result["notes"].append(f"thickness is of the middle {part} voxels of {whole}, at full resolution")
        block = labels.read(window[0].start, window[0].stop, window[1], window[2])
        with Progress(len(classes), "classes", "thickness") as progress:
            for row in classes:
                row["thickness"] = _thickness(block, row["id"], size)
                progress.update()
    write_json(out_json, result)
    _write_rows(out_csv, ("class", "quantity", "value", "unit"), rows(result))
    _write_rows(out_sizes, ("class", "voxels", "volume", "components"), _size_rows(table, sizes, size, measure))
    with figures.style():
        figures.save(plot(result, sizes), out_figure, [row["colour"] for row in table])
    return result


def _count(labels: Volume, n: int, wanted: set[str], mem_budget_mb: float) -> dict[str, np.ndarray]:
    """Voxels of each class and, where they are wanted, pairs of neighbours and Euler numbers."""
    voxels, euler = np.zeros(n, np.int64), np.zeros(n, np.int64)
    pairs = np.zeros((len(DIRECTIONS), n, n), np.int64)
    depth = labels.shape[0]
    step = block_depth(labels.shape, mem_budget_mb, BYTES["counts"])
    for z0, z1 in _steps(depth, step, "counts"):
        piece = labels.read(z0, min(depth, z1 + 1))
        voxels += np.bincount(piece[: z1 - z0].ravel(), minlength=256)[:n]
        if "surface" in wanted:
            pairs += pair_counts(piece, z1 - z0, n)
        if "connectivity" in wanted:
            euler += euler_counts(piece, z1 - z0, n)
    return {"voxels": voxels, "pairs": pairs, "euler": euler}


def _components(labels: Volume, n: int, mem_budget_mb: float) -> list[Sizes]:
    step = block_depth(labels.shape, mem_budget_mb, BYTES["components"])
    with Progress(labels.shape[0], "slices", "components") as progress:

        def read(z0: int, z1: int) -> np.ndarray:
            progress.update(z1 - z0)
            return labels.read(z0, z1)

        return component_sizes(read, labels.shape[0], n, step)


def _steps(depth: int, step: int, what: str) -> Iterator[tuple[int, int]]:
    with Progress(depth, "slices", what) as progress:
        for z0 in range(0, depth, step):
            z1 = min(depth, z0 + step)
            yield z0, z1
            progress.update(z1 - z0)


def _of_sizes(found: Sizes) -> dict[str, Any]:
    """Number of components, and the largest, the mean and the median in voxels; None where there are none."""
    size = np.array(sorted(found.of), np.int64)
    count = np.array([found.of[int(n)] for n in size], np.int64)
    if not size.size:
        return {"count": 0, "largest": None, "largest_fraction": None, "mean": None, "median": None}
    total = int((size * count).sum())
    return {
        "count": int(count.sum()),
        "largest": int(size[-1]),
        "largest_fraction": int(size[-1]) / total,
        "mean": total / int(count.sum()),
        "median": int(size[np.searchsorted(count.cumsum(), count.sum() / 2)]),
    }


def thickness_window(shape: tuple[int, int, int], longest: int, mem_budget_mb: float) -> tuple[slice, slice, slice]:
    """The middle of a volume, at most `longest` voxels along each axis and within the budget."""
    edges = [min(n, longest) for n in shape]
    most = mem_budget_mb * 2**20 / BYTES["thickness"]
    while np.prod(edges, dtype=float) > most and max(edges) > 1:
        edges[int(np.argmax(edges))] -= 1
    z, y, x = (slice((n - edge) // 2, (n - edge) // 2 + edge) for n, edge in zip(shape, edges, strict=True))
    return z, y, x


def _thickness(block: np.ndarray, class_id: int, size: Sequence[float]) -> dict[str, Any]:
    """Mean, spread and quantiles over the voxels of a class, and a histogram; None where it has no thickness."""
    mask = block == class_id
    thickness = local_thickness(mask, size, block == UNLABELLED)[mask]
    if not thickness.size or not np.isfinite(thickness).all():
        return dict.fromkeys(("mean", "std", "p10", "median", "p90", "values", "fractions"))
    values, counts = np.unique(thickness, return_counts=True)
    p10, median, p90 = (float(v) for v in np.quantile(thickness, (0.1, 0.5, 0.9), method="inverted_cdf"))
    return {
        "mean": float(thickness.mean(dtype=float)),
        "std": float(thickness.std(dtype=float)),
        "p10": p10,
        "median": median,
        "p90": p90,
        "values": [float(v) for v in values],
        "fractions": [int(c) / thickness.size for c in counts],
    }


def rows(result: dict[str, Any]) -> Iterator[tuple[str, str, Any, str]]:
    """(class, quantity, value, unit) of every number of a result; what a class does not have is left out."""
    unit = result["unit"]
    units = {
        "volume.voxels": "voxels",
        "volume.volume": f"{unit}^3",
        "surface.area": f"{unit}^2",
        "surface.area_per_volume": f"1/{unit}",
        **{f"components.{key}": "voxels" for key in ("largest", "mean", "median")},
        **{f"thickness.{key}": unit for key in ("mean", "std", "p10", "median", "p90")},
    }
    for row in result["classes"]:
        for name in ORDER:
            for key, value in row.get(name, {}).items():
                parts = {f".{k}": v for k, v in value.items()} if isinstance(value, dict) else {"": value}
                for ending, number in parts.items():
                    if number is not None and not isinstance(number, list):
                        quantity = f"{name}.{key}{ending}"
                        yield (
                            row["name"],
                            quantity,
                            int(number) if isinstance(number, bool) else number,
                            units.get(quantity, ""),
                        )
    for entry in result.get("interfaces", []):
        yield " | ".join(entry["classes"]), "interface.area", entry["area"], f"{unit}^2"


def _size_rows(
    table: list[dict[str, Any]], sizes: list[Sizes], size: Sequence[float], measure: Sequence[str]
) -> Iterator[tuple[str, int, float, int]]:
    if "components" in measure:
        for row, found in zip(table, sizes, strict=True):
            for voxels in sorted(found.of):
                yield row["name"], voxels, voxels * float(np.prod(size)), found.of[voxels]


def _write_rows(path: str | Path, header: Sequence[str], lines: Iterator[tuple[Any, ...]]) -> None:
    with atomic_path(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(lines)


def plot(result: dict[str, Any], sizes: Sequence[Sizes]) -> Figure:
    """A chart per measure: fractions and areas as bars, components and thickness as distributions."""
    panels: list[Callable[[Any], None]] = []
    classes = result["classes"]
    unit = "µm" if result["unit"] == "um" else "voxels"
    names, colours = [row["name"] for row in classes], [row["colour"] for row in classes]

    def bars(values: Sequence[float | None], title: str) -> Callable[[Any], None]:
        def draw(axes: Any) -> None:
            axes.barh(names, [value or 0 for value in values], color=colours, edgecolor=figures.FAINT, linewidth=0.5)
            axes.invert_yaxis()
            axes.tick_params(axis="y", length=0)
            axes.set(title=title)

        return draw

    def components(axes: Any) -> None:
        for row, found in zip(classes, sizes, strict=True):
            size = np.array(sorted(found.of))
            count = np.array([found.of[int(n)] for n in size], float)
            if size.size:
                axes.step(size, count[::-1].cumsum()[::-1], where="pre", color=row["colour"], marker=".", markersize=4)
        axes.set(xscale="log", yscale="log", xlabel="voxels", title="components of at least this size")

    def thickness(axes: Any) -> None:
        for row in classes:
            if row["thickness"]["values"]:
                axes.step(
                    row["thickness"]["values"],
                    100 * np.cumsum(row["thickness"]["fractions"]),
                    where="post",
                    color=row["colour"],
                )
        axes.set(xlabel=unit, ylim=(0, 102), title="share of the class up to this thickness, %")

    first = classes[0]
    if "volume" in first:
        panels.append(bars([100 * row["volume"]["fraction"] for row in classes], "volume, % of the field of view"))
    if "surface" in first:
        panels.append(bars([row["surface"]["area_per_volume"] for row in classes], f"surface per volume, 1/{unit}"))
    if "components" in first:
        panels.append(components)
    if "connectivity" in first:
        along_z = [100 * (row["connectivity"]["spanning_fraction"]["z"] or 0) for row in classes]
        panels.append(bars(along_z, "share in components that span z, %"))
    if "thickness" in first:
        panels.append(thickness)
    figure = Figure(figsize=(3.4 * len(panels), 1.9 + 0.22 * len(names)))
    for axes, draw in zip(np.ravel(figure.subplots(1, len(panels))), panels, strict=True):
        draw(axes)
    figures.legend(figure, names, colours)
    return figure
