"""How numbers are written on the page, and how values become strict JSON."""

import math
from types import SimpleNamespace
from typing import Any, Literal

import pandas as pd

Kind = Literal["text", "int", "loss", "two", "number", "p", "percent", "signed"]

MISSING = "–"
MINUS = "\u2212"


def plain(value: Any) -> Any:
    """A Python scalar for JSON: numpy's become Python's; NaN, infinities and NA become None."""
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def shown(value: Any, kind: Kind = "number") -> str:
    """The value as text; a missing one is a dash.

    loss: four decimals; two: two decimals; number: four significant digits; p: three decimals, the
    smallest as "<0.001"; percent: of a share between 0 and 1; signed: four decimals with a sign.
    """
    value = plain(value)
    if value is None:
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str) or kind == "text":
        return str(value)
    return _number(value, kind).replace("-", MINUS)


def bytes_shown(count: int) -> str:
    """So many bytes in the largest unit that there is one of: "12.3 MiB"."""
    units = (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10))
    unit, factor = next((pair for pair in units if count >= pair[1]), units[-1])
    return f"{count / factor:.1f} {unit}"


def _number(value: float, kind: Kind) -> str:
    if kind == "int":
        return f"{round(value):,}"
    if kind == "p":
        return "<0.001" if value < 0.001 else f"{value:.3f}"
    if kind == "percent":
        return f"{100 * value:.1f}\u00a0%"
    if kind in ("loss", "signed", "two"):
        text = f"{value:{'+' if kind == 'signed' else ''}.{2 if kind == 'two' else 4}f}"
        return text.replace("-", "") if float(text) == 0 and kind == "two" else text
    if value == 0 or 1e-4 <= abs(value) < 1e6:
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return f"{value:.2e}"


def between(low: Any, high: Any, kind: Kind = "number") -> str:
    """An interval as text, "0.12 to 0.34"; a dash when an end is missing."""
    if plain(low) is None or plain(high) is None:
        return MISSING
    return f"{shown(low, kind)} to {shown(high, kind)}"


def rows_of(frame: pd.DataFrame) -> list[Any]:
    """The rows, each with its plain values as attributes named like the columns."""
    return [
        SimpleNamespace(**{str(k): plain(v) for k, v in row.items()})
        for row in frame.to_dict("records")
    ]
