"""One row a name: a dot or a bar, whiskers, single measurements, and a band to compare with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from im_assets.common.charts.look import (
    FILLS,
    FONT,
    INK,
    PAPER,
    SHAPES,
    SOFT,
    STROKES,
    Chart,
    Look,
    extent,
    finished,
)
from im_assets.common.formatting import plain, shown


@dataclass(frozen=True)
class Row:
    """A value with its interval; ``points`` are the single measurements behind it.

    A value of None is a row that says 'not defined'; ``text`` is what the tooltip says.
    """

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    text: str = ""
    look: Look = 0
    points: Sequence[float] = ()


@dataclass(frozen=True)
class Band:
    """A shaded range over all rows, with its label."""

    low: float
    high: float
    label: str


def rows_chart(
    rows: Sequence[Row],
    x: str,
    title: str = "",
    kind: Literal["dot", "bar"] = "dot",
    band: Band | None = None,
    zero: bool = False,
) -> Chart:
    """The chart of some rows, from the top.

    Args:
        x: label of the axis.
        zero: draw a line at zero, which the axis then reaches.
    """
    import altair as alt

    low, high = _range(rows, band, zero, kind == "bar")
    scale = alt.Scale(domain=[low, high], nice=False, zero=False)
    places = {
        "x": alt.X("value:Q").title(x).scale(scale),
        "y": alt.Y("name:N").title(None).sort(None).scale(domain=[row.name for row in rows]),
    }
    datasets = _datasets(rows, band, zero)
    base = alt.Chart(alt.NamedData("rows"))
    layers: list[Any] = []
    if band is not None:
        layers += _band(band, low, high)
    if zero:
        line = alt.Chart(alt.NamedData("zero")).mark_rule(aria=False, strokeDash=[2, 3])
        layers.append(line.encode(x=places["x"], stroke=alt.StrokeValue(SOFT)))
    known = base.transform_filter("isValid(datum.value)")
    whisker = base.transform_filter("isValid(datum.low) && isValid(datum.high)")
    layers += _bars(known, whisker, places, low) if kind == "bar" else _dots(known, whisker, places)
    if "points" in datasets:
        single = alt.Chart(alt.NamedData("points")).mark_tick(
            aria=False, filled=False, thickness=1, height=14
        )
        layers.insert(-1, single.encode(**places, stroke=_by_look(alt.Stroke, STROKES)))
    if any(row.value is None for row in rows):
        missing = base.transform_filter("!isValid(datum.value)")
        for ink in ({"stroke": PAPER, "strokeWidth": 5}, {"fill": SOFT}):  # over the row's line
            words = missing.mark_text(aria=False, align="left", fontSize=FONT, **ink)
            at = {"x": alt.XValue(4), "y": places["y"]}
            layers.append(words.encode(**at, text=alt.datum("not defined")))
    return finished(alt.layer(*layers), datasets, title)


def _by_look(channel: Any, values: Sequence[str]) -> Any:
    """A channel by the row's look, without a legend."""
    return channel("look:N").legend(None).scale(domain=list(get_args(Look)), range=list(values))


def _dots(known: Any, whisker: Any, places: dict[str, Any]) -> list[Any]:
    import altair as alt

    stroke = _by_look(alt.Stroke, STROKES)
    ends = {"x": alt.X("low:Q"), "x2": alt.X2("high:Q"), "y": places["y"]}
    line = whisker.mark_rule(aria=False, strokeWidth=3, strokeCap="round", opacity=0.45)
    dot = known.mark_point(size=80, strokeWidth=1.6, opacity=1).encode(
        **places,
        stroke=stroke,
        fill=_by_look(alt.Fill, FILLS),
        shape=_by_look(alt.Shape, SHAPES),
        description=alt.Description("text:N"),
    )
    return [line.encode(**ends, stroke=stroke), dot]


def _bars(known: Any, whisker: Any, places: dict[str, Any], low: float) -> list[Any]:
    """Bars from zero, or from the axis where zero is not on it, with their values written."""
    import altair as alt

    ends = {"x": alt.X("low:Q"), "x2": alt.X2("high:Q"), "y": places["y"]}
    bar = known.mark_bar(height=16, cornerRadius=2, opacity=0.9).encode(
        **places,
        x2=alt.X2Datum(max(0.0, low)),
        fill=_by_look(alt.Fill, STROKES),
        description=alt.Description("text:N"),
    )
    line = whisker.mark_rule(aria=False, stroke=INK, strokeWidth=1.6, opacity=0.8)
    end = "max(datum.value, isValid(datum.high) ? datum.high : datum.value, 0)"
    number = known.transform_calculate(end=end).mark_text(
        aria=False, align="left", dx=6, fill=SOFT, fontSize=FONT
    )
    at = {"x": alt.X("end:Q"), "y": places["y"]}
    return [bar, line.encode(**ends), number.encode(**at, text=alt.Text("written:N"))]


def _range(rows: Sequence[Row], band: Band | None, zero: bool, bars: bool) -> tuple[float, float]:
    values = [v for row in rows for v in (row.value, row.low, row.high, *row.points)]
    values += [band.low, band.high] if band else []
    low, high = extent([*values, *((0.0,) if zero or bars else ())])
    known = [v for v in map(plain, values) if v is not None]
    if not bars:
        return low, high
    # Room for the numbers at the ends of the bars.
    return (0.0 if min(known, default=0.0) >= 0 else low), high + 0.08 * (high - low)


def _datasets(rows: Sequence[Row], band: Band | None, zero: bool) -> dict[str, Any]:
    datasets: dict[str, Any] = {
        "rows": [
            {"name": row.name, "value": plain(row.value), "low": plain(row.low),
             "high": plain(row.high), "look": row.look, "text": row.text or row.name,
             "written": shown(row.value, "two")}
            for row in rows
        ],
    }  # fmt: skip
    if zero:
        datasets["zero"] = [{"value": 0}]
    singles = [{"name": r.name, "value": plain(v), "look": r.look} for r in rows for v in r.points]
    if singles:
        datasets["points"] = singles
    if band is not None:
        datasets["band"] = [{"low": band.low, "high": band.high, "label": band.label}]
    return datasets


def _band(band: Band, low: float, high: float) -> list[Any]:
    """The band and its label above; at a side of the chart the label is aligned inwards."""
    import altair as alt

    base = alt.Chart(alt.NamedData("band"))
    middle = (band.low + band.high) / 2
    part = (middle - low) / (high - low)
    align: Literal["left", "center", "right"] = "center"
    at = middle
    if part < 0.2:
        align, at = "left", band.low
    elif part > 0.8:
        align, at = "right", band.high
    label = base.mark_text(aria=False, align=align, baseline="bottom", fill=SOFT, fontSize=FONT)
    return [
        base.mark_rect(aria=False, fill=STROKES[2], opacity=0.16).encode(
            x=alt.X("low:Q"), x2=alt.X2("high:Q")
        ),
        label.encode(x=alt.XDatum(at), y=alt.YValue(-4), text=alt.Text("label:N")),
    ]
