"""The house's look of a chart: colours, shapes, text sizes, and what depends on the width.

A chart holds none of this but its colours; ``config`` is added when it is drawn, so that one
specification serves a phone, a wide page and Dagster's metadata.
"""

import math
import re
from collections.abc import Iterable, Mapping
from itertools import count
from typing import Any, Literal, TypeAlias

Chart: TypeAlias = dict[str, Any]
Look = Literal[0, 1, 2]
"""Blue circles, orange diamonds, hollow grey circles: colour alone does not reach every reader."""

# The page's style names the same colours for a light page and has others for a dark one.
PAPER, INK, SOFT, RULE, BASE = "#ffffff", "#1a2233", "#566074", "#e3e7ee", "#9aa3b2"
BLUE, ORANGE, GREY = "#2563eb", "#d9560b", "#69748a"
STROKES, FILLS = (BLUE, ORANGE, GREY), (BLUE, ORANGE, PAPER)
SHAPES = ("circle", "diamond", "circle")

FONT = 12  # px; a chart is drawn at the width at which it is shown, so its text keeps this size
CHARACTER = 6.6  # mean width of a character at that size, in px


def text_width(text: str) -> float:
    """Roughly how wide a text is, in px."""
    return CHARACTER * len(text) + 4


def data_name(name: str, taken: Iterable[str]) -> str:
    """A name for a data set, made of letters that Vega's expressions can hold, and not taken."""
    plain = "_".join(re.findall(r"\w+", name, re.ASCII)) or "values"
    numbered = (plain if n == 1 else f"{plain}_{n}" for n in count(1))
    return next(candidate for candidate in numbered if candidate not in taken)


def extent(values: Iterable[float | None], margin: float = 0.06) -> tuple[float, float]:
    """The range of the finite values, somewhat widened; never empty."""
    known = [v for v in values if v is not None and math.isfinite(v)]
    low, high = (float(min(known)), float(max(known))) if known else (0.0, 1.0)
    # Values that differ by rounding alone would ask for ticks that floats cannot tell apart.
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-9):
        pad = 0.05 * abs(low) or 0.5
        return low - pad, high + pad
    pad = margin * (high - low)
    return low - pad, high + pad


def finished(chart: Any, datasets: Mapping[str, Any], title: str) -> Chart:
    """An Altair chart as plain data, with its named data sets and without Altair's own look.

    Not validated against Vega-Lite's schema, which takes longer than drawing; the tests do.
    """
    made: Chart = chart.to_dict(validate=False)
    made.pop("config", None)
    return made | {"datasets": dict(datasets)} | ({"title": title} if title else {})


def config(
    width: float, rows: Iterable[str], legend: Iterable[str], font: float = FONT
) -> dict[str, Any]:
    """Vega-Lite's configuration for a chart drawn ``width`` px wide.

    Args:
        rows, legend: the names that stand at the rows and in the legend, if it has them.
        font: the size that texts are laid out for, in px.
    """
    longest = max(map(text_width, rows), default=0.0)
    key = max(map(text_width, legend), default=0.0) + 34
    beside = longest < 0.3 * width
    text = {"labelColor": SOFT, "titleColor": SOFT, "labelFontSize": font, "titleFontSize": font}
    above = {"labelAlign": "left", "labelBaseline": "bottom", "labelOffset": -8, "labelPadding": 0}
    return {
        "background": PAPER,
        "font": "sans-serif",
        "padding": {"left": 2, "top": 4, "right": 8, "bottom": 2},
        "view": {"stroke": None, "discreteHeight": {"step": 30 if beside else 44}},
        "title": {"anchor": "start", "frame": "group", "color": INK, "fontSize": 13,
                  "fontWeight": "normal", "offset": 10},
        "axis": {**text, "titleFontWeight": "normal", "gridColor": RULE, "domainColor": BASE,
                 "tickColor": BASE, "labelLimit": 0, "titleLimit": 0},
        "axisX": {"grid": False, "titleAnchor": "end", "titleAlign": "right", "labelFlush": False,
                  "tickCount": max(3, min(6, int(width / 75))), "labelOverlap": "greedy",
                  "labelSeparation": 8, "labelBound": False, "tickSize": 4},
        "axisYQuantitative": {"domain": False, "ticks": False, "tickCount": 5, "titleAngle": 0,
                              "titleAlign": "left", "titleAnchor": "start", "titleX": 0,
                              "titleY": -12, "titleBaseline": "bottom", "labelPadding": 6},
        "axisYBand": {"domain": False, "ticks": False, "grid": True, "labelColor": INK,
                      "labelPadding": 12, **({} if beside else above)},
        "legend": {"orient": "top", "direction": "horizontal", "labelColor": INK,
                   "labelFontSize": font, "labelLimit": 0, "symbolSize": 70, "symbolOpacity": 1,
                   "columns": max(1, int(width / key)), "columnPadding": 14, "offset": 32,
                   "title": None},
    }  # fmt: skip
