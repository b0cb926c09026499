"""The table and the page over all runs say of a run what its report says."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import pytest

from beamseg.config import load_runs
from beamseg.provenance import write_json
from beamseg.runs import Runs
from beamseg.summary import conclude_runs
from bundle_case import write_bundle
from test_report import run as report
from workflow import BASEDIR

DRIFT = "grey levels lie 9.0% of the grey range from those that the bundle was trained on"


@pytest.mark.parametrize("own_range", [False, True])
@pytest.mark.parametrize("warnings", [[], [DRIFT]])
def test_a_bundle_s_run_is_judged_as_in_its_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warnings: list[str], own_range: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    bundle = write_bundle(tmp_path / "made")
    Path("config").mkdir()
    Path("config/config.yaml").write_text(f"apply: {{range: {'own' if own_range else 'bundle'}}}\n")
    Path("config/samples.tsv").write_text(f"sample\tpath\tbundle\nb\t/b.tif\t{bundle}\n")
    found = {"distance": 0.09, "bundle": {"stage": "stage2", "scans": ["old"]}, "warnings": warnings}
    results, group = Path("results/b"), Path("results/groups/b")
    results.mkdir(parents=True)
    (group / "apply").mkdir(parents=True)
    write_json(results / "compare.json", found)
    page = report(tmp_path, compared=results / "compare.json")
    for name in ("metrics.json", "scan.json"):
        shutil.copy(name, results)
    # The clusters, and unless the range is the scan's own the plan, are the bundle's.
    shutil.copy("classes.json", group / "apply")
    shutil.copy("plan.json", group if own_range else group / "apply")

    conclude_runs(Runs(load_runs(".", BASEDIR)[0]), failed=True)
    (said,) = re.findall(r"(?:Do not use|Look first)[^<]*", page)
    assert ("drift" in said) == bool(warnings)
    assert said in Path("results/index.html").read_text()
    with open("results/summary.csv", newline="") as file:
        (row,) = csv.DictReader(file)
    assert "cluster 3 holds no voxel" in row["warnings"]
    assert (DRIFT in row["warnings"]) == bool(warnings)


def test_a_row_that_was_left_out_is_told_and_keeps_its_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config").mkdir()
    Path("config/config.yaml").write_text("{}\n")
    Path("config/samples.tsv").write_text("sample\tpath\tbundle\na\tphantom\nb\t/b.tif\t/gone\n")
    report(tmp_path)
    Path("results/b").mkdir(parents=True)
    shutil.copy("metrics.json", "results/b")
    loaded, common = load_runs(".", BASEDIR, {"only": ["a"]})
    conclude_runs(Runs(loaded), failed=False, left_out=common["left_out"])
    with open("results/summary.csv", newline="") as file:
        rows = {row["sample"]: row for row in csv.DictReader(file)}
    assert (rows["a"]["state"], rows["b"]["state"]) == ("not finished", "left out")
    assert "/gone" in rows["b"]["cause"]
    assert "left out" in Path("results/index.html").read_text()
    assert "0 of 2 samples done" in capsys.readouterr().err


def test_the_stubs_of_the_benchmark_are_what_the_summary_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BASEDIR / "benchmarks"))
    import beamtime

    beamtime.table(tmp_path, 2, 1)
    monkeypatch.chdir(tmp_path)
    for name in ("s000", "s001"):
        for file in ("scan.json", "labels.json", "report.html"):
            write_json(Path("results") / name / file, beamtime.SCAN)
        write_json(Path("results") / name / "metrics.json", beamtime.METRICS)
    conclude_runs(Runs(load_runs(tmp_path, BASEDIR)[0]), failed=False)
    assert "2 of 2 samples done" in capsys.readouterr().err
