"""The documentation: every key and every error stands in it, and the site builds without a warning."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from beamseg.layers import flatten, load_schema

DOCS = Path(__file__).parents[1] / "docs"
SCHEMAS = DOCS.parent / "workflow" / "schemas"
LIBRARY = DOCS.parent / "scripts" / "beamseg"
sys.path.append(str(DOCS))

from generate import errors, errors_page, keys, keys_page, kind  # noqa: E402


def test_every_key_has_a_row_with_its_meaning() -> None:
    page = keys_page(SCHEMAS)
    found = dict(keys(load_schema(SCHEMAS)))
    assert len(found) > 100
    for name, entry in found.items():
        section = (SCHEMAS / f"{name}.yaml").exists()
        assert section or f"| `{name}` |" in page, name
        assert entry.get("description"), name
    assert f"| `seed` | integer, at least 0 | `{found['seed']['default']}` |" in page
    assert "| `classes.<name>.colour` |" in page


def test_the_shipped_configuration_is_short_and_explained() -> None:
    config = DOCS.parent / "config"
    shown = [key for key, _ in flatten(yaml.safe_load((config / "config.yaml").read_text()))]
    assert len(shown) <= 12
    readme = (config / "README.md").read_text()
    assert all(f"| `{key}` |" in readme for key in shown)


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ("{enum: [auto, cpu, null]}", "auto, cpu or empty"),
        ("{type: integer, minimum: 1, maximum: 8}", "integer, 1 to 8"),
        ("{type: number, exclusiveMinimum: 0}", "number, above 0"),
        ("{type: [array, 'null'], items: {type: number}}", "list of number or empty"),
        ("{type: object}", "mapping"),
    ],
)
def test_types_are_said_in_words(schema: str, words: str) -> None:
    assert kind(yaml.safe_load(schema)) == words


def test_every_error_has_its_remedy_and_a_row() -> None:
    page = errors_page(LIBRARY)
    found = list(errors(LIBRARY))
    calls = sum(path.read_text().count("InputError(") for path in LIBRARY.rglob("*.py"))
    assert len(found) > 0.9 * (calls - 1)
    assert sum(line.startswith("| ") for line in page.splitlines()) == len(found) + page.count("| where |")
    assert "did you mean …? / remove it" in page or "a key of the schema" in page
    for module, texts in found:
        assert texts[3], module


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_asks_nothing_of_a_network(tmp_path: Path) -> None:
    pytest.importorskip("sphinx", reason="the extra `docs` is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "-q", "-b", "html", str(DOCS), str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    pages = sorted(tmp_path.glob("*.html"))
    assert {"index.html", "tutorial.html", "howto.html", "methods.html"} <= {page.name for page in pages}
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert 'src="http' not in text, page
        assert 'rel="stylesheet" href="http' not in text, page
    assert "<math" in (tmp_path / "methods.html").read_text(encoding="utf-8")
