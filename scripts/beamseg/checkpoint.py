"""Resume state: a file beside the output, undeclared, atomic, owned by one job, removed on success.

It bears a digest of what the job was asked to do; a state of another job is left out of account.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from .distributed import Ranks
from .provenance import atomic_path, digest

log = logging.getLogger(__name__)


class Resume:
    """The resume state of one output file.

    Parameters
    ----------
    output : path
        The declared output; the state is `.<stem>.resume.pt` beside it.
    task : JSON-like
        Everything that decides the result; its digest must agree for a state to be used.
    every_s : float
        Seconds between writes.
    ranks : Ranks
        The processes of the job, all at the same step; the first writes.
    """

    def __init__(self, output: str | Path, task: Any, every_s: float, ranks: Ranks | None = None) -> None:
        output = Path(output)
        self.ranks = ranks or Ranks()
        self.path = output.with_name(f".{output.stem}.resume.pt")
        self.digest, self.every_s = digest(task), every_s
        self._told = False  # this process, at any moment
        self._stopping = False  # all processes, as of the last `due`
        self._written = time.monotonic()

    def load(self, device: torch.device) -> dict[str, Any] | None:
        """The state of an interrupted run of the same task, or None."""
        if not self.path.exists():
            return None
        try:
            state = torch.load(self.path, map_location=device, weights_only=True)
        except Exception as error:  # whatever made it unreadable, starting over is right
            log.warning("resume state %s is not readable (%s); starting over", self.path.name, error)
            return None
        if state.get("digest") != self.digest:
            log.warning("resume state %s belongs to other settings or inputs; starting over", self.path.name)
            return None
        return state

    def due(self) -> bool:
        """Whether to write now: enough time has passed, or any process of the job was told to end."""
        self._stopping = self.ranks.any(self._told)
        return self._stopping or (self.ranks.first and time.monotonic() - self._written >= self.every_s)

    def save(self, state: dict[str, Any]) -> None:
        """Write the state atomically; if by `due` the job was told to end, end it with the status of SIGTERM.

        Told while the state is written, it takes another step and writes again: all processes of a job must agree.
        """
        if self.ranks.first:
            with atomic_path(self.path) as temporary:
                torch.save({**state, "digest": self.digest}, temporary)
        self._written = time.monotonic()
        if self._stopping:
            self.ranks.any(True)  # nobody leaves before the state is written: the launcher would end the others
            raise SystemExit(128 + signal.SIGTERM)

    def remove(self) -> None:
        """After success."""
        self.path.unlink(missing_ok=True)

    @contextmanager
    def watching_sigterm(self) -> Iterator[None]:
        """Turn SIGTERM (Slurm's `--signal`, Snakemake's cancel) into a last write at the next step."""

        def note(_signal: int, _frame: Any) -> None:
            self._told = True

        try:
            before = signal.signal(signal.SIGTERM, note)
        except ValueError:  # not the main thread: the periodic writes must do
            yield
            return
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)
