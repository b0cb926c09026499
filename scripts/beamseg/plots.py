"""The charts of the report, from curves, histograms and what `evaluate` found."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from . import figures
from .figures import INK
from .metrics import STAGES, stage_names
from .palette import word_of
from .shading import beyond


def stages(result: dict[str, Any]) -> Figure:
    """With truth accuracy, mean IoU and IoU per class by stage; without it fractions, agreement and confidence."""
    keys = stage_names(result)
    names = [STAGES[name] for name in keys]
    product = keys.index(result["product"]["stage"])
    entries = [result["stages"][name] for name in keys]
    if not result["has_truth"]:
        return _stages_without_truth(result, names, entries)
    classes = [entry["name"] for entry in result["truth"]]
    width = max(1.4, 0.85 * len(classes))
    figure = Figure(figsize=(8.2 + width, 0.9 + 0.42 * len(names)))
    left, middle, right = figure.subplots(1, 3, width_ratios=(3, 3, width))
    figures.bars(left, names, [entry["accuracy"] for entry in entries], "accuracy", product)
    figures.bars(middle, names, [entry["mean_iou"] for entry in entries], "mean IoU", product)
    middle.set_yticklabels([])
    shares = np.array([[entry["classes"][c]["iou"] for c in classes] for entry in entries], dtype=float)
    figures.heat(right, shares, [""] * len(names), classes, "IoU per class, %", width / len(classes))
    return figure


def _stages_without_truth(result: dict[str, Any], names: list[str], entries: list[dict[str, Any]]) -> Figure:
    table = result["classes"]
    classes = [row["name"] for row in table]
    figure = Figure(figsize=(10, 1.3 + 0.42 * len(names)))
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    start = np.zeros(len(names))
    for row in table:
        share = np.array([100 * (entry["fractions"][row["name"]] or 0) for entry in entries])
        left.barh(names, share, left=start, color=row["colour"], edgecolor="white", linewidth=0.6, height=0.62)
        start += share
    left.invert_yaxis()
    left.set(xlim=(0, 100), title="class fractions in the field of view, %")
    left.tick_params(length=0)
    left.spines[["left", "bottom"]].set_visible(False)
    figures.legend(figure, classes, [row["colour"] for row in table])
    equal = np.full((len(names), len(names)), np.nan)
    keys = stage_names(result)
    for entry in result["agreement"]:
        i, j = (keys.index(stage) for stage in entry["stages"])
        equal[j, i] = entry["equal"] if entry["equal"] is not None else np.nan
    if len(names) > 1:
        figures.heat(
            right, equal[1:, :-1], names[1:], names[:-1], "same class in both stages, %", 3.6 / (len(names) - 1)
        )
    else:
        right.axis("off")
    return figure


def histogram(
    edges: np.ndarray,
    counts: np.ndarray,
    limits: tuple[float, float],
    table: list[dict[str, Any]],
    clusters: list[dict[str, Any]],
) -> Figure:
    """Histogram of the scan's own values, each class in its colour, cuts and the clipped range marked.

    `clusters` have intervals of grey levels 1 … 65535, of which `limits` are the scan's values; none where grey levels
    do not decide. Without `table` there are no colours.
    """
    low, high = limits
    margin = 0.06 * (high - low)
    step = max(1, int(np.count_nonzero((edges > low - margin) & (edges < high + margin)) / 400))
    # Scans of few bits leave empty bins between their values: whole multiples of their spacing are shown.
    gaps = np.diff(np.flatnonzero(counts))
    spacing = max(1, min(int(np.median(gaps)) if gaps.size else 1, len(counts) // 64))
    step = -(-step // spacing) * spacing
    whole = len(counts) // step * step
    density = counts[:whole].reshape(-1, step).sum(axis=1)
    borders = edges[: whole + 1 : step]
    middle = (borders[1:] + borders[:-1]) / 2
    figure = Figure(figsize=(9, 3))
    axes = figure.subplots()
    colour = {cluster: row["colour"] for row in table for cluster in row["clusters"]}
    level = 1 + (np.clip(middle, low, high) - low) / max(high - low, 1e-300) * 65534
    for cluster in clusters:
        for first, last in cluster["intervals"]:
            inside = (level >= first - 0.5) & (level < last + 0.5)
            tint = colour[cluster["id"]]
            axes.bar(middle[inside], density[inside], np.diff(borders)[inside], color=tint, linewidth=0)
            if first > 1:
                cut = low + (first - 1) / 65534 * (high - low)
                axes.axvline(cut, color=INK, linewidth=0.9, linestyle=(0, (4, 2)))
    axes.plot(middle, density, drawstyle="steps-mid", color=INK, linewidth=0.6)
    axes.axvspan(low - margin, low, color="#e3e7eb", zorder=0)
    axes.axvspan(high, high + margin, color="#e3e7eb", zorder=0)
    axes.set(xlim=(low - margin, high + margin), xlabel="value in the scan", ylabel="voxels")
    axes.set_yscale("symlog", linthresh=max(1.0, float(density.max()) / 1000))
    axes.set_ylim(0, float(density.max()) * 1.6 + 1)
    axes.minorticks_off()
    names = [row["name"] for row in table]
    axes.legend(
        handles=[Patch(facecolor=row["colour"], edgecolor=figures.FAINT, label=row["name"]) for row in table]
        + [Patch(facecolor="#e3e7eb", label="clipped")],
        loc="center left",
        bbox_to_anchor=(1.0, 0.5),
        ncols=1 if len(names) < 9 else 2,
    )
    return figure


def shading(found: dict[str, Any], measured: dict[str, Any], limits: tuple[float, float]) -> Figure:
    """Drift along z, cupping, rings, and per slice what is clipped or no number.

    Parameters
    ----------
    found, measured : dict
        Content of `histogram.npz` and what `shading.measured` made of it.
    limits : (lo, hi)
        Grey range; levels are drawn in per cent of it.
    """
    width = limits[1] - limits[0]
    values = found["slice_quantiles"].astype(float)
    z = np.arange(len(values))
    figure = Figure(figsize=(10, 5.2))
    (along_z, from_middle), (ring, defects) = figure.subplots(2, 2)
    levels = {"mean": found["slice_mean"], "median": values[:, values.shape[1] // 2]}
    levels = {name: 100 * (level - limits[0]) / width for name, level in levels.items()}
    figures.lines(along_z, z, levels, [INK, "#0072B2"], title="grey level of a slice, % of the range", xlabel="slice")
    along_z.legend(fontsize=7.5)
    cup = 100 * np.array(measured["cupping"]["profile"])
    place = np.linspace(0, 1, len(cup))
    title = "mean over z from the middle (0) to the rim (1), % of the range"
    figures.lines(from_middle, place, {"cupping": cup}, [INK], title=title)
    profile = 100 * found["ring_profile"] / width
    title = "level of rings, % of the range"
    figures.lines(ring, np.arange(len(profile)), {"rings": profile}, [INK], title=title, xlabel="radius, pixels")
    voxels = np.maximum(found["slice_voxels"] + found["slice_nan"], 1)
    low, high = beyond(values, limits)
    shares = {"below the range": low, "above the range": high, "no number": found["slice_nan"] / voxels}
    shares = {name: 100 * share for name, share in shares.items()}
    title = "voxels of a slice, %"
    figures.lines(defects, z, shares, ["#0072B2", "#E69F00", "#D55E00"], title=title, xlabel="slice")
    defects.set_ylim(bottom=0)
    defects.legend(fontsize=7.5)
    return figure


def elbow(found: dict[str, list[Any]], n_clusters: int) -> Figure:
    """Inertia and separation over the number of clusters (`clusters.elbow`); the chosen number is marked."""
    k = np.array(found["k"])
    figure = Figure(figsize=(9, 2.8))
    left, right = figure.subplots(1, 2)
    for axes, name, title in (
        (left, "inertia", "variance within the clusters, share of all"),
        (right, "separation", "distance of the closest two clusters, in σ"),
    ):
        values = np.array(found[name], dtype=float)
        figures.lines(axes, k, {name: values}, [INK], title=title, xlabel="number of clusters K")
        axes.plot(k, values, "o", color=INK, markersize=4)
        axes.axvline(n_clusters, color=INK, linewidth=0.9, linestyle=(0, (4, 2)))
        axes.set_xlim(1.5, max(8.5, n_clusters + 0.5))
        axes.set_ylim(bottom=0)
    right.axhline(np.sqrt(12), color="#9aa5b1", linewidth=0.9)
    return figure


def curves(
    series: dict[str, list[tuple[str, dict[str, np.ndarray], np.ndarray]]], colours: list[str], names: list[str]
) -> Figure:
    """Training curves: a row per stage of panels (title, name -> values, steps); `class <n>` is the n-th of `names`."""
    rows = [(stage, panels) for stage, panels in series.items() if panels]
    columns = max((len(panels) for _, panels in rows), default=1)
    figure = Figure(figsize=(3.6 * columns, 2.5 * max(1, len(rows))))
    axes = figure.subplots(max(1, len(rows)), columns, squeeze=False)
    for place in axes.ravel():
        place.axis("off")
    if not rows:
        axes[0, 0].text(0.5, 0.5, "no curves", ha="center")
    plain = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999"]
    for line, (stage, panels) in zip(axes, rows, strict=True):
        for place, (title, values, steps) in zip(line, panels, strict=False):
            place.axis("on")
            per_class = all(name.startswith("class ") for name in values)
            chosen = colours if per_class else plain
            chosen = [chosen[i % len(chosen)] for i in range(len(values))]
            if per_class:
                values = {names[int(key[6:])] if int(key[6:]) < len(names) else key: v for key, v in values.items()}
            figures.lines(place, steps, values, chosen, title=f"{stage}: {title}", xlabel="step")
            if len(values) > 1:
                place.legend(fontsize=7.5, loc="best", ncols=2 if len(values) > 3 else 1)
            place.set_ylim(
                bottom=min(0.0, *(float(np.nanmin(v)) for v in values.values() if np.isfinite(v).any()), 0.0)
            )
    return figure


def matching(result: dict[str, Any]) -> Figure:
    """Cluster → class heat map (with truth), and where the first stage's voxels went in the product."""
    table, word = [row["name"] for row in result["classes"]], word_of(result)
    maps = []
    if result["has_truth"]:
        counts = np.array(result["matching"]["voxels"], dtype=float)[:-1]
        truth = [entry["name"] for entry in result["truth"]]
        maps.append((counts, truth, f"{STAGES[result['matching']['stage']]} and truth, % of the {word}", "truth"))
    if result["moves"]:
        counts = np.array(result["moves"]["voxels"], dtype=float)[:-1]
        columns = [*table, "unlabelled"] if counts[:, -1].any() else table
        first, last = (STAGES[result["moves"][key]] for key in ("from", "to"))
        maps.append((counts[:, : len(columns)], columns, f"from {first} to {last}, % of the {word}", last))
    figure = Figure(figsize=(5.2 * max(1, len(maps)), 1.3 + 0.42 * len(table)))
    axes = figure.subplots(1, max(1, len(maps)), squeeze=False)[0]
    if not maps:
        axes[0].axis("off")
        axes[0].text(0.5, 0.5, f"the product is the first stage, {STAGES[stage_names(result)[0]]}", ha="center")
    for place, (counts, columns, title, below) in zip(axes, maps, strict=False):
        figures.heat(place, _of_rows(counts), table, columns, title, 4.2 / len(columns), below)
    return figure


def _of_rows(counts: np.ndarray) -> np.ndarray:
    """Counts as shares of their row; NaN where it is empty."""
    sums = counts.sum(axis=1, keepdims=True)
    return np.divide(counts, sums, out=np.full(counts.shape, np.nan), where=sums > 0)


def moves(runs: dict[str, tuple[list[str], np.ndarray]], word: str) -> Figure:
    """A heat map per run: where the voxels of each cluster ended in stage 3.

    `runs` name -> (names of the K clusters, voxels (K, K) by cluster and class).
    """
    widest = max(len(names) for names, _ in runs.values())
    figure = Figure(figsize=((1.4 + 0.62 * widest) * len(runs), 1.3 + 0.42 * widest))
    for place, (run, (names, counts)) in zip(
        figure.subplots(1, len(runs), squeeze=False)[0], runs.items(), strict=True
    ):
        figures.heat(place, _of_rows(counts), names, names, f"{run}, % of the {word}", 0.6, "stage 3")
    return figure


def profile(result: dict[str, Any], slice_um: float | None) -> Figure:
    """Class fractions of the product along z, and the share of voxels on which not all stages agree."""
    table = result["classes"]
    found = result["profile"]["fractions"]
    fractions = {row["name"]: np.array(found[row["name"]], dtype=float) * 100 for row in table}
    disputed = np.array(result["profile"]["disputed"], dtype=float) * 100
    z = np.arange(len(disputed))
    figure = Figure(figsize=(10, 3.4))
    left, right = figure.subplots(1, 2, width_ratios=(1.6, 1))
    colours = [row["colour"] for row in table]
    note = "slice (z)"
    figures.lines(left, z, fractions, colours, title="fractions of the product, %", xlabel=note)
    left.set_ylim(0, max(5, min(100, 1.1 * max(np.nanmax(v, initial=0) for v in fractions.values()))))
    figures.lines(right, z, {"disputed": disputed}, [INK], title="voxels on which stages disagree, %", xlabel=note)
    right.set_ylim(0, max(1.0, 1.1 * float(np.nanmax(disputed, initial=0))))
    names = [row["name"] for row in table]
    if slice_um is not None:
        long = slice_um * len(z) >= 1000
        scale = slice_um / (1000 if long else 1)
        for axes in (left, right):
            top = axes.secondary_xaxis("top", functions=(lambda v: v * scale, lambda v: v / scale))
            top.set_xlabel("mm" if long else "µm", fontsize=8)
            top.tick_params(labelsize=8)
    figures.legend(figure, names, colours)
    return figure


def study(
    cells: list[str],
    series: dict[str, tuple[str, str, list[tuple[float | None, float | None]]]],
    paper: dict[str, list[float | None]],
) -> Figure:
    """A panel per quantity, a line per cell: mean and standard deviation over seeds, and the paper's number hollow.

    `series` key -> (quantity, name, (mean, deviation) per cell); `paper` key -> number per cell, for keys of `series`.
    """
    panels = list(dict.fromkeys(quantity for quantity, _, _ in series.values()))
    figure = Figure(figsize=(1.6 + 3.1 * len(panels), 1.3 + 0.3 * len(cells)))
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    tints = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00"]
    for place, panel in zip(axes, panels, strict=True):
        shown = [(key, name, values) for key, (quantity, name, values) in series.items() if quantity == panel]
        for index, (key, name, values) in enumerate(shown):
            tint = tints[index % len(tints)]
            # Series stand a little above each other, so that none hides another.
            offset = 0.22 * (index - (len(shown) - 1) / 2)
            for row, (mean, deviation) in enumerate(values):
                if mean is not None:
                    label = name if row == next(i for i, (m, _) in enumerate(values) if m is not None) else None
                    place.errorbar(mean, row + offset, xerr=deviation, fmt="o", color=tint, markersize=4.5, label=label)
                if (theirs := paper.get(key, [None] * len(cells))[row]) is not None:
                    place.plot(theirs, row + offset, "D", mfc="none", mec=tint, markersize=5.5)
        place.set(title=panel if panel.endswith((", s", "of the angle")) else f"{panel}, %", yticks=range(len(cells)))
        place.grid(True)
        place.set_axisbelow(True)
        if place.get_legend_handles_labels()[0]:
            place.legend(fontsize=7.5, loc="upper center", bbox_to_anchor=(0.5, 0), borderaxespad=2.8)
    axes[0].set_yticklabels(cells)
    axes[0].invert_yaxis()
    if paper:
        figure.supxlabel("filled: measured here; hollow: the paper", fontsize=8)
    return figure
