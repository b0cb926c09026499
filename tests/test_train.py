"""Stage 2: it learns, refuses what it cannot use, and an interrupted run ends with the bits of an undisturbed one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import training_case as case
from beamseg import augment, device
from beamseg.checkpoint import Resume
from beamseg.errors import InputError
from beamseg.models import load_weights
from beamseg.training import Learner, end_step, learning_rate, n_steps, strengthen
from beamseg.volumes import ArrayVolume


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return case.run_train(tmp_path_factory.mktemp("undisturbed"))


def state_of(folder: Path) -> Path:
    return folder / ".stage2.resume.pt"


def test_weights_and_curves(undisturbed: Path) -> None:
    model, meta = load_weights(undisturbed)
    assert (meta["name"], meta["in_channels"], meta["n_classes"], meta["crop"]) == ("unet_noskip", 3, 2, 16)
    assert torch.isfinite(model(torch.rand(1, 3, 16, 16))).all()
    curves = pd.read_csv(undisturbed.parent / "train.csv")
    assert list(curves["step"]) == [2, 4, 6, 8]
    assert {"loss", "rate_0", "rate_1", "lr"} < set(curves)
    assert (curves["rate_0"] + curves["rate_1"]).to_numpy() == pytest.approx(1.0, abs=1e-5)
    assert not list(undisturbed.parent.glob(".*"))


def test_it_learns(tmp_path: Path) -> None:
    labels = case.phantom((6, 40, 40))[1]
    found = case.learned(tmp_path, labels, name="unet", steps=40)
    assert (found == labels[3])[labels[3] != 255].mean() > 0.9


def test_a_network_learns_phases_where_labels_miss_most_of_one(tmp_path: Path) -> None:
    bright = case.phantom((6, 40, 40))[1]
    seen = np.random.default_rng(1).random(bright.shape) < 0.4
    labels = np.where((bright == 1) & ~seen, 0, bright).astype(np.uint8)
    found = {}
    for name, transition in (("plain", None), ("corrected", np.array([[1, 0], [0.6, 0.4]]))):
        predicted = case.learned(tmp_path, labels, steps=60, transition=transition)
        found[name] = (predicted == 1)[bright[3] == 1].mean()
    assert found["plain"] < 0.3
    assert found["corrected"] > 0.7


def test_sigkill_anywhere_gives_the_same_bits(undisturbed: Path, tmp_path: Path) -> None:
    for reads in ("9", "14"):  # two kills, the second of the resumed run
        command = [sys.executable, str(Path(case.__file__)), "train", str(tmp_path), reads]
        path = os.pathsep.join(map(str, [Path(case.__file__).parents[1] / "scripts", os.environ.get("PYTHONPATH", "")]))
        ended = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, check=False)
        assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()
        assert not (tmp_path / "stage2.safetensors").exists()
    assert state_of(tmp_path).exists()
    assert case.run_train(tmp_path).read_bytes() == undisturbed.read_bytes()
    assert not state_of(tmp_path).exists()
    columns = ["step", "loss", "rate_0", "rate_1", "lr"]
    again, once = (pd.read_csv(folder / "train.csv")[columns] for folder in (tmp_path, undisturbed.parent))
    pd.testing.assert_frame_equal(again, once)


def test_sigterm_writes_a_state_and_the_rest_follows(undisturbed: Path, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        case.run_train(tmp_path, case.Fatal(case.phantom()[0], 7, signal.SIGTERM), checkpoint_s=1e9)
    assert ended.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == before
    assert 0 < torch.load(state_of(tmp_path), weights_only=True)["step"] < 8
    assert case.run_train(tmp_path, checkpoint_s=1e9).read_bytes() != b""
    assert load_bits(tmp_path) == load_bits(undisturbed.parent)


def load_bits(folder: Path) -> dict[str, bytes]:
    model, _ = load_weights(folder / "stage2.safetensors")
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}


def test_a_state_of_another_task_or_half_a_state_is_left_alone(tmp_path: Path) -> None:
    cpu = torch.device("cpu")
    mine, other = (Resume(tmp_path / "w.safetensors", {"lr": lr}, 0.0) for lr in (1, 2))
    assert mine.load(cpu) is None
    mine.save({"step": 3})
    state = mine.load(cpu)
    assert state is not None
    assert state["step"] == 3
    assert other.load(cpu) is None
    mine.path.write_bytes(mine.path.read_bytes()[:100])
    assert mine.load(cpu) is None


def test_labels_that_are_no_class(tmp_path: Path) -> None:
    grey, labels = case.phantom()
    with pytest.raises(InputError, match=r"found:    label 7\n  expected: 0 … 1, or 255"):
        case.train(
            [ArrayVolume(grey)],
            [ArrayVolume(np.where(labels == 1, 7, labels).astype(np.uint8))],
            tmp_path / "w.safetensors",
            tmp_path / "c.csv",
            settings=case.section("train", crop=16, steps=2),
            model_settings={"name": "unet_noskip", "n_slices": 3, "dropout": 0.1},
            n_classes=2,
            seed=0,
            device="cpu",
        )


def test_the_first_share_of_a_batch_is_strong() -> None:
    photometry = case.section("train")["photometry"] | {"probability": 1.0}
    images = torch.rand(5, 3, 16, 16)
    inside = torch.ones_like(images, dtype=torch.bool)
    inside[:, :, :, :4] = False
    images *= inside
    mixed = strengthen(images, inside, 0.5, photometry, seed=1, step=7)
    drawn = augment.draw_photometry(1, 7, 2, photometry)
    assert torch.equal(mixed[:2], augment.apply_photometry(images[:2], inside[:2], drawn))
    assert (mixed[:2] - images[:2]).abs().amax() > 0.1
    assert torch.equal(mixed[2:], images[2:])
    assert not mixed[..., :4].any()


def test_strong_crops_change_the_training_and_their_settings_alone_do_not(undisturbed: Path, tmp_path: Path) -> None:
    quiet, strong = tmp_path / "quiet", tmp_path / "strong"
    quiet.mkdir(), strong.mkdir()
    case.run_train(quiet, photometry=case.section("train")["photometry"] | {"shading": 0.9})
    case.run_train(strong, strong_share=0.5)
    assert load_bits(quiet) == load_bits(undisturbed.parent)
    assert load_bits(strong) != load_bits(undisturbed.parent)


def test_steps_go_by_epochs_unless_given() -> None:
    assert n_steps({"steps": 0, "epochs": 200, "batch": 16}, 64) == 800
    assert n_steps({"steps": 0, "epochs": 0.01, "batch": 16}, 64) == 1
    assert n_steps({"steps": 7, "epochs": 200, "batch": 16}, 64) == 7


def test_a_training_may_end_after_some_of_its_epochs() -> None:
    settings = {"steps": 0, "epochs": 1000, "batch": 16, "best_of": 0}
    assert end_step(settings, 64) == 4000
    assert end_step({**settings, "best_of": 200}, 64) == 800
    assert end_step({**settings, "best_of": 2000}, 64) == 4000


def test_the_weights_of_the_least_loss_of_the_first_epochs_are_those_that_the_training_had_then(tmp_path: Path) -> None:
    """Too high a rate makes the loss rise: the least is on the way, and the way is that of the whole training."""
    whole, some, least = (tmp_path / name for name in ("whole", "some", "least"))
    for folder in (whole, some, least):
        folder.mkdir()
    length = {"lr": 0.05, "steps": 0, "epochs": 4, "log_every": 1}  # 4 epochs of 6 slices in batches of 2
    case.run_train(whole, **length)
    losses = pd.read_csv(whole / "train.csv")["loss"]
    assert len(losses) == 12
    # How it rises is the processor's arithmetic; as many steps as have the least neither first nor last.
    steps = next(n for n in range(11, 2, -1) if 0 < losses[:n].argmin() < n - 1)
    case.run_train(some, **length, best_of=steps / 3)
    assert pd.read_csv(some / "train.csv")["loss"].to_list() == losses[:steps].to_list()
    at = int(losses[:steps].argmin())
    case.run_train(least, **length, best_of=(at + 1) / 3)
    assert load_bits(some) == load_bits(least) != load_bits(whole)


def test_killed_after_the_least_loss_the_weights_are_the_same(tmp_path: Path) -> None:
    length = {"lr": 1.0, "steps": 0, "epochs": 4, "log_every": 1, "best_of": 3}  # the first step is the best
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    killed.mkdir(), whole.mkdir()
    case.run_train(whole, **length)
    with pytest.raises(SystemExit):
        case.run_train(killed, case.Fatal(case.phantom()[0], 14, signal.SIGTERM), checkpoint_s=1e9, **length)
    state = torch.load(state_of(killed), weights_only=True)
    at = pd.read_csv(whole / "train.csv")["loss"].argmin()
    assert at < state["step"] < 9
    case.run_train(killed, checkpoint_s=1e9, **length)
    assert load_bits(killed) == load_bits(whole)


def test_learning_rate_rises_then_falls_to_a_hundredth() -> None:
    rates = [learning_rate(step, 100, 1.0) for step in range(100)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert rates[-1] == pytest.approx(0.01, abs=0.002)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_refused() -> None:
    with pytest.raises(InputError, match="a usable CUDA GPU"):
        device.choose("cuda")
    with pytest.raises(InputError, match="auto, cpu or cuda"):
        device.choose("tpu")
    assert device.choose("auto") == device.choose("cpu")


def test_deformed_crops_train_another_network_on_the_same_seed(undisturbed: Path, tmp_path: Path) -> None:
    warped = case.run_train(tmp_path, piecewise_affine={"scale": 0.1, "cells": 3})
    assert warped.read_bytes() != undisturbed.read_bytes()


def test_labels_are_deformed_with_their_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stripes without noise: each pixel's grey level says its label, wherever both were moved."""
    labels = np.broadcast_to((np.arange(40) // 8) % 2, (6, 40, 40)).astype(np.uint8)
    given: dict[float, list[tuple[torch.Tensor, torch.Tensor]]] = {0.0: [], 0.1: []}
    step = Learner.step
    for scale, batches in given.items():

        def recorded(self: Learner, number: int, images: torch.Tensor, target: torch.Tensor, *rest: Any) -> Any:
            batches.append((images[:, 1] > 0.5, target == 1))  # noqa: B023 (called before the next turn)
            return step(self, number, images, target, *rest)

        monkeypatch.setattr(Learner, "step", recorded)
        case.train(
            [ArrayVolume(np.where(labels, 60000, 10000).astype(np.uint16))],
            [ArrayVolume(labels)],
            tmp_path / "stage2.safetensors",
            tmp_path / "train.csv",
            settings=case.section("train", crop=32, steps=4, piecewise_affine={"scale": scale, "cells": 3}),
            model_settings={"name": "unet", "n_slices": 3, "dropout": 0.0, "widths": [8, 16]},
            n_classes=2,
            seed=3,
            device="cpu",
        )
    image, target = (torch.cat(parts) for parts in zip(*given[0.1], strict=True))
    before = torch.cat([image for image, _ in given[0.0]])
    assert (image == before).float().mean() < 0.9
    assert (image == target).float().mean() > 0.97
