"""Time limits of jobs: enough for a scan of terabytes, and more with each attempt."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from snakemake.api import SnakemakeApi
from snakemake.settings.types import OutputSettings, Quietness, ResourceSettings

from beamseg.provenance import write_json
from workflow import TINY, Workflow

SHAPE = (9000, 11000, 11000)
PARTS = 8


class Wildcards(dict[str, str]):
    """Names as Snakemake gives them: keys and attributes."""

    __getattr__ = dict.__getitem__


@pytest.fixture(scope="module")
def limit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Minutes that a rule asks for at an attempt, for a scan of 4.3 TB in eight parts."""
    folder = tmp_path_factory.mktemp("scan")
    workflow = Workflow(folder, {**TINY, "parts": PARTS})
    write_json(folder / "scan.json", {"shape": list(SHAPE), "dtype": "float32"})
    scan = SimpleNamespace(scan=folder / "scan.json")
    with contextlib.chdir(folder), SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        found = api.workflow(ResourceSettings(cores=1), snakefile=workflow.snakefile, workdir=folder)._workflow
        rules = {rule.name: rule.resources["runtime"] for rule in found.rules if "runtime" in rule.resources}

        def minutes(rule: str, attempt: int) -> float:
            return rules[rule].evaluate(Wildcards(sample="a"), input=scan, attempt=attempt).value

        minutes.rules = sorted(rules)
        yield minutes


def test_every_job_gets_more_time_with_each_attempt(limit: Any) -> None:
    assert len(limit.rules) > 25
    for rule in limit.rules:
        assert [limit(rule, attempt) for attempt in (2, 3)] == [limit(rule, 1) * 2, limit(rule, 1) * 3], rule


@pytest.mark.parametrize(
    ("rule", "parts", "voxels_per_s"),
    [
        ("histogram", 1, 10e6),
        ("evaluate", 1, 5e6),
        ("report", 1, 50e6),
        ("export", 1, 50e6),
        ("quantities", 1, 1e6),
        ("normalize", PARTS, 10e6),
        ("refine_mpp", PARTS, 1e6),
    ],
)
def test_a_job_over_all_voxels_gets_time_for_all_of_them(
    limit: Any, rule: str, parts: int, voxels_per_s: float
) -> None:
    """Only a job over one part may count on the others."""
    needed = math.prod(SHAPE) / parts / voxels_per_s / 60
    assert needed < limit(rule, 1) < needed + 300
