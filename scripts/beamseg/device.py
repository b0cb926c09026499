"""Where networks compute, and in which precision: chosen once, by name and capability, and said in words."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import logging
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

import torch

from .errors import InputError
from .provenance import note

log = logging.getLogger(__name__)
Result = TypeVar("Result")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc
NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK}
"""Answers of a file system that takes no locks."""
OF_SLURM = ("SLURM_STEP_GPUS", "SLURM_JOB_GPUS")
"""What Slurm sets in a step, and in a batch script, that has GPUs."""
DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/kfd"))
"""What NVIDIA's and AMD's drivers make; GPUs that Slurm only pretends to have lack it."""


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

    @property
    def described(self) -> str:
        """The name, and what else two runs must share to be bitwise equal: threads of a CPU, the model of a GPU."""
        if self.device.type == "cuda":
            return f"{self.name}, {torch.cuda.get_device_name(self.device)}"
        return f"{self.name}, {torch.get_num_threads()} threads"

    def precision(self) -> AbstractContextManager[object]:
        """The autocast context of forward passes."""
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, self.autocast)


def choose(name: str = "auto") -> Compute:
    """Device and precision by name: `auto` (a usable GPU, else the CPU), `cpu` or `cuda`; the job's record says which.

    bfloat16 where the hardware multiplies it (GPUs of compute capability 8 and up, CPUs with AVX512-BF16 or AMX),
    else float16 on GPUs, float32 on CPUs.

    Raises
    ------
    InputError
        If `cuda` is asked for, or `auto` where Slurm gave this job a GPU and its driver is there, and none is usable.
        Without a driver, as on a test's cluster of pretended GPUs, it is a warning: never a silent slow run.
    """
    usable = torch.cuda.is_available()
    given = next((os.environ[key] for key in OF_SLURM if os.environ.get(key)), None)
    driven = any(path.exists() for path in DRIVERS)
    if not usable and name == "auto" and given and not driven:
        log.warning(
            "WARNING: Slurm gave this job GPU %s, and this node has no driver of a GPU (%s): the job computes on the "
            "CPU, which may take a hundred times as long. Tell the cluster's administrators; `device: cuda` makes this "
            "an error",
            given,
            " or ".join(map(str, DRIVERS)),
        )
    if not usable and (name == "cuda" or (name == "auto" and given and driven)):
        found = "this PyTorch is a CPU build" if torch.version.cuda is None else "no GPU that PyTorch can use"
        if name == "auto":
            found += f", in a job that Slurm gave GPU {given}"
        remedy = "`make setup TORCH=cuda` installs one that can; or set `device: cpu`, and no GPU is asked for"
        raise InputError("device", found, "a usable CUDA GPU", remedy)
    if name not in ("auto", "cpu", "cuda"):
        raise InputError("device", repr(name), "auto, cpu or cuda", "choose one of them")
    if usable and name != "cpu":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        index = leased_gpu()
        torch.cuda.set_device(index)
        dtype = torch.bfloat16 if torch.cuda.get_device_capability(index)[0] >= 8 else torch.float16
        compute = Compute(torch.device("cuda", index), dtype)
    else:
        keep_freed_memory()
        compute = Compute(torch.device("cpu"), torch.bfloat16 if _cpu_multiplies_bfloat16() else None)
    note(device=compute.described)
    return compute


def keep_freed_memory() -> None:
    """Have glibc keep what is freed for the next allocation, as a network on a CPU frees and takes the same each step.

    Given back and taken anew, its pages were a quarter of a step (0.45 s of processor time against 0.34 s,
    `unet_noskip`, 16 crops of 96²). Where the C library is another, nothing changes.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 2**25)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


@cache
def leased_gpu() -> int:
    """Number of a GPU that no other process of this machine has, held until this process ends.

    A lock on a file named by the GPU's own identifier, so that two processes which number them differently agree. Of
    those in CUDA_VISIBLE_DEVICES, where it is set. If all are taken (by another workflow, or a scheduler that shares
    them), or if the folder of temporary files takes no locks, the one with most free memory.

    Raises
    ------
    InputError
        If several processes train together, and cannot have a GPU each.
    """
    gpus = range(torch.cuda.device_count())
    folder = Path(tempfile.gettempdir())
    held: bool | None = False
    for index in gpus:
        held = _lock(folder / f"beamseg-gpu-{torch.cuda.get_device_properties(index).uuid}.lock")
        if held:
            return index
    if int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1:
        if held is None:
            raise InputError(
                "gpus",
                f"{folder}, a folder whose file system takes no locks",
                "locks, by which processes tell whose GPU is whose",
                "set TMPDIR to a folder of a local disk, or `gpus: 1`",
            )
        raise InputError("gpus", f"{len(gpus)} GPUs, and none free", "a GPU for each process", "set `gpus:` lower")
    free = max(gpus, key=lambda index: torch.cuda.mem_get_info(index)[0])
    if held is None:
        log.warning("%s takes no locks, so no GPU can be leased; taking number %d, with most free memory", folder, free)
    else:
        log.warning("all %d GPUs are in use by other jobs; sharing number %d", len(gpus), free)
    return free


def _lock(path: Path) -> bool | None:
    """Lock a file for the life of this process; False if another holds it, None if the file system takes no locks.

    A file of another user will do.
    """
    file = os.open(path, os.O_RDONLY if path.exists() else os.O_RDONLY | os.O_CREAT, 0o644)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        if isinstance(error, BlockingIOError):
            return False
        if error.errno not in NO_LOCKS:
            raise
        return None
    return True


def _cpu_multiplies_bfloat16() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@contextlib.contextmanager
def room_for(what: str, remedy: str) -> Iterator[None]:
    """Say in words that the device's memory does not hold `what`, which has no pieces.

    Raises
    ------
    InputError
        In place of PyTorch's error.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise InputError("device", f"too little memory for {what}", "room for it", remedy) from error


class Halved:
    """A size that the device has room for: as wanted, until it runs out of memory; then half, from there on.

    Parameters
    ----------
    most, least : int
        What is wanted, and the smallest that is tried.
    said, lacking : str
        In words, with `{}` for the size: what is done from there on, and what there is no room for in the end.
    remedy : str
        Where the smallest does not fit.
    """

    def __init__(self, most: int, least: int, said: str, lacking: str, remedy: str) -> None:
        self.most, self.least = most, least
        self.said, self.lacking, self.remedy = said, lacking, remedy

    def run(self, whole: int, work: Callable[[int], Result]) -> Result:
        """What `work` returns for a size; it is called anew with half of it, or of `whole`, when memory runs out.

        Raises
        ------
        InputError
            If the smallest does not fit.
        """
        while True:
            try:
                return work(self.most)
            except torch.OutOfMemoryError as error:
                size = min(self.most, whole)
                if size // 2 < self.least:
                    found = f"too little memory for {self.lacking.format(size)}"
                    raise InputError("device", found, "room for it", self.remedy) from error
            # Out of the handler, so that its traceback no longer holds what was allocated.
            self.most = size // 2
            log.warning("out of memory on the device: %s from here on", self.said.format(self.most))
            torch.cuda.empty_cache()


class Pieces:
    """How many images pass through a network at once, see `Halved`.

    Group norm makes images independent of each other, so the result is the same up to floating point.

    Parameters
    ----------
    most : int
        Images at once.
    one, remedy : str
        In words, what a single image is, and what to do where that does not fit.
    """

    def __init__(self, most: int, one: str = "one crop", remedy: str = "use smaller crops or a larger GPU") -> None:
        self.size = Halved(most, 1, "{} images at once", one, remedy)

    def run(self, images: int, work: Callable[[list[slice]], Result]) -> Result:
        """What `work` returns for the pieces of a batch; it is called anew with smaller ones when memory runs out.

        Raises
        ------
        InputError
            If a single image does not fit.
        """
        return self.size.run(
            images, lambda most: work([slice(i, min(i + most, images)) for i in range(0, images, most)])
        )
