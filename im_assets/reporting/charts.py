"""Charts as SVG: points with lines and bands (XYChart). Rows with whiskers are in row_chart.

A chart is data; ``svg(width)`` draws it for one width, so that text is as large on a phone as on a
wide screen. Looks 0, 1 and 2 are blue, orange and grey, with shapes of their own, since colour
alone does not reach every reader. Each mark carries its values as a title.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from markupsafe import Markup

from im_assets.reporting.numbers import plain
from im_assets.reporting.svg import (
    CHAR,
    Scale,
    element,
    extent,
    label,
    picture,
    text_width,
    tick_texts,
    ticks,
)

Look = Literal[0, 1, 2]
TOP, RIGHT, BOTTOM, LINE = 8.0, 12.0, 42.0, 20.0


@dataclass(frozen=True)
class Point:
    """A mark at (x, y); ``text`` is what its tooltip says."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Series:
    """Points of one kind."""

    name: str
    points: tuple[Point, ...]
    look: Look = 0


@dataclass(frozen=True)
class Line:
    """A line through (x, y), with a band between ``low`` and ``high`` when given."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    look: Look = 0
    dashed: bool = False


@dataclass(frozen=True)
class XYChart:
    """Points and lines over two numeric axes; ``references`` are labelled horizontal lines."""

    x_label: str
    y_label: str
    series: tuple[Series, ...] = ()
    lines: tuple[Line, ...] = ()
    references: tuple[tuple[float, str], ...] = ()
    title: str = ""
    y_ends: tuple[float, ...] = ()
    whole_x: bool = False

    def svg(self, width: float, alt: str, style: str = "", look: str = "") -> Markup:
        """The chart, ``width`` px wide."""
        keys = {s.name: _mark(s.look, 7, 0, None) for s in self.series if s.name}
        for line in self.lines:
            if line.name and line.name not in keys:
                dashed = " dashed" if line.dashed else ""
                sample = f"line s{line.look}{dashed}"
                keys[line.name] = element("polyline", class_=sample, points="0,0 15,0")
        legend, y = _legend(keys if len(keys) > 1 else {}, width, TOP)
        top = y + LINE + 8
        height = top + max(170.0, min(320.0, 0.55 * width)) + BOTTOM
        x_low, x_high = extent([v for v, _ in self._values()])
        y_low, y_high = extent([*(v for _, v in self._values()), *self.y_ends])
        y_values = ticks(y_low, y_high)
        y_texts = tick_texts(y_values)
        left = 10 + max(map(text_width, y_texts), default=0)
        across = Scale(x_low, x_high, left, width - RIGHT)
        down = Scale(y_low, y_high, height - BOTTOM, top)
        grid = [
            element("line", class_="grid", x1=left, x2=width - RIGHT, y1=down(v), y2=down(v))
            for v in y_values
        ]
        grid += [
            label(left - 6, down(v) + 4, text, "end", "tick")
            for v, text in zip(y_values, y_texts, strict=True)
        ]
        return picture(
            width,
            height,
            alt,
            *legend,
            label(0, y + 12, self.y_label, class_="axis"),
            *grid,
            *bottom_axis(across, height - BOTTOM, self.x_label, self.whole_x),
            *(part for line in self.lines for part in _line(line, across, down)),
            *(
                part
                for place in self.references
                for part in _reference(place, down, left, width, top)
            ),
            *(_points(s, across, down) for s in self.series),
            style=style,
            look=look,
        )

    def _values(self) -> Iterable[tuple[float, float]]:
        for s in self.series:
            yield from ((p.x, p.y) for p in s.points)
        for line in self.lines:
            yield from zip(line.x, line.y, strict=True)
            yield from zip(line.x, line.low, strict=False)
            yield from zip(line.x, line.high, strict=False)

    def data(self) -> dict[str, Any]:
        """Everything that is drawn, for JSON."""
        series = [{"name": s.name, "x": [plain(p.x) for p in s.points],
                   "y": [plain(p.y) for p in s.points],
                   "labels": [p.text for p in s.points]} for s in self.series]  # fmt: skip
        lines = [
            {"name": n.name}
            | {k: [plain(v) for v in getattr(n, k)] for k in ("x", "y", "low", "high")}
            for n in self.lines
        ]
        references = [{"label": text, "value": plain(v)} for v, text in self.references]
        return {"title": self.title, "x_label": self.x_label, "y_label": self.y_label,
                "series": series, "lines": lines, "references": references}  # fmt: skip


def _legend(samples: Mapping[str, Markup], width: float, y: float) -> tuple[list[Markup], float]:
    """Keys from ``y`` on, wrapped to the width; and where the next line begins."""
    keys, x = [], 0.0
    for name, sample in samples.items():
        size = 24 + text_width(name)
        if x and x + size > width:
            x, y = 0.0, y + LINE
        mark = element("g", sample, transform=f"translate({x:g} {y + 8:g})")
        area = element("rect", class_="hit", x=x, y=y - 2, width=size - 6, height=LINE)
        text = label(x + 19, y + 12, name)
        keys.append(element("g", area, mark, text, class_="key", data_series=name))
        x += size
    return keys, y + LINE if keys else y


def bottom_axis(across: Scale, y: float, title: str, whole: bool = False) -> list[Markup]:
    room = across.end - across.start
    values = ticks(across.low, across.high, whole=whole)
    texts = tick_texts(values)
    # Fewer ticks until their texts stand apart.
    for most in (5, 4, 3, 2):
        if sum(text_width(t) + 2 * CHAR for t in texts) <= room:
            break
        values = ticks(across.low, across.high, most, whole)
        texts = tick_texts(values)
    parts = [element("line", class_="base", x1=across.start, x2=across.end, y1=y, y2=y)]
    for value, text in zip(values, texts, strict=True):
        x = across(value)
        parts.append(element("line", class_="base", x1=x, x2=x, y1=y, y2=y + 4))
        half = text_width(text) / 2
        parts.append(label(min(x, across.end + RIGHT - half), y + 17, text, "middle", "tick"))
    return [*parts, label(across.end, y + 36, title, "end", "axis")]


def _mark(look: int, x: float, y: float, title: str | None) -> Markup:
    """A filled circle, a diamond, a hollow circle."""
    inside = () if title is None else (element("title", title),)
    if look == 1:
        path = f"M{x:.1f} {y - 5.5:.1f}l5.5 5.5l-5.5 5.5l-5.5 -5.5z"
        return element("path", *inside, class_="mark s1", d=path)
    return element("circle", *inside, class_=f"mark s{look}", cx=x, cy=y, r=4.5)


def _points(series: Series, across: Scale, down: Scale) -> Markup:
    marks = [_mark(series.look, across(p.x), down(p.y), p.text) for p in series.points]
    return element("g", *marks, class_="series", data_series=series.name)


def _line(line: Line, across: Scale, down: Scale) -> list[Markup]:
    parts = []
    xs = [across(x) for x in line.x]
    if line.low and line.high:
        edge = [*zip(xs, line.high, strict=True), *reversed([*zip(xs, line.low, strict=True)])]
        corners = " ".join(f"{x:.1f},{down(y):.1f}" for x, y in edge)
        parts.append(element("polygon", class_=f"band s{line.look}", points=corners))
    places = " ".join(f"{x:.1f},{down(y):.1f}" for x, y in zip(xs, line.y, strict=True))
    dashed = " dashed" if line.dashed else ""
    parts.append(element("polyline", class_=f"line s{line.look}{dashed}", points=places))
    return [element("g", *parts, class_="series", data_series=line.name)]


def _reference(
    place: tuple[float, str], down: Scale, left: float, width: float, top: float
) -> list[Markup]:
    """A dashed line with its label; one outside the axis is a note at the edge it lies beyond."""
    value, text = place
    if not down.low <= value <= down.high:
        arrow, y = ("\u2191", top + 10) if value > down.high else ("\u2193", down.start - 6)
        return [label(width - RIGHT, y, f"{arrow} {text}, beyond the axis", "end", "tick")]
    y = down(value)
    line = element("line", class_="reference", x1=left, x2=width - RIGHT, y1=y, y2=y)
    return [line, label(width - RIGHT, y - 5, text, "end", "tick")]
