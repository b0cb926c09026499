"""Resume states and the signal that ends a job, at its worst moments."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from beamseg.checkpoint import Resume
from beamseg.distributed import Ranks


def told_to_end() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


@dataclass(frozen=True)
class Interrupted(Ranks):
    """A process that is told to end while the processes of its job agree that none was."""

    def any(self, flag: bool) -> bool:
        told_to_end()
        return flag


def test_a_signal_while_processes_agree_counts_at_the_next_step(tmp_path: Path) -> None:
    resume = Resume(tmp_path / "w.safetensors", {}, 1e9, Interrupted())
    with resume.watching_sigterm():
        assert not resume.due()
        assert resume.due()
        with pytest.raises(SystemExit) as ended:
            resume.save({"step": 2})
    assert ended.value.code == 128 + signal.SIGTERM


def test_a_signal_while_a_state_is_written_counts_at_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With several processes, the one that writes must not end alone: the others would wait for its gradients."""
    write = torch.save

    def write_and_tell(state: dict[str, Any], path: Path) -> None:
        write(state, path)
        told_to_end()

    monkeypatch.setattr(torch, "save", write_and_tell)
    resume = Resume(tmp_path / "w.safetensors", {}, 0.0)
    with resume.watching_sigterm():
        assert resume.due()
        resume.save({"step": 1})
        assert resume.due()
        with pytest.raises(SystemExit):
            resume.save({"step": 2})
    assert resume.load(torch.device("cpu"))["step"] == 2  # type: ignore[index]
