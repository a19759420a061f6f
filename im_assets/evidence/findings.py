"""One line of the evidence about a rule, and the line's shape as a table."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from im_assets.common.numbers import finite

COLUMNS = {
    "section": ("text", "Kind of evidence; says what the other columns hold (docs/rule.md)"),
    "item": ("text", "Indicator, source, seed or test"),
    "x": ("double", "What the value stands against: a count, a p-value, a fitted loss"),
    "value": ("double", "The finding; null where it is not defined"),
    "low": ("double", "Lower end of its interval, or a second number"),
    "high": ("double", "Upper end of its interval, or a third number"),
    "note": ("text", "What it means, in words"),
}


class Finding(NamedTuple):
    """One row; see COLUMNS. Numbers that are not defined are None, or NaN, and become null."""

    section: str
    item: str
    x: float | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    note: str = ""


def findings_table(findings: Iterable[Finding]) -> pd.DataFrame:
    """The findings as a table with the columns of COLUMNS."""
    frame = pd.DataFrame(list(findings), columns=list(COLUMNS))
    numbers = ["x", "value", "low", "high"]
    frame[numbers] = frame[numbers].astype("float64").replace([np.inf, -np.inf], np.nan)
    return frame.astype({"section": "string", "item": "string", "note": "string"})


def interval(values: np.ndarray, confidence: float) -> tuple[float | None, float | None]:
    """The central interval that holds ``confidence`` of the values; None of no values."""
    if not len(values):
        return None, None
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return finite(low), finite(high)


def generator(*stream: int) -> np.random.Generator:
    """The random numbers of one kind of evidence, the same in every run."""
    return np.random.Generator(np.random.PCG64(stream))
