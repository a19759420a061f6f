"""Charts as SVG: one row a name, with a dot or bar, whiskers, and a band to compare with."""

from dataclasses import dataclass
from typing import Any, Literal

from markupsafe import Markup

from im_assets.reporting.charts import BOTTOM, LINE, RIGHT, TOP, Look, bottom_axis
from im_assets.reporting.numbers import plain
from im_assets.reporting.svg import Scale, element, extent, label, picture, text_width


@dataclass(frozen=True)
class Row:
    """A value with its interval; ``points`` are the single measurements behind it."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None
    text: str = ""
    look: Look = 0
    points: tuple[float, ...] = ()


@dataclass(frozen=True)
class RowChart:
    """One row a name: a dot or a bar, whiskers, and a shaded band to compare with."""

    x_label: str
    rows: tuple[Row, ...]
    kind: Literal["dot", "bar"] = "dot"
    band: tuple[float, float, str] | None = None
    zero: bool = False
    title: str = ""

    def svg(self, width: float, alt: str, style: str = "", look: str = "") -> Markup:
        """The chart, ``width`` px wide; names stand above their rows where they need the room."""
        longest = max((text_width(r.name) for r in self.rows), default=0.0)
        beside = longest < 0.3 * width
        left = longest + 14 if beside else 8.0
        step = 30.0 if beside else 44.0
        band_line = LINE if self.band else 0.0
        top = TOP + band_line
        base = top + step * len(self.rows) + 4
        across = Scale(*self._range(), left, width - RIGHT - (44 if self.kind == "bar" else 0))
        parts = [*self._band(across, top, base, width)]
        for i, row in enumerate(self.rows):
            y = top + step * (i + (0.5 if beside else 0.68))
            name_y, name_x = (y + 4, left - 14) if beside else (y - 14, left)
            parts.append(label(name_x, name_y, row.name, "end" if beside else "start"))
            if row.value is not None:
                parts.append(element("line", class_="grid", x1=left, x2=width - RIGHT, y1=y, y2=y))
            parts += self._row(row, across, y)
        axis = bottom_axis(across, base, self.x_label)
        zero = []
        if self.zero and across.low <= 0 <= across.high:
            x = across(0)
            zero = [element("line", class_="zero", x1=x, x2=x, y1=top, y2=base)]
        return picture(width, base + BOTTOM, alt, *axis, *zero, *parts, style=style, look=look)

    def _range(self) -> tuple[float, float]:
        values = [v for r in self.rows for v in (r.value, r.low, r.high, *r.points)]
        values += self.band[:2] if self.band else ()
        low, high = extent([*values, *((0.0,) if self.zero or self.kind == "bar" else ())])
        known = [v for v in values if v is not None]
        return (0.0 if self.kind == "bar" and min(known, default=0) >= 0 else low), high

    def _band(self, across: Scale, top: float, base: float, width: float) -> list[Markup]:
        if self.band is None:
            return []
        start, end = sorted((across(self.band[0]), across(self.band[1])))
        middle = min(max((start + end) / 2, across.start), width - RIGHT)
        # Kept inside the picture: a label at the band's middle could run out at either side.
        half = text_width(self.band[2]) / 2
        middle = min(max(middle, half), width - half)
        return [
            element("rect", class_="band s2", x=start, y=top, width=end - start, height=base - top),
            label(middle, top - 6, self.band[2], "middle", "tick"),
        ]

    def _row(self, row: Row, across: Scale, y: float) -> list[Markup]:
        if row.value is None:
            return [label(across.start + 4, y + 4, "not defined", class_="tick")]
        look, x, text = f"s{row.look}", across(row.value), row.text or row.name
        whisker = []
        if row.low is not None and row.high is not None:
            ends = {"x1": across(row.low), "x2": across(row.high)}
            whisker = [element("line", class_=f"whisker {look}", **ends, y1=y, y2=y)]
        singles = [
            element("line", class_=f"single {look}", x1=across(v), x2=across(v), y1=y - 7, y2=y + 7)
            for v in row.points
        ]
        title = element("title", text)
        if self.kind == "dot":
            dot = element("circle", title, class_=f"mark {look}", cx=x, cy=y, r=5)
            return [*singles, *whisker, dot]
        zero = across(max(0.0, across.low))
        place = {"x": min(zero, x), "y": y - 8, "width": abs(x - zero), "height": 16}
        bar = element("rect", title, class_=f"mark {look}", **place, rx=2)
        end = max(x, across(row.high) if row.high is not None else x)
        value = label(end + 6, y + 4, f"{row.value:.2f}".replace("-", "\u2212"), class_="tick")
        return [bar, *whisker, value]

    def data(self) -> dict[str, Any]:
        """Everything that is drawn, for JSON."""
        rows = [
            {"name": r.name, "value": plain(r.value), "low": plain(r.low), "high": plain(r.high)}
            | ({"points": [plain(p) for p in r.points]} if r.points else {})
            for r in self.rows
        ]
        band = dict(zip(("low", "high", "label"), self.band, strict=True)) if self.band else None
        return {"title": self.title, "x_label": self.x_label, "rows": rows, "band": band}
