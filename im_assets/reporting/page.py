"""Writes the blocks of a report as one HTML page that loads nothing from anywhere.

Style and script stand in the page; its Content-Security-Policy allows these two by their hashes and
nothing else, so that a text of the data could do nothing even if it were not escaped (it is).
"""

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from im_assets.common.charts.drawing import svg
from im_assets.common.charts.look import Chart
from im_assets.common.charts.panels import panels
from im_assets.common.formatting import shown
from im_assets.reporting.blocks import Figure, Section
from im_resources.study import Study

TEMPLATE = Path(__file__).parent / "template"
NARROW, WIDE = 328.0, 680.0  # a phone of 360 px less its margins; the column of a wide screen


def render_page(study: Study, sections: Sequence[Section], made: str = "") -> str:
    """The page; ``made`` is a date to show, so that equal tables give equal bytes without one."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE), autoescape=True, undefined=StrictUndefined
    )
    style, script = _read("chart.css") + _read("page.css"), _read("page.js")
    return environment.get_template("page.html.j2").render(
        title=f"Study {study.name}",
        study=study,
        sections=sections,
        made=made,
        style=style,
        script=script,
        policy=f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'",
        shown=shown,
        kind_of=lambda block: type(block).__name__,
        small=small,
        titled=titled,
        drawn=drawn,
    )


def small(figure: Figure) -> bool:
    """Whether the figure's panels stand side by side."""
    return bool(figure.chart.get("columns", 1) > 1)


def titled(figure: Figure) -> list[tuple[str, Chart]]:
    """The single charts of a figure with the titles of panels; the figure has its own."""
    parts = panels(figure.chart)
    return [(part["title"] if "concat" in figure.chart else "", part) for part in parts]


def drawn(figure: Figure, title: str, chart: Chart) -> Markup:
    """The chart for the page: a small panel once, others for a phone and for a wide screen.

    The style shows one of the two; the other is hidden from screen readers too.
    """
    alt = " ".join(filter(None, (title and f"{title}.", figure.alt)))
    if small(figure):
        return Markup(svg(chart, NARROW, alt))
    return Markup(svg(chart, WIDE, alt, look="wide") + svg(chart, NARROW, alt, look="narrow"))


def figure_files(sections: Sequence[Section]) -> dict[str, str]:
    """File name → SVG document, one a chart, each with its style, for light and dark."""
    files = {}
    for figure in (f for section in sections for f in section.figures):
        charts = titled(figure)
        for place, (title, chart) in enumerate(charts):
            part = "" if len(charts) == 1 else f"_{_file_part(title) or place}"
            width = NARROW if small(figure) else WIDE
            alt = " ".join(filter(None, (figure.title, title)))
            files[f"{figure.key}{part}.svg"] = svg(chart, width, alt, _read("chart.css")) + "\n"
    return files


def _file_part(title: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "_" for c in title)


@cache
def _read(name: str) -> str:
    return (TEMPLATE / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return "sha256-" + base64.b64encode(digest).decode("ascii")
