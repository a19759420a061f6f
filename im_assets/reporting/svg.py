"""SVG by hand: elements, scales and ticks. Colours are classes, so that a page's style decides."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

FONT = 12  # px; a chart is drawn at the width at which it is shown, so its text keeps this size
CHAR = 7.4  # mean width of a character at that size in a wide font


def element(name: str, *children: Markup | str, **attributes: object) -> Markup:
    """One SVG element; text and attribute values are escaped.

    ``class_`` gives class, an underscore a hyphen; None leaves an attribute out, floats are
    rounded to a tenth of a pixel.
    """
    parts = [name]
    for key, value in attributes.items():
        if value is not None:
            text = f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
            parts.append(f'{key.rstrip("_").replace("_", "-")}="{escape(text)}"')
    inside = Markup("").join(escape(child) for child in children)
    return Markup(f"<{' '.join(parts)}>{inside}</{name}>")


def label(x: float, y: float, content: str, anchor: str = "start", class_: str = "label") -> Markup:
    """A line of text with its baseline at ``y``."""
    return element("text", content, x=x, y=y, text_anchor=anchor, class_=class_)


def text_width(content: str) -> float:
    """Roughly how wide a text is, in px."""
    return CHAR * len(content) + 4


def picture(
    width: float, height: float, alt: str, *children: Markup, style: str = "", look: str = ""
) -> Markup:
    """The outer element. With ``style`` it is a file of its own, else part of a page.

    ``look`` is a further class, by which the page shows one of two widths.
    """
    own = {"xmlns": "http://www.w3.org/2000/svg", "width": width, "height": height} if style else {}
    inner = (element("style", Markup(style)), *children) if style else children
    attributes: dict[str, object] = {**own, "viewBox": f"0 0 {width:g} {height:g}"}
    return element(
        "svg", *inner, **attributes, role="img", aria_label=alt, class_=f"chart {look}".strip()
    )


def ticks(low: float, high: float, most: int = 6, whole: bool = False) -> list[float]:
    """Round numbers inside [low, high], at most ``most``, at steps of 1, 2, 2.5 or 5.

    ``whole``: integers alone, for counts.
    """
    span = high - low
    power = 10.0 ** math.floor(math.log10(span / most))
    for factor in (1, 2, 2.5, 5, 10, 20, 25, 50, 100, 1000, 10_000):
        step = factor * power
        if whole and not step.is_integer():
            continue
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first + 1 <= most:
            return [i * step for i in range(first, last + 1)]
    return []


def tick_texts(values: Sequence[float]) -> list[str]:
    """All with the decimals that tell them apart."""
    for decimals in range(10):
        texts = [f"{v:,.{decimals}f}" for v in values]
        close = all(abs(float(t.replace(",", "")) - v) <= 1e-9 * max(1e-9, abs(v)) + 1e-12
                    for t, v in zip(texts, values, strict=True))  # fmt: skip
        if close and len(set(texts)) == len(texts):
            break
    return [t.replace("-", "\u2212") for t in texts]


@dataclass(frozen=True)
class Scale:
    """Linear map from [low, high] to pixels [start, end]."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)


def extent(values: Iterable[float | None], margin: float = 0.06) -> tuple[float, float]:
    """The range of the finite values, somewhat widened; never empty."""
    known = [v for v in values if v is not None and math.isfinite(v)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    # Values that differ by rounding alone would ask for ticks that floats cannot tell apart.
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-9):
        pad = 0.05 * abs(low) or 0.5
        return low - pad, high + pad
    pad = margin * (high - low)
    return low - pad, high + pad
