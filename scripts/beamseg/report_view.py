"""Pictures of a run for its report: slices, overlays, what stages dispute, views in three dimensions, confidence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from . import figures, pictures
from .label_values import UNLABELLED
from .metrics import STAGES, disputed
from .palette import CLASS, class_ids, member_names, word_of
from .render import reduced, surface
from .volumes import Volume

MOST_RENDERED = 128  # voxels along an axis


class View:
    """Slices of a run's volumes as the class ids, colours and names that the figures show.

    `facts` collects what the captions of the page say of the slices shown.
    """

    def __init__(
        self,
        result: dict[str, Any],
        about: dict[str, Any],
        stages: dict[str, Volume],
        grey: Volume,
        truth: dict[int, tuple[np.ndarray, np.ndarray]],
        settings: dict[str, Any],
    ) -> None:
        self.result, self.stages, self.grey, self.truth, self.settings = result, stages, grey, truth, settings
        self.product = result["product"]["stage"]
        self.voxel: Sequence[float] = about.get("voxel_size_um") or (1.0, 1.0, 1.0)
        self.unit = "µm" if about.get("voxel_size_um") else "px"
        self.names, self.colours, self.truth_ids = truth_display(result)
        self.to_class = class_ids(result["classes"])
        self.facts: dict[str, Any] = {}

    def labels(self, z: int) -> dict[str, np.ndarray]:
        """Title -> display ids (y, x) of every stage on slice z, and of the truth where it has labels there."""
        found = {STAGES[name]: self.to_class[volume.read(z, z + 1)[0]] for name, volume in self.stages.items()}
        if self.result["has_truth"]:
            inside = next(iter(found.values())) != UNLABELLED
            found["truth"] = np.where(inside, self.truth_ids[self._truth(z)[0]], np.uint8(UNLABELLED))
        return found

    def _truth(self, z: int) -> tuple[np.ndarray, np.ndarray]:
        """Truth values (y, x) of slice z, 255 where there are none, and where they are not measured."""
        plane = self.grey.shape[1:]
        return self.truth.get(z, (np.full(plane, UNLABELLED, np.uint8), np.zeros(plane, bool)))

    def _thin(self, image: np.ndarray) -> np.ndarray:
        return figures.thin(image, self.settings["max_pixels"])

    def _pixel(self, full: np.ndarray) -> tuple[float, float]:
        step = max(1, -(-max(full.shape) // self.settings["max_pixels"]))
        return self.voxel[1] * step, self.voxel[2] * step

    def cluster_names(self) -> list[str]:
        """A name per cluster, in their order."""
        return [name for _, name in sorted(member_names(self.result["classes"], word_of(self.result)).items())]

    def thumbnail(self) -> Figure:
        """The scan and the product on the slice shown, for the head of the page and the table of all runs."""
        z = self.result["slices"]["shown"]
        self.facts["thumbnail"] = z
        grey = self.grey.read(z, z + 1)[0]
        labels = self.to_class[self.stages[self.product].read(z, z + 1)[0]]
        n = len(self.result["classes"])
        return pictures.pair(
            self._thin(grey),
            self._thin(labels),
            self.colours[:n],
            self.names[:n],
            pixel=self._pixel(grey),
            unit=self.unit,
            opacity=self.settings["opacity"],
        )

    def overlays(self) -> Figure:
        """The middle slice, or the nearest to it that the truth labels."""
        z = self.result["slices"]["shown"]
        self.facts["overlays"] = z
        grey = self.grey.read(z, z + 1)[0]
        labels = {title: self._thin(label) for title, label in self.labels(z).items()}
        return pictures.overlays(
            self._thin(grey),
            labels,
            self.colours,
            self.names,
            product=STAGES[self.product],
            pixel=self._pixel(grey),
            unit=self.unit,
            opacity=self.settings["opacity"],
        )

    def disputes(self) -> Figure:
        """Windows around the densest disagreement on the slices where the stages disagree most."""
        places = self.result["slices"]["disputed"][: self.settings["slices"]] or [self.result["slices"]["middle"]]
        crops = []
        for z in sorted(places):
            labels = self.labels(z)
            grey = self.grey.read(z, z + 1)[0]
            window = densest_window(disputed([labels[STAGES[name]] for name in self.stages]))
            crops.append((z, grey[window], {title: label[window] for title, label in labels.items()}))
        self.facts["disputes"] = sorted(places)
        limits = figures.grey_range(np.concatenate([grey.ravel() for _, grey, _ in crops]))
        return pictures.disputes(
            crops,
            self.colours,
            self.names,
            limits=limits,
            pixel=(self.voxel[1], self.voxel[2]),
            unit=self.unit,
            opacity=self.settings["opacity"],
        )

    def views(self, mem_budget_mb: float) -> Figure:
        """Planes through the densest dispute; along z read in blocks, so that no plane needs the volume."""
        depth, height, width = self.grey.shape
        z = next(iter(self.result["slices"]["disputed"]), depth // 2)
        found = self.labels(z)
        rows, columns = densest_window(disputed([found[STAGES[name]] for name in self.stages]), 16, 64)
        y, x = (rows.start + rows.stop) // 2, (columns.start + columns.stop) // 2
        self.facts["views"] = (z, y, x)
        step = max(1, int(mem_budget_mb * 2**20 / (4 * height * width)))
        step = step // 8 * 8 if step > 8 else step

        def planes(volume: Volume) -> dict[str, np.ndarray]:
            xz, yz = [], []
            for z0 in range(0, depth, step):
                z1 = min(z0 + step, depth)
                xz.append(volume.read(z0, z1, slice(y, y + 1), slice(None))[:, 0])
                yz.append(volume.read(z0, z1, slice(None), slice(x, x + 1))[:, :, 0])
            return {"xy": volume.read(z, z + 1)[0], "xz": np.concatenate(xz), "yz": np.concatenate(yz)}

        grey = planes(self.grey)
        limits = figures.grey_range(grey["xy"])
        n = len(self.result["classes"])
        return pictures.views(
            {name: self._thin(plane) for name, plane in grey.items()},
            {
                STAGES[stage]: {name: self._thin(self.to_class[plane]) for name, plane in planes(volume).items()}
                for stage, volume in self.stages.items()
            },
            self.colours[:n],
            self.names[:n],
            product=STAGES[self.product],
            shape=(depth, height, width),
            voxel=self.voxel,
            unit=self.unit,
            places=(z, y, x),
            limits=limits,
            opacity=self.settings["opacity"],
        )

    def rendered(self) -> Figure:
        """The surface of every class of the product, from every n-th of its voxels."""
        labels, steps = reduced(self.stages[self.product], MOST_RENDERED)
        labels = self.to_class[labels]
        voxel = [size * step for size, step in zip(self.voxel, steps, strict=True)]
        rows = self.result["classes"]
        fractions = self.result["stages"][self.product]["fractions"]
        self.facts["views_3d"] = steps
        return pictures.rendered(
            {row["name"]: surface(labels == row["id"], voxel) for row in rows},
            [row["colour"] for row in rows],
            unit=self.unit,
            fractions=[fractions[row["name"]] for row in rows],
        )

    def activation(self, weights: dict[str, str | Path]) -> Figure:
        """Where the stages disagree most on the slice shown: what the networks' predictions rest on, per cluster."""
        from .explain import class_maps  # torch takes seconds to load, and few reports need it

        z = self.result["slices"]["shown"]
        self.facts["grad_cam"] = z
        labels = [self.to_class[volume.read(z, z + 1)[0]] for volume in self.stages.values()]
        window = densest_window(disputed(labels))
        grey = self.grey.read(z, z + 1)[0]
        return pictures.activation(
            grey[window],
            {STAGES[stage]: class_maps(path, self.grey, z, window) for stage, path in weights.items()},
            self.cluster_names(),
            z=z,
            limits=figures.grey_range(grey),
            pixel=(self.voxel[1], self.voxel[2]),
            unit=self.unit,
        )

    def trust(self, confidence: Volume | None) -> Figure:
        """With truth the product's errors per class; without it where stages disagree, and confidence."""
        z = self.result["slices"]["shown"]
        self.facts["trust"] = z
        grey = self.grey.read(z, z + 1)[0]
        small, pixel = self._thin(grey), self._pixel(grey)
        look = {"z": z, "limits": figures.grey_range(grey), "pixel": pixel, "unit": self.unit}
        if not self.result["has_truth"]:
            apart = disputed([self.to_class[volume.read(z, z + 1)[0]] for volume in self.stages.values()])
            sure = None
            if confidence is not None:
                inside = self.to_class[self.stages[self.product].read(z, z + 1)[0]] != UNLABELLED
                sure = self._thin(np.where(inside, confidence.read(z, z + 1)[0] / 255, np.nan))
            return pictures.doubt(small, self._thin(apart), sure, **look)
        values, left_out = self._truth(z)
        truth = np.where(left_out, np.uint8(UNLABELLED), values)  # what was trained on is no hit
        to_truth = np.full(256, UNLABELLED, np.uint8)
        for row in self.result["classes"]:
            to_truth[row["clusters"]] = row["truth"]
        predicted = to_truth[self.stages[self.product].read(z, z + 1)[0]]
        truth[self.stages[next(iter(self.stages))].read(z, z + 1)[0] == UNLABELLED] = UNLABELLED
        entries = sorted(self.result["truth"], key=lambda entry: -entry["voxels"])
        names = {e["value"]: e["name"] for e in entries if e["voxels"] and not e["background"]}
        names = names or {e["value"]: e["name"] for e in entries if e["voxels"]}
        return pictures.errors(small, self._thin(truth), self._thin(predicted), names, **look)


def truth_display(result: dict[str, Any]) -> tuple[list[str], list[str], np.ndarray]:
    """Names and colours of what pictures show, and truth value -> index into them, uint8 (256,).

    A class of the truth has the colour of the cluster that stands for it, of several the one with most of its voxels;
    a class that none stands for gets an entry of its own. Where classes of the network and of the truth are both called
    by numbers, the truth's are said to be of the truth.
    """
    table, by_number = result["classes"], word_of(result) == CLASS
    names, colours = [row["name"] for row in table], [row["colour"] for row in table]
    ids = np.full(256, UNLABELLED, np.uint8)
    if not result["has_truth"]:
        return names, colours, ids
    voxels = np.array(result["matching"]["voxels"])
    spare = iter(["#D55E00", "#56B4E9", "#CC79A7", "#999999", "#7A4FBF", "#009E73"])
    for column, entry in enumerate(result["truth"]):
        mine = [row["id"] for row in table if row["truth"] == entry["value"]]
        if mine:
            ids[entry["value"]] = max(mine, key=lambda index: voxels[index, column])
            for index in mine:
                if names[index] != entry["name"]:
                    names[index] += f" ({'truth: ' if by_number else ''}{entry['name']})"
        elif entry["voxels"]:
            ids[entry["value"]] = len(names)
            names.append(f"{entry['name']} ({'in the truth alone' if by_number else 'no cluster'})")
            colours.append(next((c for c in spare if c not in colours), "#555555"))
    return names, colours, ids


def densest_window(mask: np.ndarray, least: int = 96, most: int = 320) -> tuple[slice, slice]:
    """The square window, about half of the shorter side, that holds most of a mask; rows and columns."""
    side = min(max(least, min(most, min(mask.shape) // 2)), *mask.shape)
    sums = np.pad(np.cumsum(np.cumsum(mask, axis=0, dtype=np.int64), axis=1), ((1, 0), (1, 0)))
    inside = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    y, x = np.unravel_index(int(np.argmax(inside)), inside.shape)
    return slice(int(y), int(y) + side), slice(int(x), int(x) + side)
