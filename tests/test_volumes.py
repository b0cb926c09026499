"""Volumes: normalization by hand, and the same array whichever way it is read."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from beamseg.errors import InputError
from beamseg.fov import fov_mask
from beamseg.volumes import (
    WIDE,
    ArrayVolume,
    NormalizedVolume,
    TableVolume,
    grey_level,
    in_memory,
    normalize_block,
    open_normalized,
)

FULL = {"kind": "full"}


def test_grey_level_by_hand() -> None:
    raw = np.array([-1, 0, 1, 2, 3, np.nan], np.float32)
    np.testing.assert_array_equal(grey_level(raw, 0, 2), [1, 1, 32768, 65535, 65535, 0])


def test_grey_level_of_eight_bits_by_hand() -> None:
    raw = np.array([-1, 0, 1, 2, 3, np.nan], np.float32)
    grey = grey_level(raw, 0, 2, 8)
    assert grey.dtype == np.uint8
    np.testing.assert_array_equal(grey, [1, 1, 128, 255, 255, 0])
    np.testing.assert_array_equal(WIDE[grey], [1, 1, 32768, 65535, 65535, 0])


def test_outside_and_not_a_number_are_zero() -> None:
    raw = np.ones((1, 5, 5), np.float32)
    raw[0, 2, 2] = np.nan
    raw[0, 2, 3] = np.inf
    circle = {"kind": "circle", "cy": 2.0, "cx": 2.0, "radius": 2.0}
    grey = normalize_block(raw, {"range": [0, 1], "fov": circle})
    expected = [[0, 0, 1, 0, 0], [0, 1, 1, 1, 0], [1, 1, 0, 0, 1], [0, 1, 1, 1, 0], [0, 0, 1, 0, 0]]
    np.testing.assert_array_equal(grey[0], np.array(expected) * 65535)
    constant = {"kind": "constant", "value": 7}
    grey = normalize_block(np.array([[[6, 7, 8]]], np.uint8), {"range": [6, 8], "fov": constant})
    np.testing.assert_array_equal(grey, [[[1, 0, 65535]]])


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16"])
def test_small_integers_by_table_equal_the_formula(dtype: str) -> None:
    info = np.iinfo(dtype)
    raw = np.arange(info.min, info.max + 1, dtype=dtype).reshape(1, 1, -1)
    span = [info.min + 5.0, info.max - 20.0]
    grey = normalize_block(raw, {"range": span, "fov": FULL})
    np.testing.assert_array_equal(grey, grey_level(raw.astype(np.int64), *span))
    assert grey.min() == 1
    assert grey.max() == 65535


@given(st.integers(0, 9), st.integers(0, 9), st.integers(1, 9), st.sampled_from(["float32", "uint8", "int32"]))
def test_window_equals_whole(y0: int, x0: int, size: int, dtype: str) -> None:
    raw = (np.random.default_rng(0).random((2, 12, 11)) * 100).astype(dtype)
    entry = {"range": [5.0, 90.0], "fov": {"kind": "circle", "cy": 6.0, "cx": 5.0, "radius": 5.0}}
    whole = normalize_block(raw, entry)
    part = normalize_block(raw[:, y0 : y0 + size, x0 : x0 + size], entry, y0, x0)
    np.testing.assert_array_equal(part, whole[:, y0 : y0 + size, x0 : x0 + size])


def test_fov_mask_of_a_window_inside_is_none() -> None:
    circle = {"kind": "circle", "cy": 50.0, "cx": 50.0, "radius": 50.0}
    assert fov_mask(circle, 40, 60, 40, 60) is None
    assert fov_mask(FULL, 0, 9, 0, 9) is None
    corner = fov_mask(circle, 0, 3, 0, 3)
    assert corner is not None
    assert not corner.any()


def test_table_and_memory() -> None:
    grey = ArrayVolume(np.array([[[0, 1, 3]]], np.uint16))
    table = np.zeros(65536, np.uint8)
    table[[0, 3]] = 255, 2
    np.testing.assert_array_equal(TableVolume(grey, table).read(0, 1), [[[255, 0, 2]]])
    looked_up = TableVolume(grey, table)
    assert in_memory(looked_up, 1e-9) is looked_up
    assert isinstance(in_memory(looked_up, 1), ArrayVolume)


def test_a_changed_input_is_refused(tmp_path: Path) -> None:
    scan = {"name": "a", "shape": [4, 5, 6], "dtype": "uint8", "fov": FULL, "slab_depth": 8}
    (tmp_path / "scan.json").write_text(json.dumps(scan))
    (tmp_path / "source.json").write_text(json.dumps({"path": str(tmp_path / "a.h5"), "dataset": None, "files": []}))
    (tmp_path / "plan.json").write_text(json.dumps({"range": [0, 9], "scans": {}}))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["v"] = np.full((4, 5, 6), 9, np.uint8)
    volume = open_normalized(tmp_path / "scan.json", tmp_path / "plan.json")
    assert isinstance(volume, NormalizedVolume)
    assert (volume.read(0, 1) == 65535).all()
    (tmp_path / "a.h5").unlink()
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["v"] = np.zeros((4, 5, 7), np.uint8)
    with pytest.raises(InputError, match=r"shape \[4, 5, 7\], uint8"):
        open_normalized(tmp_path / "scan.json", tmp_path / "plan.json")
