"""Points, lines and bands over two numeric axes."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from im_assets.common.charts.look import (
    FILLS,
    FONT,
    SHAPES,
    SOFT,
    STROKES,
    Chart,
    Look,
    data_name,
    extent,
    finished,
)
from im_assets.common.formatting import plain


@dataclass(frozen=True)
class Series:
    """Values of one kind: points at (x, y), or a line through them, or both.

    Args:
        name: in the legend; series of one name share an entry.
        texts: what each point's tooltip says.
        labels: what stands beside each point.
        points: whether the values are marked.
        line: whether they are joined, in their order.
        low, high: the ends of a band, at every x.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    texts: Sequence[str] = ()
    look: Look = 0
    points: bool = True
    line: Literal["", "solid", "dashed"] = ""
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    labels: Sequence[str] = ()

    def rows(self) -> list[dict[str, Any]]:
        """The values as they are drawn, one dictionary a point."""
        name = {"series": self.name} if self.name else {}
        named = {"x": self.x, "y": self.y, "low": self.low, "high": self.high, "text": self.texts,
                 "label": self.labels}  # fmt: skip
        columns = {key: list(map(plain, values)) for key, values in named.items() if len(values)}
        return [
            name | dict(zip(columns, row, strict=True))
            for row in zip(*columns.values(), strict=True)
        ]


@dataclass(frozen=True)
class Reference:
    """A dashed line across the chart with its label, at a value of y (or of x)."""

    value: float
    label: str = ""
    axis: Literal["x", "y"] = "y"


def points_chart(
    series: Iterable[Series],
    x: str,
    y: str,
    title: str = "",
    references: Iterable[Reference] = (),
    y_ends: Sequence[float] = (),
    x_scale: Literal["linear", "whole", "log"] = "linear",
    height: int = 300,
    x_format: str = ",d",
) -> Chart:
    """The chart of some series.

    Args:
        x, y: labels of the axes.
        references: one outside the axis is a note at the edge that it lies beyond.
        y_ends: values that the axis has to reach, beside those of the series.
        x_scale: whole numbers only (for counts), or a logarithmic axis.
        height: of the plot in px; a narrow one is lower.
        x_format: of the numbers on an axis of whole numbers, or a logarithmic one (d3-format).
    """
    import altair as alt

    drawn = [one for one in series if len(one.x)]
    names = list(dict.fromkeys(one.name for one in drawn if one.name))
    legend = names if len(names) > 1 else []
    # The last point's label has to have room beside it.
    margin = 0.2 if any(len(one.labels) for one in drawn) else 0.06
    x_domain = _x_domain([v for one in drawn for v in one.x], x_scale, margin)
    y_values = [v for one in drawn for v in (*one.y, *one.low, *one.high)]
    y_domain = extent([*y_values, *y_ends])
    kind: Literal["log", "linear"] = "log" if x_scale == "log" else "linear"
    axis: dict[str, Any] = {} if x_scale == "linear" else {"tickMinStep": 1, "format": x_format}
    places = {
        "x": alt.X("x:Q").title(x).axis(**axis).scale(domain=x_domain, nice=False, type=kind),
        "y": alt.Y("y:Q").title(y).scale(domain=y_domain, nice=False, zero=False),
    }
    datasets: dict[str, Any] = {}
    back: list[Any] = []
    front: list[Any] = []
    for place, one in enumerate(drawn):
        key = data_name(one.name or "points", datasets)
        datasets[key] = one.rows()
        # A layer's name says which entry of the legend it belongs to, for hiding it.
        entry = legend.index(one.name) if one.name in legend else len(legend)
        colours = _colours(one, legend, drawn)
        layers = _layers(one, alt.NamedData(key), places, colours, 80 if height > 200 else 44)
        for part, layer in layers.items():
            layer.name = f"series_{entry}_{place}_{part}"
            (front if part == "points" else back).append(layer)
    for reference in references:
        key = data_name("reference", datasets)
        domain = x_domain if reference.axis == "x" else y_domain
        datasets[key] = [{"value": reference.value, "label": reference.label}]
        back += _reference(reference, alt.NamedData(key), domain)
    return finished(alt.layer(*back, *front, height=height), datasets, title)


def _x_domain(values: list[float], scale: str, margin: float) -> list[float]:
    if scale != "log":
        return list(extent(values, margin))
    low, high = extent([math.log(v) for v in values if v > 0], margin)
    return [math.exp(low), math.exp(high)]


def _colours(one: Series, legend: list[str], drawn: list[Series]) -> dict[str, Any]:
    """Stroke, fill, shape and dash of a series: by its name where there is a legend."""
    import altair as alt

    shape = SHAPES[one.look] if one.points else "stroke"
    dash = [5, 4] if one.line == "dashed" else [1, 0]
    if one.name not in legend:
        return {
            "stroke": alt.StrokeValue(STROKES[one.look]),
            "fill": alt.FillValue(FILLS[one.look]),
            "shape": alt.ShapeValue(shape),
            "strokeDash": alt.StrokeDashValue(dash),
        }
    # A name shared by points and a line is drawn in the legend as its points are.
    shown = [next((s for s in drawn if s.name == name and s.points),
                  next(s for s in drawn if s.name == name)) for name in legend]  # fmt: skip
    ranges: dict[str, list[Any]] = {
        "stroke": [STROKES[s.look] for s in shown],
        "fill": [FILLS[s.look] for s in shown],
        "shape": [SHAPES[s.look] if s.points else "stroke" for s in shown],
        "strokeDash": [[5, 4] if s.line == "dashed" else [1, 0] for s in shown],
    }
    kinds = {"stroke": alt.Stroke, "fill": alt.Fill, "shape": alt.Shape,
             "strokeDash": alt.StrokeDash}  # fmt: skip
    return {
        channel: kind("series:N").title(None).scale(domain=legend, range=ranges[channel])
        for channel, kind in kinds.items()
    }


def _layers(
    one: Series, data: Any, places: dict[str, Any], colours: dict[str, Any], size: int
) -> dict[str, Any]:
    """Band, line and points of a series, each a layer; the band is not in the legend."""
    import altair as alt

    base = alt.Chart(data)
    layers: dict[str, Any] = {}
    if len(one.low) and len(one.high):
        band = base.mark_area(aria=False, opacity=0.16, fill=STROKES[one.look])
        layers["band"] = band.encode(x=places["x"], y=alt.Y("low:Q"), y2=alt.Y2("high:Q"))
    if one.line:
        line = base.mark_line(aria=False, strokeWidth=2 if one.line == "solid" else 1.4)
        channels = {name: colours[name] for name in ("stroke", "strokeDash")}
        layers["line"] = line.encode(**places, **channels, order=alt.OrderValue(0))
    if one.points:
        points = base.mark_point(size=size, strokeWidth=1.4, opacity=1)
        channels = {name: colours[name] for name in ("stroke", "fill", "shape")}
        text = {"description": alt.Description("text:N")} if len(one.texts) else {}
        layers["points"] = points.encode(**places, **channels, **text)
    if len(one.labels):
        beside = base.mark_text(aria=False, align="left", dx=8, fill=SOFT, fontSize=FONT)
        layers["labels"] = beside.encode(**places, text=alt.Text("label:N"))
    return layers


def _reference(reference: Reference, data: Any, domain: Sequence[float]) -> list[Any]:
    """A dashed line with its label; one outside the axis is a note at the edge it lies beyond."""
    import altair as alt

    text = alt.Chart(data).mark_text(aria=False, align="right", fill=SOFT, fontSize=FONT)
    if reference.axis == "x":
        line = alt.Chart(data).mark_rule(aria=False, strokeDash=[5, 4], stroke=SOFT)
        label = text.encode(x=alt.X("value:Q"), y=alt.YValue(8), text=alt.Text("label:N"))
        label.mark.dx = -4
        return [line.encode(x=alt.X("value:Q")), label]
    if not domain[0] <= reference.value <= domain[1]:
        above = reference.value > domain[1]
        arrow, y = ("\u2191", 8) if above else ("\u2193", "height")
        text.mark.dy = 0 if above else -8
        note = alt.datum(f"{arrow} {reference.label}, beyond the axis")
        return [text.encode(x=alt.XValue("width"), y=alt.YValue(y), text=note)]
    line = alt.Chart(data).mark_rule(aria=False, strokeDash=[5, 4], stroke=SOFT)
    label = text.encode(x=alt.XValue("width"), y=alt.Y("value:Q"), text=alt.Text("label:N"))
    label.mark.dy = -7
    return [line.encode(y=alt.Y("value:Q")), label]
