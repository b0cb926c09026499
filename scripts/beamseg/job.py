"""What every script of the workflow shares: its log, its threads, and how it ends."""

from __future__ import annotations

import ast
import contextlib
import math
import os
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import IO, Any

from .code import digest_of, module_digests, script_of
from .errors import InputError
from .progress import announced
from .provenance import made_now, noted, read_json, write_json
from .seen import found_by


class Kept(dict[str, Any]):
    """What a job is given, with the text of something else.

    Snakemake compares texts: with that of what made the result that is there, it makes nothing again. The job, should
    it run for another reason, has every key.
    """

    def __init__(self, given: dict[str, Any], text: str) -> None:
        super().__init__(given)
        self.text = text

    def __repr__(self) -> str:
        return self.text


def kept(settings: Any, record: Path, name: str, standard: Any) -> Any:
    """Settings as `Kept`, where only keys that the record of their job lacks and that stand at their default are new.

    Parameters
    ----------
    settings : dict or None
    record : path
        `<log>.json` of the job; without it, or with other settings in it, they are returned as they are.
    name : str
        Of the rule's `params` entry.
    standard : dict or None
        Defaults, nested as the settings are.
    """
    text = read_json(record).get("settings", {}).get(name) if record.exists() else None
    if text is None or not isinstance(settings, dict):
        return settings
    try:
        then = ast.literal_eval(text)
    except ValueError:  # a number that has no literal
        return settings
    return Kept(settings, text) if _without_new(settings, then, standard) == then else settings


def _without_new(settings: dict[str, Any], then: Any, standard: Any) -> dict[str, Any]:
    """Settings without the keys that `then` lacks and that stand at their default."""
    then, standard = (value if isinstance(value, dict) else {} for value in (then, standard))
    result = {}
    for key, value in settings.items():
        if key not in then and key in standard and value == standard[key]:
            continue
        nested = isinstance(value, dict) and isinstance(then.get(key), dict)
        result[key] = _without_new(value, then[key], standard.get(key)) if nested else value
    return result


class Tee:
    """Text to a log file and to the terminal."""

    def __init__(self, *streams: IO[str]) -> None:
        self.streams = streams

    def write(self, text: str) -> int:
        """Write to every stream."""
        for stream in self.streams:
            stream.write(text)
            stream.flush()
        return len(text)

    def flush(self) -> None:
        """Flush every stream."""
        for stream in self.streams:
            stream.flush()

    def isatty(self) -> bool:
        """A log is no terminal."""
        return False


@contextlib.contextmanager
def job(snakemake: Any) -> Iterator[None]:
    """Run a script: output goes to the rule's log, errors are put in words, the end is recorded beside the log.

    The record `<log>.json` (stage, sample, state, cause, remedy, outputs, digests of the code, settings, what was seen
    of the user's files, device, seconds, memory) is what the summary reads; a job that was killed leaves the state
    `running`.

    Raises
    ------
    SystemExit
        Status 1 after an error, or if an earlier job for the same log still runs on this host.
    """
    if _follows_another():
        yield
        return
    log = Path(str(snakemake.log[0]))
    log.parent.mkdir(parents=True, exist_ok=True)
    record = log.with_name(log.name + ".json")
    _refuse_beside_another(record, snakemake.rule)
    wildcards = dict(snakemake.wildcards.items())
    modules, tracked = _modules(snakemake.rule), snakemake.params.get("code")
    entry: dict[str, Any] = {
        "stage": snakemake.rule,
        "sample": wildcards.get("sample") or wildcards.get("group"),
        "state": "running",
        "log": str(log),
        "outputs": [str(path) for path in snakemake.output],
        "code": digest_of(modules) if modules else tracked,
        "tracked": tracked,
        "modules": modules,
        **made_now(),
        "settings": {name: repr(value) for name, value in snakemake.params.items() if isinstance(value, dict)},
        "seen": found_by(snakemake.params),
        "pid": os.getpid(),
        "started": start_of(os.getpid()),
        "host": socket.gethostname(),
        "slurm_job": os.environ.get("SLURM_JOB_ID"),
        "mem_mb": snakemake.resources.get("mem_mb"),
        "runtime": snakemake.resources.get("runtime"),
    }
    write_json(record, entry)
    started = time.monotonic()
    previous = [(number, signal.getsignal(number)) for number in (signal.SIGTERM, signal.SIGINT)]
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # a shell's background job is not to hear Ctrl-C
        signal.signal(signal.SIGINT, _interrupt)
    with open(log, "w") as file:
        stdout, stderr = sys.stdout, sys.stderr
        sys.stdout = sys.stderr = Tee(file)
        try:
            with announced(stderr, str(entry["sample"])):
                yield
            entry["state"] = "done"
        except InputError as error:
            entry |= {"state": "failed", "cause": f"{error.where}: {error.found}", "remedy": error.remedy}
            for stream in (file, stderr):
                print(f"error in {snakemake.rule}: {error}", file=stream)
            raise SystemExit(1) from None
        except SystemExit as stop:
            entry |= {
                "state": "failed",
                "cause": f"stopped by a signal ({stop.code})",
                "remedy": "run the command again",
            }
            raise
        except BaseException as error:
            entry |= {
                "state": "failed",
                "cause": f"{type(error).__name__}: {error}",
                "remedy": "see the log; if it is not about your input, report it with the log",
            }
            traceback.print_exc(file=file)
            print(f"error in {snakemake.rule}: {type(error).__name__}: {error} (log: {log})", file=stderr)
            raise SystemExit(1) from None
        finally:
            sys.stdout, sys.stderr = stdout, stderr
            for number, handler in previous:
                signal.signal(number, handler)
            entry |= noted()
            entry["seconds"] = round(time.monotonic() - started, 3)
            peak = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
            entry["max_rss_mb"] = round(max(peak) / 1024)
            for told in beyond_what_it_asked(entry):
                print(told, file=file)
                print(told, file=stderr)
            write_json(record, entry)


def beyond_what_it_asked(entry: dict[str, Any]) -> list[str]:
    """What to say of a job's record if it took more memory or time than it had asked for: a cluster ends such jobs."""
    told = []
    for key, used, what in (
        ("mem_mb", entry["max_rss_mb"], "MB of memory"),
        ("runtime", math.ceil(entry["seconds"] / 60), "minutes"),
    ):
        asked = entry[key]
        if isinstance(asked, int) and used > asked:
            told.append(
                f"WARNING: {entry['stage']} took {used} {what} and had asked for {asked}; where that is enforced, set "
                f"`set-resources: {entry['stage']}: {key}: {math.ceil(1.25 * used)}` in the profile"
            )
    return told


def _follows_another() -> bool:
    """Whether `torch.distributed.run` started this process beside the first one, which keeps log and record."""
    return "TORCHELASTIC_RUN_ID" in os.environ and os.environ["RANK"] != "0"


def _modules(rule: str) -> dict[str, str]:
    """Digest of each module of a rule's script, so that `code: frozen` can say what has changed since."""
    try:
        return module_digests(script_of(rule))
    except FileNotFoundError:
        return {}


def start_of(pid: int) -> str | None:
    """When a process of this host started, as boot and clock tick; None if it has ended or /proc does not tell.

    Process numbers are used again; a number together with its start is not.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else f"{boot} {fields[19]}"


def alive(entry: dict[str, Any]) -> bool:
    """Whether the job of a record still runs here; of another host's nothing is known, and nothing assumed."""
    started = entry.get("started")
    return entry["host"] == socket.gethostname() and started is not None and start_of(entry["pid"]) == started


def _refuse_beside_another(record: Path, stage: str) -> None:
    """Two jobs must not write one result: after an unlock by hand, one may still be left of a killed Snakemake."""
    if not record.exists():
        return
    entry = read_json(record)
    if entry["state"] == "running" and alive(entry) and entry["pid"] != os.getpid():
        error = InputError(
            str(record),
            f"process {entry['pid']}, left by an earlier Snakemake, is still at this",
            "no other job for the same result",
            "run `beamseg recover`, then the same command again",
        )
        print(f"error in {stage}: {error}", file=sys.stderr)
        raise SystemExit(1)


def _terminate(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends a job as an exception, so that resume state and temporary files are dealt with."""
    raise SystemExit(128 + number)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Ctrl-C does what SIGTERM does at that moment: in a training, save the state first."""
    os.kill(os.getpid(), signal.SIGTERM)
