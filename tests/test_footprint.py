"""What jobs ask for follows from the size of a scan."""

from __future__ import annotations

import pytest

from beamseg.footprint import footprint, peak_mb

SETTINGS = {
    "mem_budget_mb": 4000,
    "pseudo_label": {"n_clusters": 4},
    "model": {"n_slices": 7},
    "normalize": {"dtype": "uint16"},
    "export": {"formats": ["tiff"]},
    "stage3": "unbiased_teacher",
    "refine": ["mpp", "scm"],
    "slab_depth": 0,
}


def test_memory_goes_by_the_slice_and_not_by_the_volume() -> None:
    few, many = (peak_mb((depth, 2048, 2048), 4, SETTINGS) for depth in (1200, 9000))
    assert few == many
    assert few["train"] == 900 + 4000
    assert few["segment"] == pytest.approx(900 + 4 * (8 * 4 + 8 * 7 + 12))  # 100 bytes for each of 4 Mi pixels


def test_a_scan_of_4_tb_needs_more_than_the_budget() -> None:
    shape = (9000, 11000, 11000)
    peak = peak_mb(shape, 4, SETTINGS)
    assert peak["histogram"] == pytest.approx(300 + 288 * 121e6 / 2**20)  # 4 threads, 8 slices of 6 bytes and 24 more
    assert footprint(shape, 4, True, SETTINGS)["memory_mb"] == peak["histogram"]
