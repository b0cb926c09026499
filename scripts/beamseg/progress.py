"""Progress of long work: a line every few seconds in the job's log, fewer of them on a terminal."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import IO, Any

LOG_SECONDS, TERMINAL_SECONDS = 10.0, 30.0
_terminal: ContextVar[tuple[IO[str], str] | None] = ContextVar("terminal", default=None)


@contextmanager
def announced(terminal: IO[str], name: str) -> Iterator[None]:
    """Within it, progress also goes to `terminal`, after `name`, if that is one and not a file or a pipe."""
    token = _terminal.set((terminal, name) if terminal.isatty() else None)
    try:
        yield
    finally:
        _terminal.reset(token)


class Progress:
    """Counts finished units and says how many, how fast, and how much time is left.

    Parameters
    ----------
    total : int
        Units in all.
    unit : str
        In the plural: `voxels`, `steps`.
    what : str
        What is under way; an empty one says nothing.
    done : int
        Units that an earlier job finished; the speed leaves them out.
    """

    def __init__(self, total: int, unit: str, what: str, done: int = 0) -> None:
        self.total, self.unit, self.what = total, unit, what
        self.done = self._first = done
        self._notes: dict[str, float] = {}
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._outputs: list[tuple[IO[str], str, float]] = []
        if what:
            self._outputs.append((sys.stderr, "", LOG_SECONDS))
        if what and (terminal := _terminal.get()) is not None:
            self._outputs.append((terminal[0], f"{terminal[1]}: ", TERMINAL_SECONDS))
        self._said = [self._started] * len(self._outputs)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        now = time.monotonic()
        if kind is not None:
            return
        for (stream, name, seconds), said in zip(self._outputs, self._said, strict=True):
            # A terminal hears of the end of what it heard of before.
            if seconds == LOG_SECONDS or said > self._started:
                print(f"{name}{self.what}: {ended(self, now - self._started)}", file=stream, flush=True)

    def update(self, units: int = 1, /, **notes: float) -> None:
        """Count `units` as done; `notes` (a loss, say) stand behind the next lines. Threads may call it."""
        with self._lock:
            self.done += units
            self._notes |= notes
            now = time.monotonic()
            for index, (stream, name, seconds) in enumerate(self._outputs):
                if now - self._said[index] >= seconds and self.done < self.total:
                    self._said[index] = now
                    print(f"{name}{self.what}: {underway(self, now - self._started)}", file=stream, flush=True)

    @property
    def new(self) -> int:
        """Units done since the start."""
        return self.done - self._first

    @property
    def notes(self) -> str:
        """What was noted last, as text."""
        return "".join(f", {name} {value:.4g}" for name, value in self._notes.items())


def underway(progress: Progress, seconds: float) -> str:
    """`1.2 M of 4.0 M voxels (30 %), 310 k voxels/s, 9 s left` after so many seconds."""
    speed = progress.new / seconds if seconds > 0 else 0.0
    left = duration((progress.total - progress.done) / speed) if speed > 0 else "unknown time"
    share = 100 * progress.done / progress.total if progress.total else 100.0
    return (
        f"{amount(progress.done)} of {amount(progress.total)} {progress.unit} ({share:.0f} %), "
        f"{amount(speed)} {progress.unit}/s, {left} left{progress.notes}"
    )


def ended(progress: Progress, seconds: float) -> str:
    """`4.0 M voxels in 13 s, 310 k voxels/s`; units of an earlier job are named."""
    earlier = f" ({amount(progress.done - progress.new)} by an earlier job)" if progress.done > progress.new else ""
    speed = f", {amount(progress.new / seconds)} {progress.unit}/s" if seconds > 0 and progress.new else ""
    return f"{amount(progress.done)} {progress.unit}{earlier} in {duration(seconds)}{speed}{progress.notes}"


def amount(value: float) -> str:
    """`310000` -> `310 k`, `1.2e6` -> `1.2 M`; three digits at most before the unit."""
    for factor, name in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= factor:
            return f"{value / factor:.3g}{name}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """`5` -> `5 s`, `90` -> `1 min 30 s`, `4000` -> `1 h 7 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
