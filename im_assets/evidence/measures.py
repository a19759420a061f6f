"""Is the target the right one? What a study measures beside it, and whether both rank sets alike.

A rule can only select for what it predicts. Where a measure that its user cares about ranks the
sets otherwise, a good rule for the loss selects the wrong data.
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd

from im_assets.common.correlation import Correlation, correlation
from im_assets.common.numbers import numeric
from im_assets.experiments.measures import Measure
from im_assets.rule.target import Target

COLUMNS = {
    "measure": ("text", "What is measured beside the target"),
    "spearman": ("double", "Rank correlation with the target, 1: both find the same sets good"),
    "low": ("double", "Lower end of its bootstrap interval; null: not defined"),
    "high": ("double", "Upper end"),
    "n": ("bigint", "Points compared"),
    "verdict": ("text", "alike, opposed, open, or undefined"),
    "note": ("text", "The same as a sentence"),
}
FEWEST = 4  # points for a rank correlation
CHANCE = 0.05
Verdict = Literal["alike", "opposed", "open", "undefined"]


def measure_agreement(
    points: pd.DataFrame,
    target: Target,
    others: Sequence[Measure],
    confidence: float = 0.95,
    resamples: int = 1000,
) -> pd.DataFrame:
    """How each of ``others`` ranks the points, against the target; columns as in COLUMNS.

    Both are turned so that higher is better: 1 means the same order of the sets from good to bad,
    whatever the directions of the two.

    Args:
        points: one row a measured set, with the target's column and one column a measure.
        confidence: level of the bootstrap interval over points.

    Raises ValueError when a column is missing or holds a value that is not finite.
    """
    good = -target.sign * numeric(points, [target.column])[:, 0]
    rows = []
    for other in others:
        values = numeric(points, [other.name])[:, 0]
        values = values if other.direction == "higher" else -values
        found = _agreement(good, values, confidence, resamples)
        verdict = verdict_of(found, len(points))
        note = _note(verdict, found, len(points), target.measure_label, other.label)
        rows.append((other.name, found.value, found.low, found.high, len(points), verdict, note))
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    numbers = dict.fromkeys(("spearman", "low", "high"), "float64")
    texts = dict.fromkeys(("measure", "verdict", "note"), "string")
    return frame.astype({**texts, **numbers, "n": "int64"})


def _agreement(
    good: np.ndarray, values: np.ndarray, confidence: float, resamples: int
) -> Correlation:
    if len(good) < FEWEST:
        return Correlation(None, None, None)
    return correlation(good, values, "spearman", resamples=resamples, confidence=confidence)


def verdict_of(found: Correlation, points: int) -> Verdict:
    """alike or opposed where the interval leaves out zero, open where it holds zero.

    Points in perfect order have no interval; of more than a few that order is no chance.
    """
    if found.value is None:
        return "undefined"
    side: Verdict = "alike" if found.value > 0 else "opposed"
    if found.low is None or found.high is None:
        perfect = abs(found.value) > 1 - 1e-9 and 2 / math.factorial(points) < CHANCE
        return side if perfect else "open"
    return side if found.low * found.high > 0 else "open"


def _note(verdict: Verdict, found: Correlation, points: int, target: str, other: str) -> str:
    if found.value is None:
        why = f"{points} points are too few" if points < FEWEST else "one of them does not vary"
        return f"not defined: {why}"
    strength = (
        "well" if abs(found.value) >= 0.7 else "fairly" if abs(found.value) >= 0.4 else "weakly"
    )  # fmt: skip
    return {
        "alike": f"the {target} stands {strength} for the {other}",
        "opposed": f"sets that are good by the {target} are bad by the {other}",
        "open": f"these {points} points do not show whether the {target} stands for the {other}",
    }[verdict]
