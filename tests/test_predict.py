"""Prediction: tiles cover the slice, and a slice's bits depend on nothing but its stack."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from beamseg.device import Compute
from beamseg.errors import InputError
from beamseg.models import build_model, save_weights
from beamseg.predict import best_class, gaussian_weight, predict_slices, tile_starts
from beamseg.segment import STEPS, rounded_confidence, segment
from beamseg.slabs import SlabVolume
from beamseg.volumes import ArrayVolume

torch.set_num_threads(1)
CPU = Compute(torch.device("cpu"), None)
SETTINGS = {"overlap": 0.5}


class Threshold(nn.Module):
    """Two classes: the middle slice's grey level below or above one half."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        middle = image[:, image.shape[1] // 2]
        return torch.stack([0.5 - middle, middle - 0.5], dim=1) * 50


def slices(volume: np.ndarray, tile: int = 16, model: nn.Module | None = None) -> tuple[np.ndarray, np.ndarray]:
    found = list(predict_slices(model or Threshold(), ArrayVolume(volume), 0, len(volume), SETTINGS, CPU, tile, 3))
    assert [z for z, _, _ in found] == list(range(len(volume)))
    return np.stack([labels for _, labels, _ in found]), np.stack([confidence for _, _, confidence in found])


@given(st.integers(1, 300), st.integers(1, 64), st.floats(0, 0.9))
def test_tiles_cover_evenly_and_end_at_the_border(extent: int, tile: int, overlap: float) -> None:
    starts = tile_starts(extent, tile, overlap)
    if extent <= tile:
        assert starts == [(extent - tile) // 2]
        return
    assert (starts[0], starts[-1]) == (0, extent - tile)
    steps = np.diff(starts)
    assert (steps.max() - steps.min() <= 1, steps.max() <= max(1, np.ceil(tile * (1 - overlap)))) == (True, True)


def test_the_weight_has_no_zeros_and_its_peak_in_the_middle() -> None:
    weight = gaussian_weight(32)
    assert weight.min() == pytest.approx(1e-6)
    assert weight.max() == weight[15, 15] == weight[16, 16]


@pytest.mark.parametrize("shape", [(4, 40, 53), (3, 9, 30), (2, 5, 7), (1, 16, 16)])
def test_labels_confidence_and_the_outside(shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    volume = rng.integers(1, 65536, shape).astype(np.uint16)
    volume[rng.random(shape) < 0.2] = 0
    labels, confidence = slices(volume)
    inside = volume != 0
    assert (labels[~inside] == 255).all()
    assert (confidence[~inside] == 0).all()
    grey = (volume.astype(float) - 1) / 65534
    assert np.array_equal(labels[inside], (grey > 0.5)[inside])
    wanted = 255 / (1 + np.exp(-100 * np.abs(grey - 0.5)))
    assert np.abs(confidence - wanted)[inside].max() < 0.6


@given(st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_the_best_class_is_the_first_of_the_highest(n_classes: int, seed: int) -> None:
    probabilities = np.random.default_rng(seed).integers(0, 4, (n_classes, 3, 4)).astype(np.float32)
    labels, best = best_class(torch.from_numpy(probabilities))
    assert labels.dtype == torch.uint8
    assert np.array_equal(labels, probabilities.argmax(0))
    assert np.array_equal(best, probabilities.max(0))


def test_each_layer_of_chunks_is_read_once_and_ends_repeat() -> None:
    reads, stacks = [], []

    class Recorded(ArrayVolume):
        def read(self, z0: int, z1: int, y: slice = slice(None), x: slice = slice(None)) -> np.ndarray:
            reads.append((z0, z1))
            return super().read(z0, z1, y, x)

    class Seen(Threshold):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            stacks.append((image[0, :, 0, 0] * 65534 + 1).round().int().tolist())
            return super().forward(image)

    grey = np.broadcast_to(np.arange(1, 21, dtype=np.uint16)[:, None, None], (20, 16, 16))
    for z0, z1 in ((0, 2), (6, 11), (18, 20)):
        list(predict_slices(Seen(), Recorded(grey), z0, z1, SETTINGS, CPU, 16, 5))
    assert reads == [(0, 4), (4, 8), (8, 13), (16, 20)]
    assert stacks[:2] == [[1, 1, 1, 2, 3], [1, 1, 2, 3, 4]]
    assert stacks[2:7] == [[z - 1, z, z + 1, z + 2, z + 3] for z in range(6, 11)]
    assert stacks[7:] == [[17, 18, 19, 20, 20], [18, 19, 20, 20, 20]]


def test_any_slab_depth_and_part_gives_the_same_bits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    meta = {"name": "unet_noskip", "in_channels": 3, "n_classes": 3, "options": {"dropout": 0.1}, "crop": 16}
    save_weights(tmp_path / "w.safetensors", build_model("unet_noskip", 3, 3), meta)
    grey = np.random.default_rng(1).integers(1, 65536, (34, 24, 20)).astype(np.uint16)
    grey[:, :4] = 0
    volume = ArrayVolume(grey)
    found = []
    for depth, parts in ((34, 1), (8, 1), (16, 2)):
        manifests = [tmp_path / f"{depth}" / f"{k + 1}-of-{parts}.json" for k in range(parts)]
        for k, manifest in enumerate(manifests):
            segment(
                manifest,
                volume,
                tmp_path / "w.safetensors",
                settings=SETTINGS,
                slab_depth=depth,
                part=f"{k + 1}-of-{parts}",
                identity="x",
                stage="stage2",
                device="cpu",
            )
        found.append([SlabVolume(manifests, name).read(0, 34) for name in ("labels", "confidence")])
    assert np.array_equal(found[0][0] == 255, grey == 0)
    for other in found[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_any_number_of_threads_gives_the_same_bits() -> None:
    torch.manual_seed(0)
    model = build_model("unet_noskip", 3, 3).eval()
    volume = np.random.default_rng(1).integers(1, 65536, (5, 90, 70)).astype(np.uint16)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(slices(volume, 32, model))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))


class Broken(nn.Module):
    """Two classes; a tile that holds the darkest grey level gets logits that are no numbers, or too large."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits = Threshold()(image)
        return torch.where((image == 0).flatten(1).any(1)[:, None, None, None], self.value, logits)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_answers_that_are_no_numbers_are_refused_with_the_weights_named(value: float) -> None:
    volume = np.full((5, 40, 40), 40_000, np.uint16)
    volume[4, 3, 3] = 1
    found = predict_slices(Broken(value), ArrayVolume(volume), 0, 5, SETTINGS, CPU, 16, 1, "here.safetensors")
    assert [next(found)[0] for _ in range(4)] == [0, 1, 2, 3]
    with pytest.raises(InputError, match="class probabilities of slice 4 that are no numbers") as error:
        next(found)
    assert error.value.where == "here.safetensors"
    # Without weights, as for a network in training, the watch is to see what it answers.
    assert len(slices(volume, model=Broken(value))[0]) == 5


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_label_nothing(tmp_path: Path, value: float) -> None:
    model = build_model("unet_noskip", 1, 2)
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = value
    meta = {"name": "unet_noskip", "in_channels": 1, "n_classes": 2, "options": {"dropout": 0.1}, "crop": 16}
    save_weights(tmp_path / "w.safetensors", model, meta)
    grey = np.random.default_rng(0).integers(1, 65536, (4, 16, 16)).astype(np.uint16)
    manifest = tmp_path / "out" / "1-of-1.json"
    settings = {"slab_depth": 4, "part": "1-of-1", "identity": "x", "stage": "stage2", "device": "cpu"}
    with pytest.raises(InputError, match="class probabilities of slice 0") as error:
        segment(manifest, ArrayVolume(grey), tmp_path / "w.safetensors", settings=SETTINGS, **settings)
    assert error.value.where == str(tmp_path / "w.safetensors")
    assert not manifest.exists()


def test_the_stored_confidence_is_close_where_the_network_is_sure() -> None:
    stored = rounded_confidence()
    assert len(np.unique(stored)) == STEPS  # of STEPS + 1 the two nearest to 1 are one byte
    assert (stored[0], stored[255]) == (0, 255)
    assert (np.diff(stored.astype(int)) >= 0).all()
    # Half a step of 1 / 24 at √(1 − p) = d, and the rounding to bytes.
    doubt = np.sqrt(1 - np.arange(256) / 255)
    assert (np.abs(stored - np.arange(256.0)) <= 255 * (doubt / STEPS + 1 / (2 * STEPS) ** 2) + 0.5).all()


class Blur(nn.Module):
    """Two classes by random 5 × 5 weights: it sees two pixels around, and middle grey beyond what it is given."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.second = nn.Conv2d(8, 1, 3, padding=1, bias=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        one = 20 * self.second(self.first(image - 0.5).tanh())
        return torch.cat([one, -one], dim=1)


def test_tiles_leave_no_seam() -> None:
    grey = np.random.default_rng(2).integers(1, 65536, (3, 48, 48)).astype(np.uint16)
    found = []
    for tile in (48, 16):
        slices = predict_slices(Blur(), ArrayVolume(grey), 0, 3, SETTINGS, CPU, tile, 3)
        found.append([np.stack(parts) for parts in list(zip(*slices, strict=True))[1:]])
    (whole, sure), (tiled, confidence) = found
    assert 0.2 < whole.mean() < 0.8
    # Two pixels at a tile's border see beyond it; the Gaussian leaves them little beside the tile half a tile on.
    profile = gaussian_weight(16)[:, 7]
    doubt = 2 * max(profile[i] / (profile[i] + profile[i + 8]) for i in (0, 1))
    assert doubt < 0.02
    clear = sure > 255 * (0.5 + doubt) + 1
    assert np.array_equal(whole[clear], tiled[clear])
    assert np.abs(confidence.astype(int) - sure)[clear].max() <= 255 * doubt + 1
