"""SCM: training that survives interruption, prediction that knows no slabs, and the guard against erased classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from scipy import ndimage

from beamseg import refine_scm as refine_module
from beamseg import scm
from beamseg.changes import summarize
from beamseg.continuity import continue_along_z
from beamseg.crops import labelled_slices
from beamseg.errors import InputError
from beamseg.refine_scm import predict_block, refine_scm, tile_starts
from beamseg.slabs import SlabVolume
from beamseg.train_scm import MaskCrops, read_window, scm_counts, scm_losses, train_scm
from beamseg.volumes import ArrayVolume

K = 3
SCHEMA = Path(__file__).parents[1] / "workflow" / "schemas" / "refine_scm.yaml"
DEFAULTS = {key: entry["default"] for key, entry in yaml.safe_load(SCHEMA.read_text())["properties"].items()}
SETTINGS = DEFAULTS | {"adjacent_slices": 3, "width": 8, "steps": 12, "batch": 2, "crop": 24}
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def phantom(shape: tuple[int, int, int] = (24, 40, 44), noise: float = 0.08) -> tuple[np.ndarray, np.ndarray]:
    """Truth and noisy labels of blobs in a round field of view."""
    rng = np.random.default_rng(0)
    truth = ndimage.gaussian_filter(rng.standard_normal((K, *shape)), (0, 4, 4, 4)).argmax(0).astype(np.uint8)
    raw = np.where(rng.random(shape) < noise, rng.integers(0, K, shape, dtype=np.uint8), truth)
    y, x = np.ogrid[: shape[1], : shape[2]]
    outside = (y - shape[1] / 2) ** 2 + (x - shape[2] / 2) ** 2 > (min(shape[1:]) / 2) ** 2
    truth[:, outside] = raw[:, outside] = 255
    return truth, raw


def mpp_of(raw: np.ndarray) -> np.ndarray:
    return continue_along_z(pad(raw), K, 1, 32)


def train(folder: Path, raw: Any, target: np.ndarray, labels: Any = None, **settings: Any) -> dict[str, torch.Tensor]:
    folder.mkdir(exist_ok=True)
    volume = raw if hasattr(raw, "read") else ArrayVolume(raw)
    out = folder / "scm.safetensors"
    chosen = SETTINGS | settings
    train_scm([volume], [ArrayVolume(target)], [labels], out, folder / "c.csv", chosen, K, 0, "cpu", 0.0, "id")
    return load_file(out)


class Failing(ArrayVolume):
    """A volume whose reading fails after some crops, as a job that is killed."""

    def __init__(self, array: np.ndarray, reads: int) -> None:
        super().__init__(array)
        self.reads = reads

    def read(self, z0: int, z1: int, y: slice = slice(None), x: slice = slice(None)) -> np.ndarray:
        self.reads -= 1
        if self.reads < 0:
            raise KeyboardInterrupt
        return super().read(z0, z1, y, x)


@pytest.mark.parametrize("steps_done", [0, 5, 11])
def test_interrupted_training_ends_with_the_same_weights(tmp_path: Path, steps_done: int) -> None:
    _, raw = phantom()
    target = mpp_of(raw)
    expected = train(tmp_path / "whole", raw, target)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", Failing(raw, 2 * steps_done + 1), target, checkpoint_s=0)
    state = tmp_path / "cut" / ".scm.resume.pt"
    assert state.exists() == (steps_done > 0)
    second = Failing(raw, 2 * (12 - steps_done))  # not one crop more than what was left
    weights = train(tmp_path / "cut", second, target, checkpoint_s=0)
    assert second.reads == 0
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(weights[name], value), name
    assert (tmp_path / "cut" / "c.csv").read_bytes() == (tmp_path / "whole" / "c.csv").read_bytes()
    assert sorted(p.name for p in (tmp_path / "cut").iterdir()) == ["c.csv", "scm.safetensors"]


def test_a_resume_state_of_other_settings_is_not_used(tmp_path: Path) -> None:
    _, raw = phantom()
    target = mpp_of(raw)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "a", Failing(raw, 9), target, checkpoint_s=0)
    weights = train(tmp_path / "a", raw, target, lr=0.01)
    expected = train(tmp_path / "b", raw, target, lr=0.01)
    assert all(torch.equal(weights[name], value) for name, value in expected.items())


def test_training_repairs_more_than_it_breaks(tmp_path: Path) -> None:
    truth, raw = phantom(noise=0.15)
    target = mpp_of(raw)
    train(tmp_path, raw, target, steps=300, crop=32, batch=4)
    model = scm.load(tmp_path / "scm.safetensors", CPU)
    with torch.inference_mode():
        labels = predict_block(model, pad(raw), CPU)
    inside = truth != 255
    errors = [(each != truth)[inside].mean() for each in (raw, target, labels)]
    assert errors[2] < errors[1] < errors[0]


def pad(raw: np.ndarray) -> np.ndarray:
    return np.pad(raw, ((1, 1), (0, 0), (0, 0)), constant_values=255)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A network that listens to all of its input: large random weights, no copy of the middle mask, no favourite."""
    torch.manual_seed(0)
    model = scm.SCM(3, K, 8)
    for name, parameter in model.named_parameters():
        if name.endswith("weight") and parameter.ndim == 4:
            parameter.data.mul_(3)
    model.copy.data.zero_()
    _, raw = phantom((3, 40, 36))
    with torch.no_grad():
        model.body[-1].bias -= model(torch.from_numpy(raw)[None]).mean((0, 2, 3))
    scm.save(model, tmp_path / "random.safetensors")
    return tmp_path / "random.safetensors"


def test_the_network_of_these_tests_listens_to_the_slices_around(weights: Path) -> None:
    """Else slabs would agree by predicting nothing."""
    model = scm.load(weights, CPU)
    _, raw = phantom((9, 40, 36))
    labels = predict_block(model, pad(raw), CPU)
    assert (np.bincount(labels[raw != 255], minlength=K) > 0.05 * (raw != 255).sum()).all()
    without = raw.copy()
    without[4] = 255
    differs = (predict_block(model, pad(without), CPU) != labels).mean((1, 2))
    assert (differs[[3, 5]] > 0.02).all()
    assert not differs[[0, 1, 2, 6, 7, 8]].any()


def run(
    folder: Path,
    raw: np.ndarray,
    weights: Path,
    depth: int,
    parts: int,
    user: np.ndarray | None = None,
    **changes: Any,
) -> tuple[np.ndarray, list[Path]]:
    manifests = [folder / f"{k}-of-{parts}.json" for k in range(1, parts + 1)]
    volume, mpp = ArrayVolume(raw), ArrayVolume(mpp_of(raw))
    for k, manifest in enumerate(manifests, 1):
        labels = None if user is None else ArrayVolume(user)
        refine_scm(manifest, volume, weights, SETTINGS | changes, depth, f"{k}-of-{parts}", "id", "cpu", mpp, labels)
    return SlabVolume(manifests, "labels").read(0, len(raw)), manifests


def test_slabs_and_parts_equal_the_whole(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refine_module, "MAX_TILE", 17)  # several tiles, the last ones over the border
    _, raw = phantom((44, 40, 36))
    whole, manifests = run(tmp_path / "whole", raw, weights, 1000, 1)
    changes = summarize(manifests)
    assert (whole != raw).mean() > 0.05
    np.testing.assert_array_equal(whole == 255, raw == 255)
    for depth, parts in ((8, 1), (8, 3), (16, 2), (24, 1), (8, 4)):
        pieces, manifests = run(tmp_path / f"{depth}-{parts}", raw, weights, depth, parts)
        np.testing.assert_array_equal(pieces, whole)
        assert summarize(manifests) == changes


def test_user_labels_stay_and_are_seen_around_them_alone(tmp_path: Path, weights: Path) -> None:
    _, raw = phantom((20, 40, 36))
    user = np.full_like(raw, 255)
    user[7] = (raw[7] + 1) % K
    user[7, 30:] = 255
    user[12, 20, 18] = (raw[12, 20, 18] + 1) % K
    without, _ = run(tmp_path / "without", raw, weights, 1000, 1)
    whole, _ = run(tmp_path / "whole", raw, weights, 1000, 1, user)
    given = (user != 255) & (raw != 255)
    np.testing.assert_array_equal(whole[given], user[given])
    np.testing.assert_array_equal(whole == 255, raw == 255)
    changed = (whole != without) & ~given
    assert (changed.sum((1, 2)) > 0).nonzero()[0].tolist() == [6, 8, 11, 13]
    pieces, _ = run(tmp_path / "pieces", raw, weights, 8, 2, user)
    np.testing.assert_array_equal(pieces, whole)


def test_tiles_give_what_the_whole_slice_gives(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = scm.load(weights, CPU)
    _, raw = phantom((3, 61, 50))
    whole = predict_block(model, raw, CPU)
    monkeypatch.setattr(refine_module, "MAX_TILE", 20)
    assert (predict_block(model, raw, CPU) == whole).mean() > 0.9999


@pytest.mark.parametrize(("extent", "starts", "size"), [(256, [0], 256), (257, [0, 129], 129), (5, [0], 5)])
def test_tile_starts(extent: int, starts: list[int], size: int) -> None:
    assert tile_starts(extent) == (starts, size)


def test_an_erased_class_is_named(tmp_path: Path) -> None:
    model = scm.SCM(3, K, 8)
    for parameter in model.parameters():
        parameter.data.zero_()
    model.body[-1].bias.data[0] = 1.0  # everything becomes class 0
    scm.save(model, tmp_path / "zero.safetensors")
    _, raw = phantom()
    _, manifests = run(tmp_path, raw, tmp_path / "zero.safetensors", 8, 1)
    told = summarize(manifests)
    assert told["erased"] == [1, 2]
    assert told["classes"][1]["after"] == 0
    assert "refine_scm took 100.0% of class 1 away and added 0.0%" in told["warnings"]


def test_user_labels_are_drawn_and_pull_the_weights(tmp_path: Path) -> None:
    _, raw = phantom()
    target = mpp_of(raw)
    labels = np.full_like(raw, 255)
    labels[5, 20:24, 20:24] = 2
    volume = ArrayVolume(labels)
    assert labelled_slices([None, volume], K) == [(1, 5)]
    data = MaskCrops([ArrayVolume(raw)], [ArrayVolume(target)], [volume], [(0, 5)], 3, 24, scm.SCM.reach, 0)
    for step in range(10):
        _, _, user = data.crop(step, 1)
        assert (user == 2).any()
    without, with_labels = train(tmp_path / "a", raw, target), train(tmp_path / "b", raw, target, volume)
    assert any(not torch.equal(without[name], with_labels[name]) for name in without)


def test_the_loss_on_the_user_s_labels_has_its_weight(tmp_path: Path) -> None:
    """The same crops, so whatever differs comes from the loss: the network learns what the user says against MPP."""
    _, raw = phantom()
    target = mpp_of(raw)
    labels = np.full_like(raw, 255)
    labels[5, 12:28, 12:28] = (target[5, 12:28, 12:28] + 1) % K
    left = []
    for weight in (0.0, 1.0):
        train(tmp_path / str(weight), raw, target, ArrayVolume(labels), label_weight=weight, steps=60, log_every=60)
        left.append(pd.read_csv(tmp_path / str(weight) / "c.csv")["loss_labels"].iloc[-1])
    assert left[1] < 0.9 * left[0]


def test_crops_show_labels_around_the_middle_in_half_of_them() -> None:
    raw, target = (np.full((9, 40, 40), k, np.uint8) for k in (0, 1))
    volume = ArrayVolume(np.full_like(raw, 2))
    data = MaskCrops([ArrayVolume(raw)], [ArrayVolume(target)], [volume], [(0, 4)], 3, 24, scm.SCM.reach, 0)
    shown = 0
    for step in range(40):
        masks, _, user = data.crop(step, 1)
        seen = masks[:, 7:-7, 7:-7]
        assert (seen[1] == 0).all()
        assert (user == 2).all()
        assert (seen[[0, 2]] == seen[0, 0, 0]).all()
        shown += int(seen[0, 0, 0]) == 2
    assert 10 < shown < 30


def test_raw_masks_alone_are_seen_where_asked(tmp_path: Path, weights: Path) -> None:
    """As the poster has it, in training and in prediction; labelled voxels keep their label."""
    _, raw = phantom((12, 40, 36))
    user = np.full_like(raw, 255)
    user[5] = (raw[5] + 1) % K
    inside = (user != 255) & (raw != 255)
    without, _ = run(tmp_path / "without", raw, weights, 1000, 1)
    found, _ = run(tmp_path / "raw", raw, weights, 1000, 1, user, see_labels=False)
    np.testing.assert_array_equal(found, np.where(inside, user, without))
    seen, _ = run(tmp_path / "seen", raw, weights, 1000, 1, user)
    assert (seen[[4, 6]] != found[[4, 6]]).any()
    volumes = [ArrayVolume(np.full((9, 40, 40), k, np.uint8)) for k in (0, 1, 2)]
    data = MaskCrops(*([volume] for volume in volumes), [(0, 4)], 3, 24, scm.SCM.reach, 0, see_labels=False)
    assert not any((data.crop(step, 1)[0][:, 7:-7, 7:-7] != 0).any() for step in range(20))
    weights_of = [
        train(tmp_path / name, raw, mpp_of(raw), ArrayVolume(user), steps=4, label_weight=0, see_labels=see)
        for name, see in (("a", True), ("b", False))
    ]
    assert any(not torch.equal(value, weights_of[1][name]) for name, value in weights_of[0].items())


def test_a_label_that_is_no_class_is_refused() -> None:
    labels = np.full((10, 4, 4), 255, np.uint8)
    labels[9, 0, 0] = 7
    with pytest.raises(InputError) as error:
        labelled_slices([ArrayVolume(labels)], K)
    assert error.value.found == "label 7 in slice 9"


def test_losses_by_hand() -> None:
    logits = torch.tensor([[[[0.0, 0.0, 9.0]], [[0.0, 0.0, 0.0]]]])  # p = ½, ½, ≈ 1
    targets = torch.tensor([[[0, 1, 255]]], dtype=torch.uint8)
    users = torch.tensor([[[255, 0, 0]]], dtype=torch.uint8)
    mpp, labels, agreement = scm_losses(logits, targets, users, scm_counts(targets, users))
    assert mpp.item() == pytest.approx(np.log(2))  # the first pixel alone: the second is the user's
    assert labels.item() == pytest.approx((np.log(2) + np.log1p(np.exp(-9))) / 2, rel=1e-5)
    assert agreement.item() == 1.0


@pytest.mark.parametrize("user", [255, 0])
def test_nothing_outside_the_field_of_view_counts(user: int) -> None:
    logits = torch.randn(1, 2, 1, 2)
    outside = torch.full((1, 1, 2), 255, dtype=torch.uint8)
    users = torch.full_like(outside, user)
    mpp, labels, _ = scm_losses(logits, outside, users, scm_counts(outside, users))
    assert mpp.item() == 0
    assert (labels.item() == 0) == (user == 255)


def test_outside_is_no_class_in_the_input() -> None:
    model = scm.SCM(3, K, 4)
    seen = []
    model.body[0].register_forward_pre_hook(lambda _module, inputs: seen.append(inputs[0]))
    masks = torch.full((1, 3, 15, 15), 255, dtype=torch.uint8)
    masks[0, 2, 7, 8] = 1
    assert model(masks).shape == (1, K, 1, 1)
    assert seen[0].sum() == 1
    assert seen[0][0, 2 * K + 1, 7, 8] == 1


def test_a_window_over_the_border_is_255() -> None:
    volume = ArrayVolume(np.arange(27, dtype=np.uint8).reshape(3, 3, 3))
    window = read_window(volume, -1, 1, 2, -1, 2)
    assert window.tolist() == [[[255, 255], [255, 255]], [[255, 6], [255, 255]]]
    assert (read_window(volume, 5, 6, 0, 0, 2) == 255).all()


def test_crops_are_a_function_of_seed_step_and_index() -> None:
    _, raw = phantom()
    volumes = [ArrayVolume(raw)]

    def crops(seed: int) -> Callable[[int, int], tuple[np.ndarray, np.ndarray, np.ndarray]]:
        return MaskCrops(volumes, volumes, [None], [], 3, 16, 7, seed).crop

    first, again, other = crops(0)(3, 1), crops(0)(3, 1), crops(1)(3, 1)
    np.testing.assert_array_equal(first[0], again[0])
    assert (first[0] != other[0]).any()
    np.testing.assert_array_equal(first[0][1, 7:-7, 7:-7], first[1])  # target turned as the middle mask


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors", metadata={"model": '{"name": "unet"}'})
    with pytest.raises(InputError, match="weights of 'unet'"):
        scm.load(tmp_path / "x.safetensors", CPU)
