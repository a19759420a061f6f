"""One row a name: a dot or a bar, whiskers, single measurements, and a band to compare with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

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

    bars = kind == "bar"
    low, high = _range(rows, band, zero, bars)
    names = [row.name for row in rows]
    y = alt.Y("name:N").title(None).sort(None).scale(domain=names)
    scale = alt.Scale(domain=[low, high], nice=False, zero=False)
    across = alt.X("value:Q").title(x).scale(scale)
    looks = [0, 1, 2]

    def channel(made: Any, range_: Sequence[str]) -> Any:
        return made("look:N").legend(None).scale(domain=looks, range=list(range_))

    fill, stroke = channel(alt.Fill, FILLS), channel(alt.Stroke, STROKES)
    shape = channel(alt.Shape, SHAPES)
    datasets = _datasets(rows, band, zero)

    def base(name: str) -> Any:
        return alt.Chart(alt.NamedData(name))

    layers = []
    if "band" in datasets:
        layers.append(base("band").mark_rect(aria=False, fill=STROKES[2], opacity=0.16).encode(
            x=alt.X("low:Q").title(x).scale(scale), x2="high:Q"))  # fmt: skip
        layers.append(_band_label(base("band"), band, low, high))
    if zero:
        at = base("zero").mark_rule(aria=False, stroke=SOFT, strokeDash=[2, 3])
        layers.append(at.encode(x=across))
    ends = {"x": alt.X("low:Q").title(x).scale(scale), "x2": "high:Q", "y": y}
    whisker = base("rows").transform_filter("isValid(datum.low) && isValid(datum.high)")
    text = alt.Description("text:N")
    if bars:
        drawn = base("rows").mark_bar(height=16, cornerRadius=2, opacity=0.9)
        encoded = drawn.encode(
            x=across, x2=alt.datum(max(0.0, low)), y=y, fill=channel(alt.Fill, STROKES),
            description=text,
        )  # fmt: skip
        layers += [
            encoded.transform_filter("isValid(datum.value)").properties(name="rows_bars"),
            whisker.mark_rule(aria=False, stroke=INK, strokeWidth=1.6, opacity=0.8).encode(**ends),
            base("rows")
            .transform_filter("isValid(datum.value)")
            .transform_calculate(end="max(datum.value, isValid(datum.high) ? datum.high : 0)")
            .mark_text(aria=False, align="left", dx=6, fill=SOFT, fontSize=FONT)
            .encode(x=alt.X("end:Q"), y=y, text="written:N"),
        ]
    else:
        if "points" in datasets:
            singles = base("points").mark_tick(aria=False, filled=False, thickness=1, height=14)
            layers.append(singles.encode(x=across, y=y, stroke=stroke))
        wide = whisker.mark_rule(aria=False, strokeWidth=3, strokeCap="round", opacity=0.45)
        dots = base("rows").transform_filter("isValid(datum.value)")
        dots = dots.mark_point(size=80, strokeWidth=1.6, opacity=1)
        layers += [
            wide.encode(**ends, stroke=stroke),
            dots.encode(
                x=across, y=y, fill=fill, stroke=stroke, shape=shape, description=text
            ).properties(name="rows_dots"),
        ]
    if any(row.value is None for row in rows):
        missing = base("rows").transform_filter("!isValid(datum.value)")
        for ink in ({"stroke": PAPER, "strokeWidth": 5}, {"fill": SOFT}):  # over the row's line
            words = missing.mark_text(aria=False, align="left", fontSize=FONT, **ink)
            layers.append(words.encode(x=alt.value(4), y=y, text=alt.datum("not defined")))
    return finished(alt.layer(*layers), datasets, title)


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


def _band_label(base: Any, band: Band | None, low: float, high: float) -> Any:
    """Above the band; at a side of the chart it is aligned inwards, so that it stays inside."""
    import altair as alt

    assert band is not None
    middle = (band.low + band.high) / 2
    part = (middle - low) / (high - low)
    align, at = ("left", band.low) if part < 0.2 else ("right", band.high) if part > 0.8 else (
        "center", middle)  # fmt: skip
    label = base.mark_text(aria=False, align=align, baseline="bottom", fill=SOFT, fontSize=FONT)
    return label.encode(x=alt.datum(at), y=alt.value(-4), text="label:N")
