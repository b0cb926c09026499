"""A private Slurm on this machine: its nodes are daemons with ports of their own, their GPUs are fake.

It schedules as a real one does, but does not enforce limits of memory and cores. Loopback only, no systemd; needs root,
since steps look for the configuration in /etc/slurm alone.

All processes of a test run share one, see `shared`. A keeper, this file run as a program, starts it and takes it down.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
FILES = ("slurm.conf", "gres.conf")
ETC = Path("/etc/slurm")
PORT = 17800
NODES = ("n1", "n2", "g1", "g2", "g3", "g4")
CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={root}/munge.socket
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool-%n
SlurmctldPidFile={root}/slurmctld.pid
SlurmdPidFile={root}/slurmd-%n.pid
SlurmctldLogFile={root}/slurmctld.log
SlurmdLogFile={root}/slurmd-%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
ReturnToService=2
MinJobAge=3600
SlurmctldTimeout=10
SlurmdTimeout=10
KillWait=20
CompleteWait=0
NodeName=n[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{n1}-{n2}] CPUs=16 RealMemory=64000
NodeName=g[1-4] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{g1}-{g4}] CPUs=16 RealMemory=64000 Gres=gpu:fake:8
PartitionName=all Nodes=n[1-2],g[1-2] Default=YES DefaultTime=10 MaxTime=UNLIMITED State=UP
PartitionName=named Nodes=n[1-2],g[1-2] DefaultTime=10 MaxTime=UNLIMITED State=UP
PartitionName=frail Nodes=g[3-4] DefaultTime=10 MaxTime=UNLIMITED State=UP
"""


def missing() -> str | None:
    """Why no private Slurm can be brought up here, or None."""
    if os.geteuid():
        return "needs root"
    absent = [program for program in PROGRAMS if shutil.which(program, path=search_path()) is None]
    if absent:
        return f"no {', '.join(absent)}: apt-get install slurmctld slurmd slurm-client munge"
    real = [name for name in FILES if (ETC / name).exists() and not (ETC / name).is_symlink()]
    return f"{ETC} holds the configuration of another Slurm" if real else None


def search_path() -> str:
    """The daemons lie where only root's path leads."""
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


def wait_until(true: Callable[[], object], what: str, seconds: float = 120.0) -> None:
    """Wait for a condition; AssertionError with its name when the time is over."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s: {what}"
        time.sleep(0.2)


@contextmanager
def locked(path: Path, how: int = fcntl.LOCK_EX) -> Iterator[IO[str]]:
    """Hold a lock on a file; it goes with the process, however that ends."""
    with open(path, "a") as file:
        fcntl.flock(file, how)
        yield file


@contextmanager
def shared(base: Path) -> Iterator[Cluster]:
    """The one cluster of a folder: the first that asks for it has it started, and waits for its end.

    It is taken down when the last has left, or was killed: by then nobody holds the lock that each takes.
    """
    keeper, where = None, base / "slurm.root"
    with open(base / "slurm.users", "a") as users:
        with locked(base / "slurm.gate"):
            fcntl.flock(users, fcntl.LOCK_SH)  # not while another is being taken down
            if not where.exists():
                with open(base / "slurm.keeper", "ab") as output:
                    keeper = subprocess.Popen(
                        [sys.executable, __file__, str(base)],
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                        start_new_session=True,
                    )
                wait_until(lambda: where.exists() or keeper.poll() is not None, "a cluster", 180)
                assert where.exists(), (base / "slurm.keeper").read_text()[-3000:]
        yield Cluster(Path(where.read_text()))
    if keeper is not None:
        keeper.wait()


def keep(base: Path) -> None:
    """Start a cluster and keep it as long as anybody uses it."""
    root = next(path for number in range(1000) if not (path := base / f"slurm{number}").exists())
    where = base / "slurm.root"
    with open(base / "slurm.users", "a") as users, Keeper(root) as keeper:
        new = where.with_suffix(".new")
        new.write_text(str(root))
        new.rename(where)
        while not alone(users):
            keeper.bring_back()
            time.sleep(0.2)
        where.unlink()  # and the lock is held until all is down


def alone(users: IO[str]) -> bool:
    """Whether nobody else holds the lock; this process then does."""
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Cluster:
    """Two nodes without GPUs (n1, n2) and four with eight fake ones each.

    g3 and g4 are of the partition `frail` alone, whose nodes may be lost; the default one and `named` have all others.

    Parameters
    ----------
    root : path
        Holds everything but two links in /etc/slurm.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def start_node(self, node: str) -> None:
        """Bring a lost node back; the keeper does, and it is there once `states` says so."""
        (self.root / f"{node}.back").touch()

    def lose_node(self, node: str) -> None:
        """The node loses its power: the daemon and all that runs on it end at once, and nothing is said."""
        jobs = [job for job, fields in self.jobs().items() if fields["NodeList"] == node]
        process_kill(int((self.root / f"{node}.number").read_text()))
        for process in processes_of(jobs):
            process_kill(process)

    def cancel(self, folder: Path) -> None:
        """End what is left of a working directory's jobs."""
        if jobs := self.unfinished(folder):
            subprocess.run(["scancel", *jobs], check=False, capture_output=True)

    def unfinished(self, folder: Path) -> list[str]:
        """Jobs of a working directory that wait, run or are at their end."""
        ended = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
        return [job for job, fields in self.jobs(folder).items() if fields["JobState"] not in ended]

    def states(self) -> dict[str, str]:
        """State of each node."""
        text = subprocess.run(["sinfo", "-h", "-N", "-o", "%N %T"], capture_output=True, text=True).stdout
        return dict(line.split() for line in text.splitlines())

    def jobs(self, folder: Path | None = None) -> dict[str, dict[str, str]]:
        """What `scontrol` tells of each job, finished ones too, by number; of one working directory, if given."""
        text = subprocess.run(
            ["scontrol", "--details", "--oneliner", "show", "job"], capture_output=True, text=True
        ).stdout
        found = {}
        for line in text.splitlines():
            fields = dict(word.split("=", 1) for word in line.split() if "=" in word)
            if "JobId" in fields and (folder is None or fields["WorkDir"] == str(folder)):
                found[fields["JobId"]] = fields
        return found


class Keeper:
    """Starts the daemons of a cluster, and ends them."""

    def __init__(self, root: Path) -> None:
        self.root, self.daemons = root, dict[str, subprocess.Popen[bytes]]()

    def __enter__(self) -> Keeper:
        root = self.root
        root.mkdir(mode=0o755, parents=True)
        (root / "state").mkdir()
        # Slurm demands character devices, but follows links; the digit becomes CUDA_VISIBLE_DEVICES.
        for number in range(8):
            (root / f"fakegpu{number}").symlink_to("/dev/null")
        key = root / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        names = ("port", *NODES)
        ports = dict(zip(names, range(PORT, PORT + len(names)), strict=True))
        host = socket.gethostname().split(".")[0]
        (root / "slurm.conf").write_text(CONF.format(root=root, host=host, **ports))
        (root / "gres.conf").write_text(f"NodeName=g[1-4] Name=gpu Type=fake File={root}/fakegpu[0-7]\n")
        ETC.mkdir(exist_ok=True)
        for name in FILES:
            (ETC / name).unlink(missing_ok=True)
            (ETC / name).symlink_to(root / name)
        try:
            files = [f"--{name}={root}/munge.{name.split('-')[0]}" for name in ("key-file", "pid-file", "log-file")]
            files += [f"--seed-file={root}/munge.seed", f"--socket={root}/munge.socket"]
            self.spawn("munged", "munged", "--foreground", "--force", *files)
            wait_until((root / "munge.socket").exists, "munge")
            self.spawn("slurmctld", "slurmctld", "-D", "-c")
            for node in NODES:
                self.spawn(node, "slurmd", "-D", "-N", node)
            wait_until(lambda: Cluster(root).states() == dict.fromkeys(NODES, "idle"), "all nodes are idle")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(subprocess.TimeoutExpired):  # of a controller that never came up
            subprocess.run(["scancel", "--me", "--signal=KILL"], capture_output=True, timeout=20)
        time.sleep(1)
        for daemon in reversed(self.daemons.values()):
            daemon.terminate()
        for daemon in self.daemons.values():
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for name in FILES:
            if (ETC / name).is_symlink() and (ETC / name).readlink() == self.root / name:
                (ETC / name).unlink()

    def spawn(self, name: str, *command: str) -> None:
        """Start a daemon, which ends with this process at the latest."""
        with open(self.root / f"{name}.out", "ab") as output:
            self.daemons[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**os.environ, "PATH": search_path()},
            )
        (self.root / f"{name}.number").write_text(str(self.daemons[name].pid))

    def bring_back(self) -> None:
        """Start the lost nodes that are to come back."""
        for wish in self.root.glob("*.back"):
            wish.unlink()
            self.daemons[wish.stem].wait()
            self.spawn(wish.stem, "slurmd", "-D", "-N", wish.stem)


def processes_of(jobs: list[str]) -> list[int]:
    """Processes of Slurm jobs, the step daemons among them."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "environ").read_bytes().split(b"\0")
            command = (folder / "cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
        except OSError:
            continue
        of_step = any(command.startswith(f"slurmstepd: [{job}.") for job in jobs)
        if of_step or any(f"SLURM_JOB_ID={job}".encode() in words for job in jobs):
            found.append(int(folder.name))
    return found


def process_kill(pid: int) -> None:
    """SIGKILL, unless it has ended."""
    try:
        os.kill(pid, 9)
    except ProcessLookupError:
        return


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    keep(Path(sys.argv[1]))
