"""The report of a run: figures as PNG and a first page that answers "can I trust this, and where not?"."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from . import figures, plots
from .ledger import ledger
from .metrics import STAGES
from .page import write_page
from .palette import CLUSTER, COLOURS, word_of
from .provenance import read_json
from .report_view import View
from .shading import measured
from .verdicts import told
from .volumes import ArrayVolume, Volume

FIGURES = (
    "thumbnail",
    "stages",
    "overlays",
    "disputes",
    "views",
    "trust",
    "histogram",
    "shading",
    "elbow",
    "curves",
    "matching",
    "profile",
)


PRINT = "figures/print"
NO_GREY = np.uint16(32768)
WATCHED = {
    "kept": "confident pixels",
    "agreement": "agreement with stage 2",
    "consistency": "self-consistency",
    "unexplained": "contrast unexplained",
    "labelled": "mean IoU on your labels",
}


def report(
    *,
    metrics: str | Path,
    scan: str | Path,
    plan: str | Path,
    classes: str | Path,
    histogram: str | Path,
    curves: dict[str, str | Path],
    stages: dict[str, Volume],
    grey: Volume | None,
    truth_slices: str | Path | None,
    confidence: Volume | None,
    settings: dict[str, Any],
    out_figures: dict[str, str | Path],
    out_html: str | Path,
    weights: dict[str, str | Path] | None = None,
    compared: str | Path | None = None,
    quantities: str | Path | None = None,
    mem_budget_mb: float = 512,
) -> None:
    """Draw the figures and write the page that holds them.

    Parameters
    ----------
    metrics, scan, plan, classes, histogram : path
        What `evaluate`, `ingest`, `plan`, `pseudo_label` and `histogram` left.
    curves : dict
        Stage (stage2, stage3) -> CSV with a column `step`; of the rounds beside that of stage 2 the page has a table.
    stages : dict of Volume
        The volumes that `evaluate` was given, under the same names.
    grey : Volume or None
        uint16 grey levels, 0 outside the field of view; None where the scan was archived away.
    truth_slices : path or None
        The slices of the truth that `evaluate` left (npz: z, truth, left_out); the truth itself is opened there alone.
    confidence : Volume or None
        As given to `evaluate`.
    settings : dict
        The section `report`: slices, max_pixels, opacity, views_3d, figures.
    out_figures : dict
        Name -> path for every name in `FIGURES`; PNG, about 300 kB each at most. What `figures` of the settings names
        (pdf, png of 300 dpi) goes to the folder `print` beside them.
    out_html : path
        One file without links to others.
    weights : dict, optional
        Stage (stage2, stage3) -> weights. With them the page, and it alone, holds class activation maps.
    compared : path, optional
        What `compare` found, where a bundle was applied.
    quantities : path, optional
        What `quantities` measured; its figure lies beside those of the report.
    mem_budget_mb : float
        MiB of the volumes held at once. Slices are read singly; planes along z in thin blocks.
    """
    result, about = read_json(metrics), read_json(scan)
    word = word_of(result)
    clusters = read_json(classes)
    group = told(read_json(plan), clusters, None if compared is None else read_json(compared), word)
    if grey is None:
        group["warnings"].append("the scan is archived away: the pictures show labels without its grey levels")
        grey, weights = ArrayVolume(np.broadcast_to(NO_GREY, about["shape"])), None
    view = View(result, about, stages, grey, read_truth(truth_slices), settings)
    with np.load(histogram) as data:
        found = dict(data)
    view.facts["shading"] = measured(found, about, group["range"])
    colours = [row["colour"] for row in result["classes"]]
    cluster_colours = {c: row["colour"] for row in result["classes"] for c in row["clusters"]}
    # Clusters of grey levels have the colours of classes only where the classes are made of them.
    cut = (result["classes"], clusters["clusters"]) if word == CLUSTER else ([], [])
    draw: dict[str, Callable[[], Figure]] = {
        "thumbnail": view.thumbnail,
        "stages": lambda: plots.stages(result),
        "overlays": view.overlays,
        "disputes": view.disputes,
        "views": lambda: view.views(mem_budget_mb),
        "trust": lambda: view.trust(confidence),
        "histogram": lambda: plots.histogram(found["edges"], found["counts"], tuple(group["range"]), *cut),
        "shading": lambda: plots.shading(found, view.facts["shading"], tuple(group["range"])),
        "elbow": lambda: plots.elbow(clusters["elbow"], clusters["n_clusters"]),
        "curves": lambda: plots.curves(
            {STAGES[stage]: curve_panels(pd.read_csv(path)) for stage, path in curves.items()},
            [cluster_colours[c] for c in sorted(cluster_colours)] or colours,
            view.cluster_names(),
        ),
        "matching": lambda: plots.matching(result),
        "profile": lambda: plots.profile(result, (about.get("voxel_size_um") or [None])[0]),
    }
    if settings["views_3d"]:
        draw["views_3d"] = view.rendered
    if weights:
        draw["grad_cam"] = lambda: view.activation(weights)
    stale = set(Path(out_html).parent.glob(f"{PRINT}/*"))
    with tempfile.TemporaryDirectory() as folder:
        images = {name: out_figures.get(name, Path(folder, f"{name}.png")) for name in draw}
        for name, path in images.items():
            with figures.style():
                figure = draw[name]()
                figures.save(figure, path, [*view.colours, *COLOURS])
                stem = Path(out_html).parent / PRINT / name
                if settings["figures"]:
                    stem.parent.mkdir(parents=True, exist_ok=True)
                    figures.save_for_print(figure, stem, settings["figures"])
                    stale -= {stem.with_suffix(f".{kind}") for kind in settings["figures"]}
        view.facts["rounds"] = ledger(curves["stage2"])
        if quantities is not None:
            view.facts["quantities"] = read_json(quantities)
            images["quantities"] = Path(quantities).with_name("figures") / "quantities.png"
        write_page(result, about, group, clusters, images, view.facts, out_html)
    for path in stale:
        path.unlink()


def read_truth(path: str | Path | None) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Slices of the truth that `evaluate` left: z -> values (y, x), uint8, and where they are not measured, bool."""
    if path is None:
        return {}
    with np.load(path) as data:
        left_out = data["left_out"] if "left_out" in data else np.zeros(data["truth"].shape, bool)
        return dict(zip(data["z"].tolist(), zip(data["truth"], left_out, strict=True), strict=True))


def curve_panels(table: pd.DataFrame) -> list[tuple[str, dict[str, np.ndarray], np.ndarray]]:
    """Panels (title, name -> values, steps) of a CSV of curves.

    Columns with `loss` in their name share a panel; columns `<what>_<class>` make one per `what`; of the others, those
    between 0 and 1 share one. The learning rate and the speed are left out.
    """
    steps = table["step"].to_numpy(float)
    losses: dict[str, np.ndarray] = {}
    shares: dict[str, np.ndarray] = {}
    per_class: dict[str, dict[str, np.ndarray]] = {}
    for name in table.columns:
        values = pd.to_numeric(table[name], errors="coerce").to_numpy(float)
        numbered = re.fullmatch(r"(.+?)_(\d+)", name)
        if name in ("step", "lr") or not np.isfinite(values).any():
            continue
        if numbered:
            title = "class rates among the predictions" if numbered[1] == "rate" else numbered[1].replace("_", " ")
            per_class.setdefault(title, {})[f"class {numbered[2]}"] = values
        elif "loss" in name:
            losses[name.replace("_", " ")] = values
        elif np.nanmin(values) >= 0 and np.nanmax(values) <= 1:
            shares[WATCHED.get(name, name.replace("_", " "))] = values
    panels = [("loss", losses, steps)] if losses else []
    panels += [(title, values, steps) for title, values in per_class.items()]
    return panels + ([("watch", shares, steps)] if shares else [])
