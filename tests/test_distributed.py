"""A batch in shares and in pieces: several processes, or a device that runs out of memory, learn what one would."""

from __future__ import annotations

import multiprocessing
import os
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import training_case as case
from beamseg import device, distributed, predict
from beamseg import train as train_module
from beamseg.device import Pieces, choose
from beamseg.distributed import Ranks
from beamseg.errors import InputError
from beamseg.label_values import SUGGESTED
from beamseg.losses import cross_entropy
from beamseg.models import Embedded, build_model
from beamseg.models.blocks import Dropout, place_share
from beamseg.refine_scm import refine_scm
from beamseg.scm import SCM, save
from beamseg.slabs import SlabVolume
from beamseg.train_scm import train_scm
from beamseg.training import Learner
from beamseg.volumes import ArrayVolume

STEPS = {"batch": 3, "steps": 3, "log_every": 1}
TOLERANCE = {"rtol": 0.0, "atol": 2e-5}


@pytest.fixture(autouse=True)
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """In bfloat16 the order of a sum shows in the second digit."""
    monkeypatch.setattr(device, "_cpu_multiplies_bfloat16", lambda: False)


def both_stages(folder: Path, start: Path | None = None) -> None:
    """Stage 2, and stage 3 from given weights, so that differences of one do not enter the other."""
    folder.mkdir(exist_ok=True)
    weights = case.run_train(folder, strong_share=0.5, lr=1e-4, **STEPS)
    confidence = {"kind": "class", "threshold": 0.9, "quantile": 0.5, "align": True}
    case.run_self_correct(folder, start or weights, lr=1e-4, ema=0.9, confidence=confidence, **STEPS)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device, "_cpu_multiplies_bfloat16", lambda: False)
        both_stages(folder)
    return folder


def same(found: Path, wanted: Path, name: str) -> None:
    """The weights agree to less than a tenth of what Adam moves them by (3 steps of 1e-4)."""
    ours, theirs = load_file(found / name), load_file(wanted / name)
    for key, value in theirs.items():
        torch.testing.assert_close(ours[key], value, **TOLERANCE)


def processes(count: int, work: Callable[..., Any], *arguments: Any) -> list[str]:
    """Run a function in several processes that know each other as those of `torch.distributed.run` do; their errors."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    context = multiprocessing.get_context("fork")
    errors = context.SimpleQueue()

    def run(rank: int) -> None:
        names = {"TORCHELASTIC_RUN_ID": "test", "RANK": str(rank), "WORLD_SIZE": str(count)}
        os.environ |= {**names, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        torch.set_num_threads(1)
        try:
            work(*arguments)
        except BaseException:
            errors.put(f"{rank}: {traceback.format_exc()}")

    started = [context.Process(target=run, args=(rank,)) for rank in range(count)]
    for process in started:
        process.start()
    for process in started:
        process.join(300)
    return [errors.get() for _ in started if not errors.empty()]


def test_two_processes_learn_what_one_does(alone: Path, tmp_path: Path) -> None:
    """Shares of 1 and 2 crops; dropout, strong views, class thresholds and alignment are those of the whole batch."""
    assert processes(2, both_stages, tmp_path, alone / "stage2.safetensors") == []
    same(tmp_path, alone, "stage2.safetensors")
    same(tmp_path, alone, "stage3.safetensors")
    assert (tmp_path / "train.csv").read_text().splitlines()[0] == (alone / "train.csv").read_text().splitlines()[0]
    assert not list(tmp_path.glob(".*"))


def stopped_by_one(folder: Path) -> None:
    """A signal reaches one process alone, not the one that writes."""
    volume = None
    if os.environ["RANK"] == "1":
        volume = case.Fatal(case.phantom()[0], 3, case.signal.SIGTERM)
    case.run_train(folder, volume, checkpoint_s=1000.0, **{**STEPS, "steps": 8})


def test_a_signal_to_one_process_stops_all_at_the_same_step(tmp_path: Path) -> None:
    errors = processes(2, stopped_by_one, tmp_path)
    assert len(errors) == 2
    assert all("SystemExit: 143" in error for error in errors)
    assert (tmp_path / ".stage2.resume.pt").exists()
    assert not (tmp_path / "stage2.safetensors").exists()


@pytest.mark.parametrize(("batch", "size"), [(16, 3), (2, 4), (1, 1)])
def test_shares_are_the_batch(batch: int, size: int) -> None:
    shares = [range(batch)[Ranks(rank, size).share(batch)] for rank in range(size)]
    assert [index for share in shares for index in share] == list(range(batch))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_a_share_meets_the_dropout_of_the_whole_batch() -> None:
    layer, images = Dropout(0.5), torch.ones(4, 8, 2, 2)
    torch.manual_seed(0)
    whole = layer(images)
    assert set(whole.unique().tolist()) == {0.0, 2.0}
    torch.manual_seed(0)
    assert torch.equal(torch.nn.functional.dropout2d(images, 0.5), whole)
    place_share(layer, 4, 1)
    torch.manual_seed(0)
    assert torch.equal(layer(images[:2]), whole[1:3])


def refuse(most: int) -> Callable[..., None]:
    """A hook by which a network holds `most` images at once."""

    def hook(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if len(inputs[0]) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")

    return hook


def narrow(most: int) -> Callable[..., torch.nn.Module]:
    """Networks on a device that holds `most` images at once."""

    def build(*arguments: Any, **options: Any) -> torch.nn.Module:
        model = build_model(*arguments, **options)
        (model.body if isinstance(model, Embedded) else model).register_forward_pre_hook(refuse(most))
        return model

    return build


def narrow_forward(most: int) -> Callable[..., torch.Tensor]:
    """The SCM's forward pass on a device that holds `most` stacks of masks at once."""
    whole = SCM.forward

    def forward(model: SCM, masks: torch.Tensor) -> torch.Tensor:
        refuse(most)(model, (masks,))
        return whole(model, masks)

    return forward


def run_scm(folder: Path) -> None:
    """A few steps of the SCM, where some crops hold pixels that the user labelled."""
    _, raw = case.phantom()
    labels = np.full_like(raw, 255)
    labels[2, 10:30:3, 10:30:2] = raw[2, 10:30:3, 10:30:2]
    volumes = [ArrayVolume(raw)], [ArrayVolume(np.roll(raw, 1, axis=2))], [ArrayVolume(labels)]
    small = {"adjacent_slices": 3, "width": 8, "crop": 16, "batch": 5, "steps": 3, "lr": 1e-4}
    out = folder / "scm.safetensors", folder / "scm.csv"
    train_scm(*volumes, *out, {**case.section("refine_scm"), **small}, 2, 0, "cpu", 0.0)


def test_training_out_of_memory_goes_on_in_pieces(
    alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(train_module, "build_model", narrow(1))
    monkeypatch.setattr("beamseg.models.build_model", narrow(1))
    both_stages(tmp_path, alone / "stage2.safetensors")
    assert "out of memory on the device: 1 images at once from here on" in caplog.text
    same(tmp_path, alone, "stage2.safetensors")
    same(tmp_path, alone, "stage3.safetensors")


@pytest.mark.parametrize("most", [1, 2])
def test_contrast_out_of_memory_goes_on_in_pieces(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Partners lie in other pieces; both views, dropout and what clusters suggest are those of the whole batch."""
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    whole.mkdir(), pieces.mkdir()
    how: dict[str, Any] = {"batch": 5, "steps": 3, "classifier_steps": 3, "lr": 1e-4, "dropout": 0.3, "prior": 0.5}
    case.run_contrastive(whole, **how)
    monkeypatch.setattr("beamseg.train_contrastive.build_model", narrow(most))
    case.run_contrastive(pieces, **how)
    assert f"out of memory on the device: {most} images at once from here on" in caplog.text
    same(pieces, whole, "stage2.safetensors")
    found, wanted = (pd.read_csv(folder / "train.csv") for folder in (pieces, whole))
    pd.testing.assert_frame_equal(found, wanted, rtol=1e-4)


@pytest.mark.parametrize("most", [1, 2])
def test_scm_out_of_memory_goes_on_in_pieces(
    most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    whole, pieces = tmp_path / "whole", tmp_path / "pieces"
    whole.mkdir(), pieces.mkdir()
    run_scm(whole)
    monkeypatch.setattr(SCM, "forward", narrow_forward(most))
    run_scm(pieces)
    assert f"out of memory on the device: {most} images at once from here on" in caplog.text
    same(pieces, whole, "scm.safetensors")
    found, wanted = (pd.read_csv(folder / "scm.csv") for folder in (pieces, whole))
    pd.testing.assert_frame_equal(found, wanted, rtol=1e-4)


def test_suggestions_weigh_the_same_in_pieces() -> None:
    images = torch.rand(4, 1, 6, 6, generator=torch.Generator().manual_seed(0))
    target = torch.full((4, 6, 6), 255, dtype=torch.uint8)
    target[0, :2], target[1, 0], target[2, :3], target[3] = 0, 1, SUGGESTED, SUGGESTED + 1
    totals, weights = [], []
    for most in (4, 1):
        torch.manual_seed(0)
        model = torch.nn.Conv2d(1, 2, 3, padding=1)
        how: dict[str, Any] = {"lr": 1e-4, "steps": 3, "seed": 0, "prior": 0.5}
        learner = Learner(model, cross_entropy, 4, compute=choose("cpu"), ranks=Ranks(), **how)
        learner.pieces = Pieces(most)
        totals.append(torch.stack([learner.step(step, images, target, target < SUGGESTED)[0] for step in range(3)]))
        weights.append(model.weight.detach())
    torch.testing.assert_close(totals[1], totals[0])
    torch.testing.assert_close(weights[1], weights[0], **TOLERANCE)


def test_prediction_out_of_memory_goes_on_with_fewer_tiles() -> None:
    volume = ArrayVolume(case.phantom((3, 40, 40))[0])
    torch.manual_seed(0)
    results = []
    for most in (16, 3):
        torch.manual_seed(0)
        model = narrow(most)("unet_noskip", 1, 2, dropout=0.1).eval()
        slices = predict.predict_slices(model, volume, 0, 3, {"overlap": 0.5}, choose("cpu"), 16, 1)
        results.append([(labels, confidence) for _, labels, confidence in slices])
    for (labels, confidence), (wanted, wanted_confidence) in zip(*results, strict=True):
        assert (labels != wanted).mean() < 0.001
        assert abs(confidence.astype(int) - wanted_confidence).max() <= 1


def test_a_single_crop_that_does_not_fit_is_an_error_in_words() -> None:
    def never(_: list[slice]) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(InputError, match="too little memory for one crop"):
        Pieces(4).run(4, never)


def test_a_crop_of_any_training_and_a_tile_that_do_not_fit_are_errors_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("beamseg.train_contrastive.build_model", narrow(0))
    with pytest.raises(InputError, match=r"(?s)too little memory for one crop.*smaller crops"):
        case.run_contrastive(tmp_path)
    monkeypatch.setattr(SCM, "forward", narrow_forward(0))
    with pytest.raises(InputError, match=r"(?s)too little memory for one crop.*smaller crops"):
        run_scm(tmp_path)
    with pytest.raises(InputError, match=r"(?s)too little memory for a tile of 25 px.*device: cpu"):
        refined(tmp_path, np.zeros((3, 50, 40), np.uint8))


def refined(folder: Path, raw: np.ndarray) -> np.ndarray:
    """What `refine_scm` leaves of raw labels, by a network of random weights."""
    torch.manual_seed(0)
    save(SCM(3, 3, 8), folder / "scm.safetensors")
    how: dict[str, Any] = {"slab_depth": 8, "part": "1-of-1", "identity": "x", "device": "cpu"}
    settings, volume = case.section("refine_scm"), ArrayVolume(raw)
    refine_scm(folder / "1-of-1.json", volume, folder / "scm.safetensors", settings, mpp=volume, **how)
    return SlabVolume([folder / "1-of-1.json"], "labels").read(0, len(raw))


def test_refinement_out_of_memory_goes_on_with_smaller_tiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    raw = np.random.default_rng(0).integers(0, 3, (4, 12, 10)).astype(np.uint8).repeat(4, 1).repeat(4, 2)
    raw[:, :6, :9] = 255
    (tmp_path / "whole").mkdir()
    (tmp_path / "tiles").mkdir()
    whole, forward = refined(tmp_path / "whole", raw), SCM.forward
    assert len(np.unique(whole)) > 2

    def small(model: SCM, masks: torch.Tensor) -> torch.Tensor:
        if masks.shape[-1] > 25 + 2 * model.reach:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(model, masks)

    monkeypatch.setattr(SCM, "forward", small)
    tiles = refined(tmp_path / "tiles", raw)
    assert caplog.text.count("out of memory on the device: tiles of 24 px from here on") == 1
    assert (tiles != whole).mean() < 0.001


def test_two_jobs_take_different_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two leases, a third shares the GPU with most room."""
    monkeypatch.setattr(device.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: type("P", (), {"uuid": f"u{index}"}))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (100 * index, 1000))
    lease = device.leased_gpu.__wrapped__
    assert [lease(), lease(), lease()] == [0, 1, 1]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(InputError, match="2 GPUs, and none free"):
        lease()


LEASE = """
import sys, torch
torch.cuda.device_count = lambda: 2
torch.cuda.get_device_properties = lambda index: type("P", (), {"uuid": f"u{index}"})
torch.cuda.mem_get_info = lambda index: (100 * index, 1000)
from beamseg.device import leased_gpu
print(leased_gpu(), flush=True)
sys.stdin.read()
"""


def test_a_gpu_is_a_process_s_own_until_that_ends_however_it_ends(tmp_path: Path) -> None:
    """Four processes of a machine that pretends to have two GPUs; number 1 has more room."""
    holders: list[subprocess.Popen[str]] = []

    def lease() -> int:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        environment = {**os.environ, "TMPDIR": str(tmp_path)}
        holders.append(subprocess.Popen([sys.executable, "-c", LEASE], text=True, env=environment, **pipes))
        return int(holders[-1].stdout.readline())

    try:
        assert [lease(), lease()] == [0, 1]
        assert lease() == 1
        holders[0].kill()
        holders[0].wait()
        assert lease() == 0
    finally:
        for holder in holders:
            holder.kill()
            holder.communicate()


def test_several_gpus_where_none_is_usable_are_refused_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instead of several processes on the CPU; `device: cpu` asks for none, whatever `gpus` says."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(os, "execv", lambda *_: pytest.fail("processes were started"))
    for gpus in (0, 1, 2):
        distributed.run_on(gpus)
    distributed.need_gpus(1)
    with pytest.raises(InputError, match="2, and no GPU that PyTorch can use"):
        distributed.need_gpus(2)


def test_several_gpus_get_a_process_each(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(os, "execv", lambda _, words: started.append(words))
    distributed.run_on(3)
    assert "--nproc-per-node 3" in " ".join(started[0])
    distributed.need_gpus(3)


def test_the_launcher_starts_processes_that_add_up(tmp_path: Path) -> None:
    script = tmp_path / "add.py"
    script.write_text(
        "import sys, torch\nfrom pathlib import Path\nfrom beamseg.distributed import join\n"
        "ranks = join(torch.device('cpu'))\nsummed = ranks.sum(torch.tensor(ranks.rank + 1.0)).item()\n"
        "Path(sys.argv[1], str(ranks.rank)).write_text(f'{ranks.size} {summed}')\n"
    )
    subprocess.run(distributed.launcher(2, [str(script), str(tmp_path)]), check=True, timeout=300)
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["2 3.0"] * 2
