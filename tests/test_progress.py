"""Progress: what it says, where, and that it counts right."""

from __future__ import annotations

import io
import threading

import pytest

from beamseg import progress
from beamseg.progress import Progress, amount, announced, duration, underway


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """A time that goes on by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


def steps(clock: Clock, seconds: float, total: int = 60, **options: int) -> None:
    with Progress(total, "steps", "train", **options) as bar:
        for step in range(bar.done, total):
            clock.now += seconds
            bar.update(loss=1 / (step + 1))


def test_the_log_gets_a_line_every_ten_seconds_and_one_at_the_end(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    steps(clock, 0.5)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "train: 20 of 60 steps (33 %), 2 steps/s, 20 s left, loss 0.05",
        "train: 40 of 60 steps (67 %), 2 steps/s, 10 s left, loss 0.025",
        "train: 60 steps in 30 s, 2 steps/s, loss 0.01667",
    ]


def test_a_terminal_gets_fewer_lines_with_the_name_and_a_pipe_none(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal, pipe = Terminal(), io.StringIO()
    with announced(terminal, "rock"):
        steps(clock, 1)
    with announced(pipe, "rock"):
        steps(clock, 1)
    assert terminal.getvalue().splitlines() == [
        "rock: train: 30 of 60 steps (50 %), 1 steps/s, 30 s left, loss 0.03333",
        "rock: train: 60 steps in 1 min 0 s, 1 steps/s, loss 0.01667",
    ]
    assert pipe.getvalue() == ""
    assert len(capsys.readouterr().err.splitlines()) == 12


def test_short_work_says_nothing_on_a_terminal(clock: Clock) -> None:
    terminal = Terminal()
    with announced(terminal, "rock"):
        steps(clock, 0.1)
    assert terminal.getvalue() == ""


def test_what_an_earlier_job_did_is_not_taken_for_speed(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    bar = Progress(100, "steps", "train", done=80)
    bar.update(10)
    assert underway(bar, 5.0) == "90 of 100 steps (90 %), 2 steps/s, 5 s left"
    steps(clock, 1, total=60, done=55)
    assert capsys.readouterr().err == "train: 60 steps (55 by an earlier job) in 5 s, 1 steps/s, loss 0.01667\n"


def test_threads_lose_no_count() -> None:
    bar = Progress(8000, "voxels", "")
    threads = [threading.Thread(target=lambda: [bar.update(2) for _ in range(500)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bar.done == 8000


def test_nothing_is_said_without_a_name_or_after_an_error(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(10, "voxels", "") as bar:
        clock.now += 60
        bar.update()
    with pytest.raises(KeyError), Progress(10, "voxels", "segment"):
        raise KeyError
    assert capsys.readouterr().err == ""


def test_numbers_and_times_in_words() -> None:
    assert [amount(value) for value in (0.25, 999, 1000, 310_000, 1.2e6, 5.03e9)] == [
        *("0.25", "999", "1 k", "310 k", "1.2 M", "5.03 G")
    ]
    assert [duration(value) for value in (4.6, 90, 3599.7, 4000)] == ["5 s", "1 min 30 s", "1 h 0 min", "1 h 6 min"]
