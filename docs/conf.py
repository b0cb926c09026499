"""The documentation as a site; `make docs`. Pages of keys and errors are made from the schemas and the source."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import latex2mathml.converter
from docutils.nodes import SkipNode
from generate import write_pages

project = "beamseg"
copyright = "The beamseg developers"
extensions = ["myst_parser"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = "beamseg"
html_show_sphinx = False
html_copy_source = False
suppress_warnings = ["misc.highlighting_failure"]


def inline_math(translator, node):
    """Math as MathML, which browsers draw themselves: no script from elsewhere."""
    translator.body.append(latex2mathml.converter.convert(node.astext()))
    raise SkipNode


def displayed_math(translator, node):
    """The same, on a line of its own."""
    translator.body.append(f"<p>{latex2mathml.converter.convert(node.astext(), display='block')}</p>")
    raise SkipNode


def setup(app):
    """Make the generated pages and register the renderer of formulas."""
    write_pages(Path(__file__).parents[1], Path(__file__).parent / "reference")
    app.add_html_math_renderer("mathml", (inline_math, None), (displayed_math, None))
    app.config.html_math_renderer = "mathml"
