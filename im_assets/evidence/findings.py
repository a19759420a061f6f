"""One line of the evidence about a rule, and the lines' shape as a table.

A finding holds values. What they say is a verdict, one of a closed set of words, and a sentence,
both computed from the values: `kinds` has one class a section.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from im_assets.common.numbers import finite

COLUMNS = {
    "section": ("text", "Kind of evidence; docs/rule.md says what each holds"),
    "item": ("text", "Indicator, source, experiment, seed, test or curve"),
    "x": ("double", "What the value is drawn against: a number of mixtures, or a fitted value"),
    "value": ("double", "The finding; null where it is not defined"),
    "low": ("double", "Lower end of its interval or spread; permutation: of what shuffles reach"),
    "high": ("double", "Upper end"),
    "p": ("double", "p-value of the test"),
    "same_sign": ("double", "Share of this sign, of the resamples that choose it"),
    "leverage": ("double", "Weight of the mixture's own value in its fitted one"),
    "cooks_distance": ("double", "How far the fit moves without the mixture"),
    "gain": ("double", "Spearman of chosen mixtures less that of as many random ones"),
    "gain_low": ("double", "Lower end of the gain's interval"),
    "gain_high": ("double", "Upper end"),
    "replaces": ("double", "Random mixtures that rank as well; at least or at most, at the ends"),
    "goal": ("double", "What is aimed at: the verdict says whether it is reached"),
    "noise_sds": ("double", "The value in standard deviations of the noise"),
    "verdict": ("text", "What the numbers say, in one of the section's words; null: no question"),
    "note": ("text", "The same as a sentence"),
}
_TEXTS = ("section", "item", "verdict", "note")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One row. Numbers that are not defined are None, NaN or infinite, and become null."""

    section: ClassVar[str]
    item: str
    x: float | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def verdict(self) -> str | None:
        """What the numbers say, in one of the section's words; None: they answer no question."""
        return None

    @property
    def note(self) -> str:
        """The finding as a sentence; empty where the numbers say it all."""
        return ""

    def row(self) -> dict[str, object]:
        """The values of COLUMNS; None for those that this kind of finding does not have."""
        return {column: getattr(self, column, None) for column in COLUMNS}


def findings_table(findings: Iterable[Finding]) -> pd.DataFrame:
    """The findings as a table with the columns of COLUMNS."""
    frame = pd.DataFrame([finding.row() for finding in findings], columns=list(COLUMNS))
    numbers = [column for column in COLUMNS if column not in _TEXTS]
    frame[numbers] = frame[numbers].astype("float64").replace([np.inf, -np.inf], np.nan)
    return frame.astype(dict.fromkeys(_TEXTS, "string"))


def interval(values: np.ndarray, confidence: float) -> tuple[float | None, float | None]:
    """The central interval that holds ``confidence`` of the values; None of no values."""
    if not len(values):
        return None, None
    low, high = np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2])
    return finite(low), finite(high)


def generator(*stream: int) -> np.random.Generator:
    """The random numbers of one kind of evidence, the same in every run."""
    return np.random.Generator(np.random.PCG64(stream))
