"""Augmentation: geometry as a group, photometry by hand, CLAHE against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from beamseg.augment import (
    GEOMETRIES,
    apply_geometry,
    apply_photometry,
    apply_warp,
    clahe,
    draw_geometry,
    draw_photometry,
    draw_warp,
    piecewise_affine,
    to_unit,
)

NEUTRAL = {"gamma": 1.0, "jitter_scale": 1.0, "jitter_shift": 0.0, "clahe": 0.0, "contrast": 1.0, "brightness": 0.0}
SETTINGS = {
    "probability": 1.0,
    "gamma": 0.4,
    "jitter": 0.2,
    "clahe": 2.0,
    "brightness": 0.2,
    "contrast": 0.2,
    "shading": 0.2,
}
everything = np.arange(GEOMETRIES)


def drawn(n: int = 1, **changes: float) -> dict[str, np.ndarray]:
    parameters = {name: np.full(n, value) for name, value in {**NEUTRAL, **changes}.items()}
    return {"shading": np.zeros((n, 3, 3)), **parameters}


def test_grey_levels_to_unit() -> None:
    grey = torch.tensor([0, 1, 32768, 65535])
    assert to_unit(grey).tolist() == pytest.approx([0.0, 0.0, 0.5, 1.0], abs=1e-5)


def test_the_eight_geometries_are_distinct_turns_and_flips() -> None:
    image = torch.rand(1, 3, 5, 5)
    images = image.expand(GEOMETRIES, -1, -1, -1)
    turned = apply_geometry(images, everything)
    assert len({tuple(t.flatten().tolist()) for t in turned}) == GEOMETRIES
    for g, expected in ((0, image[0]), (1, image[0].rot90(1, (-2, -1))), (4, image[0].flip(-1))):
        assert torch.equal(turned[g], expected)
    diagonal = image.transpose(-1, -2)[0]
    assert any(torch.equal(t, diagonal) for t in turned)


def test_labels_turn_with_every_slice_of_their_image() -> None:
    labels = torch.randint(0, 4, (GEOMETRIES, 6, 6))
    stacks = labels[:, None].expand(-1, 7, -1, -1).float()
    turned = apply_geometry(labels, everything)
    assert torch.equal(apply_geometry(stacks, everything), turned[:, None].expand(-1, 7, -1, -1).float())


def test_draws_are_functions_of_their_key() -> None:
    assert np.array_equal(draw_geometry(3, 7, 16), draw_geometry(3, 7, 16))
    assert not np.array_equal(draw_geometry(3, 7, 16), draw_geometry(3, 8, 16))
    assert set(draw_geometry(0, 0, 200)) == set(range(GEOMETRIES))
    few, many = draw_photometry(3, 7, 4, SETTINGS), draw_photometry(3, 7, 16, SETTINGS)
    assert all(np.array_equal(few[name], many[name][:4]) for name in few)


def test_draws_keep_their_ranges_and_probability() -> None:
    found = draw_photometry(0, 0, 400, SETTINGS)
    assert np.abs(np.log(found["gamma"])).max() <= 0.4
    assert np.abs(found["brightness"]).max() <= 0.2
    assert 0.1 < np.abs(found["shading"]).max() <= 0.2
    assert (found["clahe"].min() >= 1.0, found["clahe"].max() <= 2.0) == (True, True)
    off = draw_photometry(0, 0, 50, {**SETTINGS, "probability": 0.0})
    assert all((off[name] == value).all() for name, value in NEUTRAL.items())
    half = draw_photometry(0, 0, 1000, {**SETTINGS, "probability": 0.5})
    assert (half["clahe"] > 0).mean() == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ({}, [0.25, 0.5]),
        ({"gamma": 2.0}, [0.0625, 0.25]),
        ({"jitter_scale": 0.8, "jitter_shift": 0.1}, [0.3, 0.5]),
        ({"contrast": 2.0}, [0.125, 0.625]),
        ({"brightness": 0.6}, [0.85, 1.0]),
    ],
)
def test_photometry_by_hand(change: dict[str, float], wanted: list[float]) -> None:
    image = torch.tensor([0.25, 0.5]).view(1, 1, 1, 2)
    found = apply_photometry(image, torch.ones_like(image, dtype=torch.bool), drawn(**change))
    assert found.flatten().tolist() == pytest.approx(wanted, abs=1e-5)


def test_shading_is_smooth_and_the_same_over_the_stack() -> None:
    image = torch.full((1, 7, 33, 33), 0.5)
    field = np.zeros((1, 3, 3))
    field[0, :, 2] = 0.2
    found = apply_photometry(image, torch.ones_like(image, dtype=torch.bool), {**drawn(), "shading": field})[0]
    assert torch.equal(found, found[:1].expand_as(found))
    assert found[0, 16, [0, 16, 32]].tolist() == pytest.approx([0.5, 0.5, 0.7], abs=1e-5)
    assert found[0].diff(dim=1).abs().max() < 0.02
    assert found[0].diff(dim=0).abs().max() < 1e-6


def test_photometry_leaves_the_outside_alone() -> None:
    image = torch.rand(2, 3, 32, 32)
    inside = torch.rand(2, 3, 32, 32) > 0.3
    image = image * inside
    found = apply_photometry(image, inside, draw_photometry(1, 1, 2, SETTINGS))
    assert (found[~inside] == 0).all()
    assert 0 <= found.min() <= found.max() <= 1
    assert not torch.equal(found, image)


def reference_clahe(stack: np.ndarray, limit: float, tiles: int) -> np.ndarray:
    """The definition, pixel by pixel."""
    _, height, width = stack.shape
    level = np.round(stack * 255).astype(int)
    tables = np.empty((tiles, tiles, 256))
    for ty in range(tiles):
        for tx in range(tiles):
            rows, columns = np.arange(height) * tiles // height == ty, np.arange(width) * tiles // width == tx
            counts = np.bincount(level[:, rows][:, :, columns].ravel(), minlength=256).astype(float)
            clip = limit * counts.sum() / 256
            excess = np.maximum(counts - clip, 0).sum()
            tables[ty, tx] = np.cumsum(np.minimum(counts, clip) + excess / 256) / counts.sum()
    out = np.zeros_like(stack)
    for z, y, x in np.ndindex(stack.shape):
        cy, cx = (y + 0.5) * tiles / height - 0.5, (x + 0.5) * tiles / width - 0.5
        for dy in (0, 1):
            for dx in (0, 1):
                ty, tx = int(np.floor(cy)) + dy, int(np.floor(cx)) + dx
                weight = (1 - abs(cy - ty)) * (1 - abs(cx - tx))
                out[z, y, x] += weight * tables[np.clip(ty, 0, tiles - 1), np.clip(tx, 0, tiles - 1), level[z, y, x]]
    return out


def test_clahe_is_its_definition_with_one_table_for_the_stack() -> None:
    images = torch.rand(2, 3, 12, 16) ** 2
    inside = torch.ones_like(images, dtype=torch.bool)
    found = clahe(images, inside, torch.tensor([1.5, 3.0]), tiles=2)
    for i, limit in enumerate((1.5, 3.0)):
        np.testing.assert_allclose(found[i].numpy(), reference_clahe(images[i].double().numpy(), limit, 2), atol=1e-4)


def test_clahe_without_contrast_limit_flattens_the_histogram() -> None:
    images = torch.rand(1, 1, 64, 64) ** 3
    flat = clahe(images, torch.ones_like(images, dtype=torch.bool), torch.tensor([1e9]), tiles=1)
    assert flat.mean().item() == pytest.approx(0.5, abs=0.05)
    counts = torch.histc(flat, bins=4, min=0, max=1)
    assert counts.min() > 0.15 * images.numel()


def test_displacement_is_affine_in_each_triangle() -> None:
    """One cell over 5 × 5 pixels: corners 0 but one; the triangle that does not hold that corner stays."""
    nodes = torch.zeros(1, 2, 2, 2)
    nodes[0, 0, 1, 1] = 1.0
    moved = piecewise_affine(nodes, 5, 5)
    assert (moved[0, 1] == 0).all()
    y, x = np.mgrid[:5, :5] / 4
    np.testing.assert_allclose(moved[0, 0], np.where(x + y <= 1, 0, x + y - 1), atol=1e-6)


def test_a_shift_of_all_nodes_shifts_images_and_labels_and_reflects_beyond_the_border() -> None:
    images = torch.arange(25.0).reshape(1, 1, 5, 5).repeat(1, 2, 1, 1)
    nodes = np.zeros((1, 2, 3, 3), np.float32)
    nodes[:, 0] = 0.25  # one of four steps between five pixels, along y
    wanted = images[:, :, [1, 2, 3, 4, 3]]
    torch.testing.assert_close(apply_warp(images, nodes), wanted, atol=1e-4, rtol=0)
    labels = images.to(torch.uint8)
    shifted = apply_warp(labels, nodes, nearest=True)
    assert shifted.dtype == torch.uint8
    assert torch.equal(shifted, wanted.to(torch.uint8))


def test_a_warp_is_a_function_of_its_key_and_makes_no_new_label() -> None:
    settings = {"scale": 0.05, "cells": 4}
    drawn_once = draw_warp(3, 7, 3, settings)
    assert drawn_once.shape == (3, 2, 5, 5)
    np.testing.assert_array_equal(draw_warp(3, 7, 2, settings), drawn_once[:2])
    assert not np.array_equal(draw_warp(3, 8, 3, settings), drawn_once)
    labels = torch.from_numpy(np.random.default_rng(0).choice([0, 3, 255], (3, 1, 32, 32)).astype(np.uint8))
    assert set(apply_warp(labels, drawn_once, nearest=True).unique().tolist()) == {0, 3, 255}
    assert not torch.equal(apply_warp(labels, drawn_once, nearest=True), labels)
