"""Where networks compute, and in which precision: chosen once, by name and capability, and said in words."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from .errors import InputError


@dataclass(frozen=True)
class Compute:
    """A device and the precision of its convolutions; both are part of what makes two runs bitwise equal."""

    device: torch.device
    autocast: torch.dtype | None
    """Type of convolutions, or None for float32 throughout."""

    @property
    def name(self) -> str:
        """`cpu-bfloat16`, `cuda-float16`, `cpu-float32` …"""
        return f"{self.device.type}-{str(self.autocast or torch.float32).removeprefix('torch.')}"

    def precision(self) -> AbstractContextManager[object]:
        """The autocast context of forward passes."""
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, self.autocast)


def choose(name: str = "auto") -> Compute:
    """Device and precision by name: `auto` (a usable GPU, else the CPU), `cpu` or `cuda`.

    bfloat16 where the hardware multiplies it (GPUs of compute capability 8 and up, CPUs with AVX512-BF16 or AMX),
    else float16 on GPUs, float32 on CPUs.

    Raises
    ------
    InputError
        If `cuda` is asked for and no GPU is usable: never a silent slow run.
    """
    usable = torch.cuda.is_available()
    if name == "cuda" and not usable:
        found = "this PyTorch is a CPU build" if torch.version.cuda is None else "no GPU that PyTorch can use"
        raise InputError("device", found, "a usable CUDA GPU", "set `device: auto` or `cpu`, or run where a GPU is")
    if name not in ("auto", "cpu", "cuda"):
        raise InputError("device", repr(name), "auto, cpu or cuda", "choose one of them")
    if usable and name != "cpu":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        dtype = torch.bfloat16 if torch.cuda.get_device_capability()[0] >= 8 else torch.float16
        return Compute(torch.device("cuda"), dtype)
    return Compute(torch.device("cpu"), torch.bfloat16 if _cpu_multiplies_bfloat16() else None)


def _cpu_multiplies_bfloat16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
