"""What each rule's jobs asked for, and what they took at most, as their records in `logs/` have it.

usage: python benchmarks/resources.py WORKDIR
"""

from __future__ import annotations

import argparse
from pathlib import Path

from beamseg.ended import records


def table(folder: Path) -> list[str]:
    """Lines of a Markdown table, a rule each: jobs, memory in MB and minutes as `most taken / asked by that job`."""
    rules: dict[str, list[dict[str, float]]] = {}
    for entry in records(folder / "logs"):
        if entry["state"] == "done" and entry.get("runtime") and entry["mem_mb"]:
            rules.setdefault(entry["stage"], []).append(entry)
    lines = ["| rule | jobs | memory, MB | share | time, min | share |", "|---|---|---|---|---|---|"]
    for rule, jobs in rules.items():
        memory = max(jobs, key=lambda job: job["max_rss_mb"] / job["mem_mb"])
        time = max(jobs, key=lambda job: job["seconds"] / job["runtime"])
        of_memory = memory["max_rss_mb"] / memory["mem_mb"]
        minutes = time["seconds"] / 60
        lines.append(
            f"| {rule} | {len(jobs)} | {memory['max_rss_mb']} / {memory['mem_mb']} | {of_memory:.0%} "
            f"| {minutes:.1f} / {time['runtime']} | {minutes / time['runtime']:.0%} |"
        )
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    print(*table(parser.parse_args().folder), sep="\n")
