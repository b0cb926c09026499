"""Quantities of shapes that are known by hand; pieces of any depth give what the whole gives."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage.measure import euler_number

from beamseg.components import component_sizes
from beamseg.morphology import (
    DIRECTIONS,
    direction_weights,
    euler_counts,
    interface_areas,
    local_thickness,
    pair_counts,
)
from beamseg.palette import class_table
from beamseg.provenance import read_json
from beamseg.quantities import ORDER, quantities, thickness_window
from beamseg.volumes import ArrayVolume

FULL = {"kind": "full"}
ROUND = {"kind": "circle", "cy": 4.0, "cx": 4.0, "radius": 4.0}


def run(folder: Path, labels: np.ndarray, *measure: str, **options: Any) -> dict[str, Any]:
    options = {"table": class_table(2, None), "fov": FULL, "voxel_size_um": (2.0, 0.5, 0.25), "window": 64} | options
    window = options.pop("window")
    return quantities(
        ArrayVolume(labels),
        stage={"stage": "scm", "reason": "last"},
        settings={"measure": list(measure), "thickness_window": window},
        out_json=folder / "quantities.json",
        out_csv=folder / "quantities.csv",
        out_sizes=folder / "component_sizes.csv",
        out_figure=folder / "quantities.png",
        **options,
    )


def rough(shape: tuple[int, int, int] = (37, 18, 20)) -> np.ndarray:
    """Three smooth classes with specks, and 255 beyond a corner."""
    rng = np.random.default_rng(3)
    labels = ndimage.gaussian_filter(rng.standard_normal((3, *shape)), (0, 1, 1, 1)).argmax(0).astype(np.uint8)
    labels[rng.random(shape) < 0.03] = 1
    labels[:, :4, :4] = 255
    return labels


def ball(radius: float, spacing: tuple[float, float, float] = (1, 1, 1)) -> np.ndarray:
    n = [int(radius / s) + 3 for s in spacing]
    grid = np.ogrid[-n[0] : n[0] + 1, -n[1] : n[1] + 1, -n[2] : n[2] + 1]
    return (sum((axis * s) ** 2 for axis, s in zip(grid, spacing, strict=True)) <= radius**2).astype(np.uint8)


def test_weights_of_the_directions_are_the_published_ones() -> None:
    weights = direction_weights((1, 1, 1)) / 2  # Lehmann and Legland (2012) count both ends of a direction
    expected = [0.04577789120476] * 3 + [0.03698062787608] * 6 + [0.03519563978232] * 4
    np.testing.assert_allclose(weights, expected, rtol=1e-9)


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 1.0), (1.0, 0.5, 0.5)])
def test_the_surface_of_a_ball(spacing: tuple[float, float, float]) -> None:
    labels = ball(16, spacing)
    pairs = pair_counts(labels, len(labels), 2)
    area = interface_areas(pairs, spacing)[0, 1]
    assert area == pytest.approx(4 * np.pi * 16**2, rel=0.02)


def test_the_interface_of_a_slab_by_hand() -> None:
    labels = np.zeros((10, 8, 8), np.uint8)
    labels[4:] = 1
    pairs = pair_counts(labels, 10, 2)
    assert pairs[DIRECTIONS.index((1, 0, 0)), 0, 1] == 64
    assert pairs[DIRECTIONS.index((1, 1, -1)), 0, 1] == 49
    assert pairs[DIRECTIONS.index((0, 1, 1))].tolist() == [[4 * 49, 0], [0, 6 * 49]]
    # 64 lines along z cross, and of the oblique ones 2 x 2 of 8 x 7 and 4 of 7 x 7; the weights are both ends'.
    axis, edge, corner = 2 * 0.04577789120476, 2 * 0.03698062787608, 2 * 0.03519563978232
    expected = 2 * (axis * 64 + edge * 4 * 56 / 2**0.5 + corner * 4 * 49 / 3**0.5)
    areas = interface_areas(pairs, (1, 1, 1))
    np.testing.assert_allclose(areas, [[0, expected], [expected, 0]])


def test_the_rim_of_the_field_of_view_is_no_surface() -> None:
    labels = np.full((6, 6, 6), 255, np.uint8)
    labels[1:5, 1:5, 1:5] = 1
    assert interface_areas(pair_counts(labels, 6, 2), (1, 1, 1)).tolist() == [[0, 0], [0, 0]]


def torus() -> np.ndarray:
    solid = np.zeros((7, 7, 7), np.uint8)
    solid[2:5, 1:6, 1:6] = 1
    solid[2:5, 3, 3] = 0
    return solid


def hollow() -> np.ndarray:
    solid = np.zeros((7, 7, 7), np.uint8)
    solid[1:6, 1:6, 1:6] = 1
    solid[3, 3, 3] = 0
    return solid


@pytest.mark.parametrize(("shape", "expected"), [(ball(3), 1), (torus(), 0), (hollow(), 2)])
def test_euler_numbers_of_a_ball_a_ring_and_a_shell(shape: np.ndarray, expected: int) -> None:
    assert euler_counts(shape, len(shape), 2)[1] == expected


@pytest.mark.parametrize("step", [1, 5, 8, 40])
def test_pieces_sum_to_the_whole(step: int) -> None:
    labels = rough()
    steps = range(0, len(labels), step)
    pairs = sum(pair_counts(labels[z : z + step + 1], min(step, len(labels) - z), 3) for z in steps)
    euler = sum(euler_counts(labels[z : z + step + 1], min(step, len(labels) - z), 3) for z in steps)
    np.testing.assert_array_equal(pairs, pair_counts(labels, len(labels), 3))
    assert euler.tolist() == [euler_number(labels == k, 1) for k in range(3)]


@pytest.mark.parametrize("step", [1, 5, 8, 40])
def test_components_of_pieces_are_those_of_scipy(step: int) -> None:
    labels = rough()
    found = component_sizes(lambda z0, z1: labels[z0:z1], len(labels), 3, step)
    for k in range(3):
        ids, _ = ndimage.label(labels == k)
        sizes = np.bincount(ids.ravel())[1:]
        assert sorted(found[k].of.elements()) == sorted(sizes.tolist())
        for axis in range(3):
            spanning = np.intersect1d(ids.take(0, axis), ids.take(-1, axis))
            assert found[k].spanning[axis] == sizes[spanning[spanning > 0] - 1].sum()


@pytest.mark.parametrize(("shift", "sizes"), [(0, {54: 1}), (3, {27: 2})])
def test_two_cubes_on_either_side_of_a_border_between_pieces(shift: int, sizes: dict[int, int]) -> None:
    labels = np.zeros((16, 8, 8), np.uint8)
    labels[5:8, :3, :3] = 1
    labels[8:11, shift : shift + 3, :3] = 1
    assert component_sizes(lambda z0, z1: labels[z0:z1], 16, 2, 8)[1].of == sizes


def brute_thickness(mask: np.ndarray) -> np.ndarray:
    """The definition: the largest of all balls, each as large as its centre allows, that hold a voxel."""
    distance = ndimage.distance_transform_edt(mask)
    result = np.zeros(mask.shape)
    grid = np.stack(np.indices(mask.shape), -1)
    for centre in np.argwhere(mask):
        radius = distance[tuple(centre)]
        held = np.linalg.norm(grid - centre, axis=-1) < radius - 1e-9
        result[held] = np.maximum(result[held], 2 * radius - 1)
    return result


def test_local_thickness_is_that_of_the_largest_ball() -> None:
    mask = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(14, 12, 10)), 1.5) > 0
    np.testing.assert_allclose(local_thickness(mask, (1, 1, 1)), brute_thickness(mask), rtol=1e-6)


@pytest.mark.parametrize("n", [1, 3, 5, 9])
def test_a_slab_is_as_thick_as_it_is(n: int) -> None:
    mask = np.zeros((15, 6, 6), bool)
    mask[3 : 3 + n] = True
    assert np.unique(local_thickness(mask, (0.5, 0.5, 0.5))[mask]).tolist() == [0.5 * n]


def test_the_field_of_view_ends_no_object() -> None:
    mask, beyond = np.zeros((15, 6, 6), bool), np.zeros((15, 6, 6), bool)
    mask[0:4], beyond[4:8] = True, True  # as if it went on below the rim: 8 slices from the border of the array
    assert local_thickness(mask, (1, 1, 1), beyond)[0, 0, 0] == 15
    assert local_thickness(mask, (1, 1, 1))[0, 0, 0] == 7


def test_numbers_in_physical_units_in_every_file(tmp_path: Path) -> None:
    labels = np.zeros((8, 9, 9), np.uint8)
    labels[:, 2:5, 2:5] = 1
    labels[:2, 7, 7] = 1
    result = run(tmp_path, labels, *ORDER)
    assert read_json(tmp_path / "quantities.json") == result
    rod = result["classes"][1]
    assert rod["volume"] == {"voxels": 74, "volume": 74 * 0.25, "fraction": 74 / 648}
    assert rod["components"] == {"count": 2, "largest": 72, "largest_fraction": 72 / 74, "mean": 37, "median": 2}
    assert rod["connectivity"]["euler"] == 2
    assert rod["connectivity"]["spans"] == {"z": True, "y": False, "x": False}
    assert rod["connectivity"]["spanning_fraction"]["z"] == 72 / 74
    assert result["notes"] == []
    with open(tmp_path / "quantities.csv", newline="") as file:
        table = {(row["class"], row["quantity"]): (row["value"], row["unit"]) for row in csv.DictReader(file)}
    assert table["cluster 1", "volume.volume"] == ("18.5", "um^3")
    assert table["cluster 1", "connectivity.spans.z"] == ("1", "")
    assert table["cluster 0 | cluster 1", "interface.area"][1] == "um^2"
    assert float(table["cluster 1", "surface.area"][0]) == result["interfaces"][0]["area"]
    sizes = (tmp_path / "component_sizes.csv").read_text().splitlines()
    assert sizes[-2:] == ["cluster 1,2,0.5,1", "cluster 1,72,18.0,1"]
    assert Image.open(tmp_path / "quantities.png").size[0] > 1000


def test_small_budgets_give_equal_files(tmp_path: Path) -> None:
    labels = rough()
    table = class_table(3, None)
    run(tmp_path / "whole", labels, *ORDER[:4], table=table)
    run(tmp_path / "pieces", labels, *ORDER[:4], table=table, mem_budget_mb=0.05)
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "pieces" / path.name).read_bytes(), path.name


def test_only_what_is_asked_for_is_measured(tmp_path: Path) -> None:
    result = run(tmp_path, rough()[:8], "volume", table=class_table(3, {"solid": {"clusters": [0, 2]}}))
    assert [set(row) for row in result["classes"]] == [{"id", "name", "colour", "volume"}] * 2
    assert (tmp_path / "component_sizes.csv").read_text().split() == ["class,voxels,volume,components"]


def test_a_class_that_is_absent_and_one_that_fills_everything(tmp_path: Path) -> None:
    result = run(tmp_path, np.zeros((6, 6, 6), np.uint8), *ORDER)
    full, absent = result["classes"]
    assert full["thickness"]["mean"] is None
    assert full["volume"]["fraction"] == 1
    assert absent["components"]["count"] == 0
    assert absent["surface"] == {"area": 0, "area_per_volume": None}
    assert absent["connectivity"]["spans"] == dict.fromkeys("zyx")


def test_in_a_circle_only_z_has_ends_and_the_output_says_so(tmp_path: Path) -> None:
    labels = np.ones((6, 9, 9), np.uint8)
    result = run(tmp_path, labels, "connectivity", fov=ROUND)
    assert result["classes"][1]["connectivity"]["spans"] == {"z": True, "y": None, "x": None}
    assert result["notes"] == ["a circular field of view has no ends along y and x: spanned along z alone"]


def test_thickness_of_a_large_volume_is_of_its_middle_and_the_output_says_so(tmp_path: Path) -> None:
    labels = np.zeros((20, 30, 30), np.uint8)
    labels[8:11] = 1
    result = run(tmp_path, labels, "thickness", window=18, voxel_size_um=None)
    assert result["thickness_window"] == [[1, 19], [6, 24], [6, 24]]
    assert result["notes"] == ["thickness is of the middle 18×18×18 voxels of 20×30×30, at full resolution"]
    assert result["classes"][1]["thickness"]["median"] == 3
    window = thickness_window((1000, 1000, 40), 500, 72)  # 1 MiB of voxels
    assert np.prod([w.stop - w.start for w in window]) <= 2**20
    assert [(w.stop + w.start) // 2 for w in window] in ([499, 500, 20], [500, 500, 20])
