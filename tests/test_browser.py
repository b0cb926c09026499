"""The pages in headless Chromium: nothing asked of a network, no error on the console, every image drawn."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from beamseg.overview import write_overview
from test_report import run as report

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-extensions", "--mute-audio"),
)
COUNT = """<script>addEventListener('load', () => { const images = [...document.images];
images.forEach(i => i.loading = 'eager');
Promise.all(images.map(i => i.decode().catch(() => 0))).then(() => document.title = JSON.stringify(
[images.length, images.filter(i => i.complete && i.naturalWidth > 0).length,
document.documentElement.scrollWidth <= innerWidth])) })</script>"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")


def opened(page: Path, folder: Path) -> tuple[list[int], list[str], list[str]]:
    """Images, drawn images and whether it fits the window; lines of the console; addresses asked of the network."""
    folder.mkdir()
    log = folder / "net.json"
    done = subprocess.run(
        [
            *(str(CHROMIUM), *QUIET, f"--user-data-dir={folder / 'profile'}", f"--log-net-log={log}"),
            *("--enable-logging=stderr", "--window-size=1200,900", "--virtual-time-budget=20000", "--dump-dom"),
            page.resolve().as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=180,
        check=True,
    )
    title = re.search("<title>(.*?)</title>", done.stdout)
    assert title, done.stderr
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    asked = re.findall(r'"url":"(https?://[^"]+)"', log.read_text(errors="replace"))
    return json.loads(title[1]), console, asked


def with_count(page: Path) -> Path:
    """A copy beside the page that writes into its title what was drawn."""
    copy = page.with_name(f"counted_{page.name}")
    copy.write_text(page.read_text(encoding="utf-8").replace("</main>", f"</main>{COUNT}"), encoding="utf-8")
    return copy


def test_the_report_and_the_table_of_runs_open_without_a_network(tmp_path: Path) -> None:
    results = tmp_path / "results"
    report(results / "rock", voxel=[2.0, 0.5, 0.5])
    (results / "rock" / "figures").mkdir()
    (results / "rock" / "thumbnail.png").rename(results / "rock" / "figures" / "thumbnail.png")
    blank = dict.fromkeys(("stage", "cause", "remedy", "log"), "")
    rows = [
        {**blank, "sample": "rock", "state": "done"},
        {**blank, "sample": "lost", "state": "failed", "cause": "<no>"},
    ]
    beside = {"rock": {key: results / "rock" / f"{key}.json" for key in ("scan", "plan", "classes")}}
    write_overview(results / "index.html", rows, beside, results)
    for number, page in enumerate((results / "rock" / "report.html", results / "index.html")):
        (images, drawn, fits), console, asked = opened(with_count(page), tmp_path / f"browser{number}")
        assert images == drawn > 0
        assert fits
        assert console == []
        assert asked == []
        assert page.stat().st_size < 15e6
    index = (results / "index.html").read_text(encoding="utf-8")
    assert "1 of 2 done" in index
    assert "&lt;no&gt;" in index
    assert "rock/report.html" in index
    assert "lost/report.html" not in index
