"""A beamtime of 300 scans with stages that do nothing: what is left is Snakemake's work.

Measured: time per job, on the clock and of the head process's processor (which a busy machine does not change), its
peak memory, and how soon it ends after Ctrl-C and SIGTERM.

    python benchmarks/beamtime.py --samples 300 --groups 5
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
COLOURS = ("#0072b2", "#e69f00")
SCAN = {"shape": [1200, 2048, 2048], "dtype": "float32"}
METRICS = {
    "product": {"stage": "stage2", "reason": "a stub"},
    "has_truth": False,
    "lost_classes": {},
    "classes": [{"id": k, "name": f"class {k}", "colour": colour, "clusters": [k]} for k, colour in enumerate(COLOURS)],
    "stages": {"stage2": {"fractions": {f"class {k}": 1 / len(COLOURS) for k in range(len(COLOURS))}}},
    "agreement": [],
    "least_certain": [],
}
"""What the summary and the page over all runs read of `metrics.json`."""


def stub_workflow(folder: Path, seconds: float) -> None:
    """The rules of this checkout, each of whose scripts is replaced by a shell command that leaves the outputs."""
    folder.mkdir()
    for name in ("Snakefile", "workflow", "scripts", "config", "envs"):
        source = ROOT / name
        shutil.copytree(source, folder / name) if source.is_dir() else shutil.copy(source, folder / name)
    for name, content in (("scan.json", SCAN), ("metrics.json", METRICS)):
        (folder / "stubs" / name).parent.mkdir(exist_ok=True)
        (folder / "stubs" / name).write_text(json.dumps(content))
    stub = f"{folder}/stubs/$(basename $f)"
    command = (
        "for f in {output}; do mkdir -p $(dirname $f); "
        f"if test -e {stub}; then cp {stub} $f; else cp {folder}/stubs/scan.json $f; fi; done; sleep {seconds}"
    )
    for path in (folder / "workflow" / "rules").glob("*.smk"):
        path.write_text(re.sub(r'script:\s*"[^"]*"', f'shell:\n        "{command}"', path.read_text()))


def table(folder: Path, samples: int, groups: int) -> None:
    """A sample table and the shipped settings."""
    (folder / "config").mkdir(parents=True)
    (folder / "config" / "config.yaml").write_text(yaml.safe_dump({"samples": "config/samples.tsv", "device": "cpu"}))
    rows = [f"s{i:03d}\ts{i:03d}.h5\tg{i % groups}" for i in range(samples)]
    (folder / "config" / "samples.tsv").write_text("\n".join(["sample\tpath\tgroup", *rows]) + "\n")
    for i in range(samples):
        (folder / "config" / f"s{i:03d}.h5").write_bytes(b"")


def start(stub: Path, folder: Path, cores: int) -> subprocess.Popen[bytes]:
    """Snakemake as a terminal starts it."""
    profile = ROOT / "workflow" / "profiles" / "default"
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(stub / "Snakefile"), "--directory", str(folder)]
    with open(folder / "output.txt", "w") as output:
        return subprocess.Popen(
            [*command, "--cores", str(cores), "--workflow-profile", str(profile)],
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )


def peak_mb(pid: int) -> float:
    """Peak memory of a process so far, MiB."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def cpu_s(pid: int) -> float:
    """Processor time of a process so far, without that of its children."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def finished(folder: Path) -> int:
    """Jobs that Snakemake has seen the end of."""
    return (folder / "output.txt").read_text().count("Finished jobid:")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--groups", type=int, default=5)
    parser.add_argument("--cores", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=0, help="stop after so many jobs; 0 runs all")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        stub_workflow(root / "stub", 0)
        table(root / "run", options.samples, options.groups)
        begin, first, peak, cpu, built = time.monotonic(), 0.0, 0.0, 0.0, 0.0
        snakemake = start(root / "stub", root / "run", options.cores)
        while snakemake.poll() is None:
            peak = max(peak, peak_mb(snakemake.pid))
            cpu = max(cpu, cpu_s(snakemake.pid))
            done = finished(root / "run")
            if done and not first:
                first, built = time.monotonic() - begin, cpu
            if options.jobs and done >= options.jobs:
                os.killpg(snakemake.pid, signal.SIGINT)
                break
            time.sleep(1)
        seconds, done = time.monotonic() - begin, finished(root / "run")
        status = snakemake.wait()
        print(f"{done} jobs in {seconds:.0f} s, the first after {first:.0f} s")
        print(f"head process: {built:.1f} s of CPU before the first, {cpu:.1f} s in all, peak {peak:.0f} MiB")
        if not done or (status and not options.jobs):
            sys.exit(f"snakemake ended with status {status}:\n{(root / 'run' / 'output.txt').read_text()[-2000:]}")

        for number in (signal.SIGINT, signal.SIGTERM):
            shutil.rmtree(root / "stub")
            shutil.rmtree(root / "run")
            stub_workflow(root / "stub", 60)
            table(root / "run", options.samples, options.groups)
            snakemake = start(root / "stub", root / "run", options.cores)
            while "Execute" not in (root / "run" / "output.txt").read_text() and snakemake.poll() is None:
                time.sleep(0.5)
            time.sleep(2)
            begin = time.monotonic()
            if number == signal.SIGINT:
                os.killpg(snakemake.pid, number)
            else:
                snakemake.send_signal(number)
            snakemake.wait()
            print(f"{number.name}, with jobs of 60 s at work: ended after {time.monotonic() - begin:.1f} s")


if __name__ == "__main__":
    main()
