"""One training on several GPUs of a node: each process learns from its share of every batch, all keep the same weights.

`torch.distributed.run` starts the processes; they know each other by the environment it sets.
"""

from __future__ import annotations

import atexit
import os
import sys
from dataclasses import dataclass

import torch
from torch import distributed, nn

from .errors import InputError


@dataclass(frozen=True)
class Ranks:
    """The processes of a training, of which this one is number `rank` of `size`; alone by default.

    What is summed over them is the same in all afterwards, so all take the same decisions.
    """

    rank: int = 0
    size: int = 1
    device: torch.device | str = "cpu"

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes files."""
        return self.rank == 0

    def share(self, batch: int) -> slice:
        """Crops of a batch of `batch` that are this process's: consecutive, the shares differ by one at most."""
        return slice(self.rank * batch // self.size, (self.rank + 1) * batch // self.size)

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over the processes, of any shape."""
        if self.size == 1:
            return values
        summed = values.detach().clone()
        distributed.all_reduce(summed)
        return summed

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process."""
        return flag if self.size == 1 else bool(self.sum(torch.tensor(float(flag), device=self.device)).item())

    def sum_gradients(self, model: nn.Module) -> None:
        """Add the gradients of all processes, in one message; a process without crops adds nothing."""
        if self.size == 1:
            return
        parameters = [p for p in model.parameters() if p.requires_grad]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = self.sum(torch.cat([gradient.flatten() for gradient in gradients]))
        for p, piece in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            p.grad = piece.view_as(p)


def rank_of_environment() -> tuple[int, int]:
    """Number of this process and of all, (0, 1) unless `torch.distributed.run` started it."""
    if not distributed.is_torchelastic_launched():
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


def join(device: torch.device) -> Ranks:
    """Meet the other processes that `torch.distributed.run` started, if any: NCCL between GPUs, gloo else."""
    rank, size = rank_of_environment()
    if size > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(distributed.destroy_process_group)
    return Ranks(rank, size, device)


def need_gpus(gpus: int) -> None:
    """Refuse several GPUs where none is usable: as many processes on one CPU are slower than one.

    Raises
    ------
    InputError
        If more than one is asked for and there is none.
    """
    if gpus > 1 and not torch.cuda.is_available():
        remedy = "set `gpus: 1`, or `device: cpu`; or ask for the node's GPUs (`gpu`, or `gres`, in the profile)"
        raise InputError("gpus", f"{gpus}, and no GPU that PyTorch can use", "a GPU for each process", remedy)


def run_on(gpus: int) -> None:
    """Become `torch.distributed.run` of this very script on that many GPUs, unless one does or this is a process of it.

    The process stays the same one, so signals that are meant for the job reach the launcher, which passes them on.
    Without a usable GPU it stays alone, for `need_gpus` to say so in its log.
    """
    if gpus < 2 or distributed.is_torchelastic_launched() or not torch.cuda.is_available():
        return
    os.execv(sys.executable, launcher(gpus, sys.argv))


def launcher(processes: int, script: list[str]) -> list[str]:
    """The command that starts a script in so many processes which know each other."""
    words = ["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    return [sys.executable, *words, "--nproc-per-node", str(processes), *script]
