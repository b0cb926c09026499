"""MPP over slabs and parts, and the account of what it changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import ndimage

from beamseg.changes import count_changes, describe, summarize
from beamseg.errors import InputError
from beamseg.provenance import read_json
from beamseg.refine_mpp import refine_mpp
from beamseg.slabs import SlabVolume
from beamseg.volumes import ArrayVolume

SCHEMA = Path(__file__).parents[1] / "workflow" / "schemas" / "refine_mpp.yaml"
DEFAULTS = {key: entry["default"] for key, entry in yaml.safe_load(SCHEMA.read_text())["properties"].items()}


def noisy(shape: tuple[int, int, int] = (44, 40, 36), noise: float = 0.1) -> np.ndarray:
    """Blobs of three classes in a round field of view, with speckles and a crack of class 3."""
    rng = np.random.default_rng(0)
    labels = ndimage.gaussian_filter(rng.standard_normal((3, *shape)), (0, 4, 4, 4)).argmax(0).astype(np.uint8)
    labels[shape[0] // 2, 10:30, 10:30] = 3
    flipped = rng.random(shape) < noise
    labels[flipped] = rng.integers(0, 3, flipped.sum())
    y, x = np.ogrid[: shape[1], : shape[2]]
    labels[:, (y - 20) ** 2 + (x - 18) ** 2 > 18**2] = 255
    return labels


def run(
    folder: Path, labels: np.ndarray, depth: int, parts: int, user: np.ndarray | None = None, **settings: Any
) -> tuple[np.ndarray, list[Path]]:
    manifests = [folder / f"{k}-of-{parts}.json" for k in range(1, parts + 1)]
    chosen = DEFAULTS | settings
    given = None if user is None else ArrayVolume(user)
    for k, manifest in enumerate(manifests, 1):
        refine_mpp(manifest, ArrayVolume(labels), 4, chosen, depth, f"{k}-of-{parts}", "id", (1.0, 0.5, 0.5), given)
    return SlabVolume(manifests, "labels").read(0, len(labels)), manifests


@pytest.mark.parametrize("settings", [{}, {"support": 3}, {"min_volume_um3": 3.0}])
def test_slabs_and_parts_equal_the_whole(tmp_path: Path, settings: dict[str, Any]) -> None:
    labels = noisy()
    whole, manifests = run(tmp_path / "whole", labels, 1000, 1, **settings)
    changes = summarize(manifests)
    assert (whole != labels).any()
    for depth, parts in ((8, 1), (8, 3), (16, 2), (24, 1), (8, 4)):
        pieces, manifests = run(tmp_path / f"{depth}-{parts}", labels, depth, parts, **settings)
        np.testing.assert_array_equal(pieces, whole)
        assert summarize(manifests) == changes


@pytest.mark.parametrize(
    "settings", [{}, {"support": 2, "anchor_reach": 3, "erode_px": 1, "sheet_px": 0}, {"min_volume_um3": 30.0}]
)
def test_with_labelled_slices_slabs_equal_the_whole(tmp_path: Path, settings: dict[str, Any]) -> None:
    labels = noisy(noise=0.02)
    user = np.full_like(labels, 255)
    user[2::5] = noisy(noise=0.0)[2::5]
    plain, _ = run(tmp_path / "plain", labels, 1000, 1, **settings)
    whole, _ = run(tmp_path / "whole", labels, 1000, 1, user, **settings)
    kept = user != 255
    np.testing.assert_array_equal(whole[kept], user[kept])
    assert (whole != plain)[~kept].any()
    for depth, parts in ((8, 1), (8, 3), (16, 2)):
        pieces, _ = run(tmp_path / f"{depth}-{parts}", labels, depth, parts, user, **settings)
        np.testing.assert_array_equal(pieces, whole)


def test_what_changes_is_counted_per_slab_and_in_the_manifest(tmp_path: Path) -> None:
    labels = noisy()
    refined, (manifest,) = run(tmp_path, labels, 16, 1)
    content = read_json(manifest)
    for slab in content["slabs"]:
        part = slice(slab["z0"], slab["z1"])
        np.testing.assert_array_equal(slab["notes"]["changes"], count_changes(labels[part], refined[part], 4))
    matrix = np.array(content["changes"]["matrix"])
    assert matrix.sum() == (labels != 255).sum()
    assert matrix[0, 1] == ((labels == 0) & (refined == 1)).sum()
    np.testing.assert_array_equal(refined == 255, labels == 255)
    assert any("class 0" in warning for warning in content["changes"]["warnings"])  # 10 % of noise was taken away


def test_a_clean_volume_with_a_crack_is_left_alone(tmp_path: Path) -> None:
    labels = np.zeros((24, 32, 32), np.uint8)
    labels[:, 16:] = 1
    labels[11, 4:28, 4:28] = 3
    refined, (manifest,) = run(tmp_path, labels, 8, 1)
    np.testing.assert_array_equal(refined, labels)
    assert read_json(manifest)["changes"]["warnings"] == []


@pytest.mark.parametrize(("volume", "kept"), [(6.75, True), (6.76, False)])
def test_a_component_is_small_by_its_physical_volume(tmp_path: Path, volume: float, kept: bool) -> None:
    labels = np.zeros((24, 16, 16), np.uint8)
    labels[7:10, 5:8, 5:8] = 2  # 27 voxels of 0.25 µm³, over a slab face
    refined, _ = run(tmp_path, labels, 8, 1, min_volume_um3=volume)
    assert refined.any() == kept


def test_a_finished_slab_is_kept_and_the_sum_is_mended(tmp_path: Path) -> None:
    labels = noisy()
    _, (manifest,) = run(tmp_path, labels, 8, 1)
    before = manifest.read_bytes()
    manifest.unlink()
    run(tmp_path, np.full_like(labels, 255), 8, 1)  # same identity: nothing is read again
    assert manifest.read_bytes() == before


def test_a_component_size_without_a_voxel_size_is_refused(tmp_path: Path) -> None:
    settings = DEFAULTS | {"min_volume_um3": 2.0}
    with pytest.raises(InputError) as error:
        refine_mpp(tmp_path / "1.json", ArrayVolume(noisy()), 4, settings, 8, "1-of-1", "id", None)
    assert error.value.found == "refine_mpp: min_volume_um3: 2, and a scan without a voxel size"
    assert list(tmp_path.iterdir()) == []


def test_count_changes_by_hand() -> None:
    before = np.array([[0, 0, 1, 255, 1]], np.uint8)
    after = np.array([[0, 1, 1, 255, 255]], np.uint8)
    assert count_changes(before, after, 2).tolist() == [[1, 1], [0, 1]]
    with pytest.raises(ValueError, match=r"labels \[0, 1, 255\] where classes 0 … 0 and 255 are known"):
        count_changes(before, after, 1)


def test_describe_by_hand() -> None:
    told = describe(np.array([[90, 10, 0], [0, 4, 6], [0, 0, 0]]), 0.15, "refine_scm")
    assert told["changed"] == pytest.approx(16 / 110)
    assert told["classes"][0] == {"id": 0, "before": 100, "after": 90, "lost": 0.1, "gained": 0.0}
    assert told["classes"][1] == {"id": 1, "before": 10, "after": 14, "lost": 0.6, "gained": 1.0}
    assert told["erased"] == [1]
    assert told["warnings"] == [
        "refine_scm took 60.0% of class 1 away and added 100.0%",
        "refine_scm made 6 voxels of class 2, which had none",
    ]


def test_half_lost_is_not_erased() -> None:
    assert describe(np.array([[5, 5], [0, 9]]), 1.0, "s")["erased"] == []
    assert describe(np.array([[4, 6], [0, 9]]), 1.0, "s")["erased"] == [0]


def test_warnings_follow_the_configured_fraction(tmp_path: Path) -> None:
    labels = noisy()
    _, strict = run(tmp_path / "strict", labels, 16, 2, warn_fraction=0.0)
    _, lax = run(tmp_path / "lax", labels, 16, 2, warn_fraction=1e9)
    assert summarize(strict)["warnings"]
    assert not summarize(lax)["warnings"]
