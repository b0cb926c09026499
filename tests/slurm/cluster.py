"""A private Slurm on this machine: its nodes are daemons with ports of their own, their GPUs are fake.

It schedules as a real one does, but does not enforce limits of memory and cores. Loopback only, no systemd; needs root,
since steps look for the configuration in /etc/slurm alone.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
FILES = ("slurm.conf", "gres.conf")
ETC = Path("/etc/slurm")
PORT = 17800
CPU_NODES, GPU_NODES = ("n1", "n2"), ("g1", "g2")
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
NodeName=g[1-2] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{g1}-{g2}] CPUs=16 RealMemory=64000 Gres=gpu:fake:2
PartitionName=all Nodes=n[1-2],g[1-2] Default=YES DefaultTime=10 MaxTime=UNLIMITED State=UP
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


class Cluster:
    """Two nodes without GPUs (n1, n2) and two with two fake ones each (g1, g2).

    Parameters
    ----------
    root : path
        Holds everything but two links in /etc/slurm.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.daemons = root, dict[str, subprocess.Popen[bytes]]()

    def __enter__(self) -> Cluster:
        root = self.root
        root.mkdir(mode=0o755, parents=True, exist_ok=True)
        (root / "state").mkdir()
        # Slurm demands character devices, but follows links; the digit becomes CUDA_VISIBLE_DEVICES.
        for number, device in enumerate(("null", "zero")):
            (root / f"fakegpu{number}").symlink_to(f"/dev/{device}")
        key = root / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        ports = dict(zip(("port", "n1", "n2", "g1", "g2"), range(PORT, PORT + 5), strict=True))
        host = socket.gethostname().split(".")[0]
        (root / "slurm.conf").write_text(CONF.format(root=root, host=host, **ports))
        (root / "gres.conf").write_text(f"NodeName=g[1-2] Name=gpu Type=fake File={root}/fakegpu[0-1]\n")
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
            for node in (*CPU_NODES, *GPU_NODES):
                self.start_node(node)
            wait_until(lambda: self.states() == dict.fromkeys((*CPU_NODES, *GPU_NODES), "idle"), "four idle nodes")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
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
        """Start a daemon."""
        with open(self.root / f"{name}.out", "ab") as output:
            self.daemons[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                env={**os.environ, "PATH": search_path()},
            )

    def start_node(self, node: str) -> None:
        """Start a node, or bring a lost one back."""
        self.spawn(node, "slurmd", "-D", "-N", node)

    def lose_node(self, node: str) -> None:
        """The node loses its power: the daemon and all that runs on it end at once, and nothing is said."""
        jobs = [job for job, fields in self.jobs().items() if fields["NodeList"] == node]
        self.daemons[node].kill()
        self.daemons[node].wait()
        for process in processes_of(jobs):
            process_kill(process)

    def states(self) -> dict[str, str]:
        """State of each node."""
        text = subprocess.run(["sinfo", "-h", "-N", "-o", "%N %T"], capture_output=True, text=True).stdout
        return dict(line.split() for line in text.splitlines())

    def jobs(self, folder: Path | None = None) -> dict[str, dict[str, str]]:
        """What `scontrol` tells of each job, finished ones too, by number; of one working directory, if given."""
        text = subprocess.run(["scontrol", "--oneliner", "show", "job"], capture_output=True, text=True).stdout
        found = {}
        for line in text.splitlines():
            fields = dict(word.split("=", 1) for word in line.split() if "=" in word)
            if "JobId" in fields and (folder is None or fields["WorkDir"] == str(folder)):
                found[fields["JobId"]] = fields
        return found


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
