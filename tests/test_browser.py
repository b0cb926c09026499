"""The pages in headless Chromium: nothing asked of a network, no error on the console, every image drawn."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

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
document.title = JSON.stringify([images.length, images.filter(i => i.complete && i.naturalWidth > 0).length,
document.documentElement.scrollWidth <= innerWidth,
performance.getEntriesByType('resource').map(e => e.name).filter(n => !/^(data|file):/.test(n))]) })</script>"""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")


def opened(page: Path, folder: Path) -> tuple[list[Any], list[str]]:
    """Images, drawn images, whether it fits the window, addresses asked of the network; and lines of the console.

    No name is resolved, so that nothing reaches a network.
    """
    done = subprocess.run(
        [
            *(str(CHROMIUM), *QUIET, f"--user-data-dir={folder}", "--host-resolver-rules=MAP * ~NOTFOUND"),
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
    return json.loads(html.unescape(title[1])), console


def with_count(page: Path) -> Path:
    """A copy beside the page that writes into its title what was drawn."""
    copy = page.with_name(f"counted_{page.name}")
    text = page.read_text(encoding="utf-8").replace("loading='lazy'", "").replace("</main>", f"</main>{COUNT}")
    copy.write_text(text, encoding="utf-8")
    return copy


def test_a_page_that_asks_and_fails_is_found_out(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<main><img src='http://example.org/a.png'><img src='gone.png'><script>no()</script></main>")
    (images, drawn, _, asked), console = opened(with_count(page), tmp_path / "browser")
    assert (images, drawn) == (2, 0)
    assert asked == ["http://example.org/a.png"]
    assert len(console) == 1
    assert "no is not defined" in console[0]


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
        (images, drawn, fits, asked), console = opened(with_count(page), tmp_path / f"browser{number}")
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
