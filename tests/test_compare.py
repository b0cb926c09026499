"""compare: the distance of grey levels by hand, voxel sizes, and what is refused."""

from __future__ import annotations

import re

import numpy as np
import pytest

from beamseg.compare import compare, distance, voxel_ratio
from beamseg.errors import InputError
from beamseg.provenance import read_json, write_json
from bundle_case import histogram, write_bundle

SETTINGS = {"range": "bundle", "adapt": False, "warn_drift": 0.05, "max_voxel_ratio": 2}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def found(bundle, tmp_path):
    """Compare a scan of these voxels per grey value 0 … 99 with a bundle in which all are equally frequent."""

    def run(counts, voxel=(1.0, 1.0, 1.0), plan=None, hi=100.0, **settings):
        scan = {"name": "new", "dtype": "float32", "voxel_size_um": None if voxel is None else list(voxel)}
        write_json(tmp_path / "scan.json", scan)
        return compare(
            index=bundle / "bundle.json",
            arrays=bundle / "arrays.safetensors",
            plan=plan or bundle / "plan.json",
            scan=tmp_path / "scan.json",
            histogram=histogram(tmp_path / "histogram.npz", np.asarray(counts), 0.0, hi),
            settings=SETTINGS | settings,
            out=tmp_path / "compare.json",
        )

    return run


def levels(**counts):
    found = np.zeros(65536, np.int64)
    for level, number in counts.items():
        found[int(level[1:])] = number
    return found


def test_distance_is_how_far_the_voxels_must_be_moved():
    assert distance(levels(_1=5), levels(_65535=9)) == 1
    assert distance(levels(_100=3, _200=1), levels(_200=2, _100=6)) == 0
    half = levels(_1=1, _32768=1)
    assert distance(half, levels(_1=1, _65535=1)) == pytest.approx(0.5 * 32767 / 65534)


def test_the_same_grey_levels_are_no_drift(found, tmp_path):
    result = found(np.full(100, 7))
    assert result["distance"] == pytest.approx(0, abs=1e-12)
    assert result["warnings"] == []
    assert result["voxel_ratio"] == pytest.approx(1)
    assert read_json(tmp_path / "compare.json")["bundle"] == {"scans": ["old"], "stage": "stage3"}


def test_a_shift_of_a_tenth_of_the_range_is_a_warning_with_the_remedy(found):
    counts = np.zeros(100)
    counts[20:] = 10
    result = found(counts.astype(int))
    # 80 bins of 1/80 in place of 100 of 1/100: the mean moves from 50 to 60 hundredths.
    assert result["distance"] == pytest.approx(0.1, abs=1e-3)
    (warning,) = result["warnings"]
    assert warning.startswith("grey levels lie 10.0% of the grey range from those")
    assert "apply.range: own" in warning
    assert "apply.adapt: true" in warning
    assert found(counts.astype(int), warn_drift=0.2)["warnings"] == []
    assert "apply.range" not in found(counts.astype(int), range="own")["warnings"][0]


def test_grey_levels_of_another_scale_are_refused_unless_the_range_is_the_scans_own(found, tmp_path):
    counts = np.full(100, 7)
    with pytest.raises(InputError, match=r"99% of the voxels \(float32\) lie outside 0 … 100"):
        found(counts, hi=10_000.0)
    write_json(tmp_path / "plan.json", {"range": [0.0, 10_000.0], "bits": 16})
    assert found(counts, hi=10_000.0, plan=tmp_path / "plan.json", range="own")["distance"] < 1e-9


def test_voxels_of_another_size_are_warned_of_and_then_refused(found):
    counts = np.full(100, 7)
    (warning,) = found(counts, (1.5, 1.5, 1.5))["warnings"]
    assert warning.startswith("voxels are 1.5 times larger than the bundle's")
    with pytest.raises(InputError, match=r"voxels are 2\.5 times smaller than the bundle's"):
        found(counts, (0.4, 0.4, 0.4))
    assert found(counts, (0.4, 0.4, 0.4), max_voxel_ratio=3)["voxel_ratio"] == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("voxel", "words"),
    [
        ((4.0, 0.5, 0.5), r"voxels are 4 times larger than the bundle's along z"),
        ((0.25, 2.0, 2.0), r"voxels are 4 times smaller than the bundle's along z"),
        ((1.0, 5.0, 0.2), r"voxels are 5 times (larger|smaller) than the bundle's along [yx]"),
    ],
)
def test_axes_that_differ_each_way_do_not_make_up_for_each_other(found, voxel, words):
    """The bundle's voxels are 1 µm, and so is the geometric mean of these."""
    counts = np.full(100, 7)
    with pytest.raises(InputError, match=words):
        found(counts, voxel)
    result = found(counts, voxel, max_voxel_ratio=6)
    assert re.match(words, result["warnings"][0])
    assert max(result["voxel_ratio"], 1 / result["voxel_ratio"]) == pytest.approx(max(*voxel, 1 / min(voxel)))


def test_an_unknown_voxel_size_is_said(found):
    result = found(np.full(100, 7), None)
    assert result["voxel_ratio"] is None
    (warning,) = result["warnings"]
    assert warning.startswith("voxel size unknown, not compared: the scan gives none")


def test_the_axis_that_differs_most_gives_the_ratio_of_voxels():
    assert voxel_ratio([8.0, 1.0, 1.0], [[2.0, 2.0, 2.0]]) == (pytest.approx(4), " along z")
    assert voxel_ratio([0.25, 2.0, 2.0], [[1.0, 1.0, 1.0]]) == (pytest.approx(0.25), " along z")
    assert voxel_ratio([2.0, 2.0, 2.0], [[1.0, 1.0, 1.0], None, [4.0, 4.0, 4.0]]) == (pytest.approx(1), "")
    assert voxel_ratio([1.0, 1.0, 1.0], [None]) == (None, "")


@pytest.mark.parametrize("size", [1e-300, 1e-200, 1e300])
def test_voxels_of_an_absurd_size_are_refused_in_words(found, size):
    with pytest.raises(InputError, match=r"voxels are \S+ times (larger|smaller) than the bundle's"):
        found(np.full(100, 7), (size, size, size))
