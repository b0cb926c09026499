"""What jobs ask for: time for a scan of terabytes, and more with each attempt; a GPU for networks; disk for caches."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from snakemake.api import SnakemakeApi
from snakemake.iocontainers import InputFiles
from snakemake.resources import Resources
from snakemake.settings.types import OutputSettings, Quietness, ResourceSettings

from beamseg.provenance import write_json
from workflow import PROFILES, TINY, Workflow

SHAPE = (9000, 11000, 11000)
PARTS = 8
LOCAL = ("all", "release")


class Wildcards(dict[str, str]):
    """Names as Snakemake gives them: keys and attributes."""

    __getattr__ = dict.__getitem__


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with asking(tmp_path_factory.mktemp("scan"), {**TINY, "parts": PARTS}) as value:
        yield value


@contextlib.contextmanager
def asking(folder: Path, config: dict[str, Any], shape: tuple[int, int, int] = SHAPE, **table: str) -> Iterator[Any]:
    """What a rule asks for at an attempt, with the slurm profile's defaults, of a scan of 4.3 TB in eight parts."""
    workflow = Workflow(folder, config, **table)
    scan = folder / "scan.json"
    write_json(scan, {"shape": list(shape), "dtype": "float32"})
    files = InputFiles(fromdict={"scan": scan, "scans": [scan]})
    profile = yaml.safe_load((PROFILES / "slurm" / "config.yaml").read_text())["default-resources"]
    given = [f"{name}={value}" for name, value in profile.items() if name != "slurm_extra"]
    given = Resources.parse(given, allow_expressions=True, defaults="full")
    with contextlib.chdir(folder), SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        found = api.workflow(
            ResourceSettings(cores=1, default_resources=given), snakefile=workflow.snakefile, workdir=folder
        )._workflow
        rules = {rule.name: rule.resources for rule in found.rules if rule.name not in LOCAL}

        def value(rule: str, attempt: int = 1, resource: str = "runtime") -> Any:
            found = rules[rule].get(resource)
            return found.evaluate(Wildcards(sample="a", group="a"), input=files, attempt=attempt).value

        value.rules = sorted(rules)
        yield value


def test_every_job_gets_more_time_with_each_attempt(asked: Any) -> None:
    assert len(asked.rules) > 25
    for rule in asked.rules:
        assert [asked(rule, attempt) for attempt in (2, 3)] == [asked(rule, 1) * 2, asked(rule, 1) * 3], rule


def test_networks_of_volumes_and_frames_ask_for_a_gpu(asked: Any) -> None:
    frames = {"train_frames", "segment_frames"}
    found = {rule for rule in asked.rules if asked(rule, resource="gpu")}
    assert found == {"train", "self_correct", "segment", "train_scm", "refine_scm"} | frames


def test_only_the_cache_takes_of_the_disk_that_is_allowed(asked: Any) -> None:
    assert [rule for rule in asked.rules if asked(rule, resource="disk_mb")] == ["normalize"]


@pytest.mark.parametrize(
    ("rule", "parts", "voxels_per_s"),
    [
        ("histogram", 1, 10e6),
        ("report", 1, 50e6),
        ("export", 1, 50e6),
        ("quantities", 1, 1e6),
        ("normalize", PARTS, 10e6),
        ("refine_mpp", PARTS, 1e6),
        ("count", PARTS, 5e6),
    ],
)
def test_a_job_over_all_voxels_gets_time_for_all_of_them(
    asked: Any, rule: str, parts: int, voxels_per_s: float
) -> None:
    """Only a job over one part may count on the others."""
    needed = math.prod(SHAPE) / parts / voxels_per_s / 60
    assert needed < asked(rule, 1) < needed + 300


def test_a_training_of_large_batches_asks_for_the_memory_that_they_take(asked: Any, tmp_path: Path) -> None:
    assert asked("train", resource="mem_mb") == 2 * 4000 + 2000
    large = {**TINY, "train": {**TINY["train"], "batch": 64, "crop": 512}}
    with asking(tmp_path, large) as value:
        crops = 64 * 512**2 * 1320 / 2**20
        for rule in ("train", "self_correct"):
            found = [value(rule, attempt, "mem_mb") for attempt in (1, 2)]
            assert found[0] == math.ceil(1.25 * (900 + 4000 + crops))
            assert found[1] == 2 * found[0]


def test_memory_goes_by_the_scan_up_to_the_budget(asked: Any, tmp_path: Path) -> None:
    light = {"apply", "apply_scm", "bundle", "compare", "ingest", "methods", "plan", "record"}
    for rule in asked.rules:
        assert asked(rule, resource="mem_mb") >= (4000 if rule in light else 2 * 4000 + 2000), rule
        assert asked(rule, 2, "mem_mb") == 2 * asked(rule, resource="mem_mb"), rule
    assert {rule for rule in asked.rules if asked(rule, resource="mem_mb") == 4000} == light
    with asking(tmp_path, TINY, shape=(48, 256, 256)) as small:
        voxels = math.ceil(4000 + 80 * 48 * 256**2 / 2**20)
        for rule in ("histogram", "normalize", "train", "segment", "refine_mpp", "evaluate", "report", "export"):
            assert small(rule, resource="mem_mb") == voxels, rule


def test_who_adds_up_gets_time_for_voxels_only_beside_a_truth(tmp_path: Path) -> None:
    """Last, since the names of rules are one workflow's at a time."""
    for path, least, most in (("../a.h5", 120, 120), ("phantom", math.prod(SHAPE) / 5e6 / 60, math.inf)):
        with asking(tmp_path, {**TINY, "parts": PARTS}, table=f"sample\tpath\na\t{path}\n") as asked:
            assert least <= asked("evaluate") <= most
