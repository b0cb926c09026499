"""Environments: conda's, the lock and the container hold what pyproject.toml asks for."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

BASEDIR = Path(__file__).resolve().parents[1]
SCHEDULER = {"snakemake", "snakemake-executor-plugin-slurm", "pygments", "psutil"}
"""What starts the jobs and has no place in their environment."""


def wanted() -> dict[str, Requirement]:
    listed = tomllib.loads((BASEDIR / "pyproject.toml").read_text())["project"]["dependencies"]
    return {canonicalize_name(Requirement(text).name): Requirement(text) for text in listed}


def test_condas_environment_has_the_same_pins() -> None:
    environment = yaml.safe_load((BASEDIR / "envs" / "beamseg.yaml").read_text())
    listed = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    found = {canonicalize_name(Requirement(text).name): str(Requirement(text)) for text in listed}
    assert found == {name: str(entry) for name, entry in wanted().items() if name not in SCHEDULER}


def test_the_lock_satisfies_every_pin() -> None:
    lock = [line for line in (BASEDIR / "envs" / "requirements.lock").read_text().splitlines() if "==" in line]
    locked = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lock)}
    for name, entry in wanted().items():
        if name == "torch":  # its build is chosen by envs/setup.sh
            continue
        assert entry.specifier.contains(locked[name]), name


def test_every_locked_package_installs_on_the_oldest_python() -> None:
    """Debian 12 has Python 3.11.2, and its pip says of a package that wants 3.11.5 only that there is none."""
    oldest = str(tomllib.loads((BASEDIR / "pyproject.toml").read_text())["project"]["requires-python"])
    oldest = oldest.removeprefix(">=") + ".0"
    for line in (BASEDIR / "envs" / "requirements.lock").read_text().splitlines():
        name, equals, version = line.partition("==")
        if equals:
            found = importlib.metadata.distribution(name)
            assert found.version == version, name
            assert SpecifierSet(found.metadata.get("Requires-Python") or "").contains(oldest), name


def test_every_rule_that_runs_a_script_names_the_environment() -> None:
    for path in sorted((BASEDIR / "workflow" / "rules").glob("*.smk")):
        rules = re.split(r"\n(?=(?:rule|checkpoint) )", path.read_text())[1:]
        for text in rules:
            if "script:" in text:
                assert '"../../envs/beamseg.yaml"' in text, f"{path.name}: {text.splitlines()[0]}"


def test_the_container_is_built_from_the_lock() -> None:
    recipe = (BASEDIR / "envs" / "beamseg.def").read_text()
    assert "requirements.lock" in recipe
    assert str(wanted()["torch"]) in recipe
