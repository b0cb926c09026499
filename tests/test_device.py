"""Precision follows the hardware, and every stage computes in each of them."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from beamseg import device, self_correct, train
from beamseg.device import Compute
from beamseg.errors import InputError
from beamseg.models import load_weights
from beamseg.predict import predict_slices
from beamseg.provenance import noted
from beamseg.volumes import ArrayVolume
from training_case import phantom, run_self_correct, run_train

PRECISIONS = [None, torch.bfloat16, torch.float16]


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [
        ((6, 1), torch.float16),
        ((7, 0), torch.float16),
        ((7, 5), torch.float16),
        ((8, 0), torch.bfloat16),
        ((8, 9), torch.bfloat16),
        ((9, 0), torch.bfloat16),
        ((12, 0), torch.bfloat16),
    ],
)
def test_a_gpu_computes_in_what_its_capability_multiplies(
    capability: tuple[int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    monkeypatch.setattr(device, "leased_gpu", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "Model 1")
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    found = device.choose("auto")
    assert (found.device.type, found.autocast) == ("cuda", dtype)
    assert noted()["device"] == f"cuda-{str(dtype).removeprefix('torch.')}, Model 1"  # what the job's record says
    assert device.choose("cpu").device.type == "cpu"


@pytest.mark.parametrize(
    ("avx512", "amx", "dtype"), [(False, False, None), (True, False, torch.bfloat16), (False, True, torch.bfloat16)]
)
def test_a_cpu_computes_in_bfloat16_where_it_multiplies_it(
    avx512: bool, amx: bool, dtype: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert device.choose("auto") == Compute(torch.device("cpu"), dtype)


@pytest.mark.parametrize("key", device.OF_SLURM)
def test_a_gpu_of_slurm_s_that_cannot_be_used_is_refused_unless_the_cpu_is_asked_for(
    key: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(device, "DRIVERS", (tmp_path / "absent", tmp_path))
    for other in device.OF_SLURM:
        monkeypatch.delenv(other, raising=False)
    assert device.choose("auto").device.type == "cpu"
    monkeypatch.setenv(key, "1")
    with pytest.raises(InputError, match="that Slurm gave GPU 1") as error:
        device.choose("auto")
    assert "make setup TORCH=cuda" in error.value.remedy
    assert device.choose("cpu").device.type == "cpu"
    monkeypatch.setattr(device, "DRIVERS", (tmp_path / "absent",))
    assert device.choose("cpu").device.type == "cpu"
    assert caplog.text == ""
    assert device.choose("auto").device.type == "cpu"
    assert "Slurm gave this job GPU 1, and this node has no driver of a GPU" in caplog.text


def test_a_device_is_described_by_its_threads_or_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda given: f"model of {given}")
    assert Compute(torch.device("cpu"), None).described == "cpu-float32, 3 threads"
    assert Compute(torch.device("cuda", 1), torch.float16).described == "cuda-float16, model of cuda:1"


def test_both_trainings_and_prediction_in_each_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grey, labels = phantom()
    losses, found = [], []
    for dtype in PRECISIONS:
        compute = Compute(torch.device("cpu"), dtype)
        for stage in (train, self_correct):
            monkeypatch.setattr(stage, "choose", lambda name, chosen=compute: chosen)
        folder = tmp_path / compute.name
        folder.mkdir()
        run_self_correct(folder, run_train(folder, steps=2, log_every=1), steps=1)
        curves = [pd.read_csv(folder / name)["loss"] for name in ("train.csv", "self_correct.csv")]
        losses.append(np.concatenate(curves))
        model, _ = load_weights(folder / "stage2.safetensors")
        assert all(p.dtype == torch.float32 and p.isfinite().all() for p in model.parameters())
        # The same weights in each precision.
        model, _ = load_weights(tmp_path / "cpu-float32" / "stage2.safetensors")
        slices = predict_slices(model, ArrayVolume(grey), 2, 3, {"overlap": 0.5}, compute, 16, 3)
        found.append(next((of, sure) for _, of, sure in slices))
    # The first step is the same network on the same batch; bfloat16 has 8 bits, float16 has 11.
    assert losses[1][0] == pytest.approx(losses[0][0], rel=0.02)
    assert losses[2][0] == pytest.approx(losses[0][0], rel=0.005)
    assert np.isfinite(losses).all()
    (whole, sure), *others = found
    assert ((whole == 255) == (labels[2] == 255)).all()
    for values, confidence in others:
        assert ((values == 255) == (whole == 255)).all()
        assert (values == whole)[sure > 140].all()
        assert np.abs(confidence.astype(int) - sure).mean() < 3


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK])
def test_where_locks_are_refused_the_gpu_with_most_room_is_taken(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(device.fcntl, "flock", refuse)
    monkeypatch.setattr(device.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: type("P", (), {"uuid": f"u{index}"}))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: ([100, 300, 200][index], 1000))
    lease = device.leased_gpu.__wrapped__
    before = os.listdir("/proc/self/fd")
    with caplog.at_level(logging.WARNING):
        assert lease() == 1
    assert len(caplog.records) == 1
    assert "takes no locks" in caplog.text
    assert len(os.listdir("/proc/self/fd")) == len(before)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(InputError, match="set TMPDIR"):
        lease()


def test_another_error_of_a_lock_closes_its_file_and_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(device.fcntl, "flock", fail)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError, match="Input/output"):
        device._lock(tmp_path / "lock")
    assert len(os.listdir("/proc/self/fd")) == len(before)
