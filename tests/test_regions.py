"""The least certain regions: hand-made blocks, and the same ones however the windows are cut."""

from __future__ import annotations

import numpy as np
import pytest

from beamseg.count import count
from beamseg.regions import LeastCertain
from beamseg.volumes import ArrayVolume


def test_the_lowest_block_comes_first_and_its_neighbour_not() -> None:
    confidence = np.full((16, 200, 200), 255, np.uint8)
    confidence[8:, 128:192, 0:64] = 51
    confidence[8:, 64:128, 0:64] = 102  # touches the lowest
    confidence[:8, 0:64, 192:] = 153  # narrow, at the rim
    inside, disputed = np.ones((200, 200), bool), np.zeros((200, 200), bool)
    disputed[128:160, 0:64] = True
    found = LeastCertain(confidence.shape)
    for z, image in enumerate(confidence):
        found.add(z, 0, image, disputed, inside)
    first, *rest = found.regions()
    assert first == {"z": [8, 16], "y": [128, 192], "x": [0, 64], "confidence": 0.2, "disputed": 0.5, "voxels": 32768}
    assert all(entry["confidence"] == 1 for entry in rest)


def test_what_lies_outside_counts_neither_for_nor_against() -> None:
    inside = np.zeros((64, 128), bool)
    inside[:, 100:] = True
    found = LeastCertain((8, 64, 128))
    for z in range(8):
        found.add(z, 0, np.where(inside, 204, 0).astype(np.uint8), ~inside, inside)
    (entry,) = found.regions()
    assert (entry["x"], entry["confidence"], entry["disputed"], entry["voxels"]) == ([64, 128], 0.8, 0.0, 8 * 64 * 28)


@pytest.mark.parametrize("budget", [1e-3, 0.1, 1])
def test_windows_change_nothing(budget: float) -> None:
    rng = np.random.default_rng(0)
    shape = (24, 150, 90)
    labels = {name: ArrayVolume(rng.integers(0, 3, shape).astype(np.uint8)) for name in ("pseudo_labels", "stage2")}
    confidence = ArrayVolume(rng.integers(0, 256, shape).astype(np.uint8))
    found = [
        count(labels, np.arange(256, dtype=np.uint8), None, None, confidence, mem_budget_mb=mb).least_certain.regions()
        for mb in (100, budget)
    ]
    assert found[0] == found[1]
    assert len(found[0]) > 1
