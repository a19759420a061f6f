"""How far a selection lies outside of what the rule was fitted on.

The rule knows means of sets, which lie close together, and single examples lie far apart: of what
is beyond the points' range a line says nothing, and what it ranks first is mostly there. So every
selection is held against that range, on the rule's scale, with its pool beside it.
"""

import numpy as np
import pandas as pd

from im_assets.common.formatting import rows_of
from im_assets.common.numbers import numeric
from im_assets.rule.model import Rule
from im_assets.rule.transform import scaled, transformed

MOST = 0.5  # a larger share of a selection outside is told
COLUMNS = {
    "indicator": "Indicator of the rule, on its scale",
    "low": "Least value over the points that the rule was fitted on",
    "high": "Highest value over them",
    "selected_outside": "Share of the selection outside",
    "pool_outside": "Share of the pool outside",
    "mean": "Mean of the selection",
    "mean_outside": "Whether that lies outside too",
}


def reach(rule: Rule, pool: pd.DataFrame, selected: pd.DataFrame) -> pd.DataFrame:
    """One row an indicator of the rule; columns as in COLUMNS. Empty where the points' range is not
    known, as of a published rule.

    Args:
        pool, selected: hold the rule's indicators, as they are.

    Raises ValueError for an indicator that is missing, or not finite.
    """
    rows = []
    for term in rule.terms:
        if term.low is None or term.high is None:
            continue
        mine, all_ = (
            transformed(numeric(frame, [term.name])[:, 0], rule.transform)
            for frame in (selected, pool)
        )
        mean = float(mine.mean())
        rows.append(
            {
                "indicator": scaled(term.name, rule.transform),
                "low": term.low,
                "high": term.high,
                "selected_outside": _outside(mine, term.low, term.high),
                "pool_outside": _outside(all_, term.low, term.high),
                "mean": mean,
                "mean_outside": not term.low <= mean <= term.high,
            }
        )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def tied(rule: Rule, pool: pd.DataFrame, selected: pd.DataFrame) -> int:
    """How many examples of the pool the rule gives the value of the worst selected one: among
    these, `Pool.ranked` goes by example_id."""
    worst = rule.badness(selected).max()
    return int((rule.badness(pool) == worst).sum())


def beyond_reach(found: pd.DataFrame) -> str:
    """In which indicators most of the selection lies outside, in a sentence; '' where in none."""
    return "; ".join(
        f"{row.selected_outside:.0%} of the selection (of the pool {row.pool_outside:.0%}) lies "
        f"outside what the rule was fitted on in {row.indicator}, {row.low:.3g} to {row.high:.3g}; "
        f"its mean is {row.mean:.3g}"
        for row in rows_of(found)
        if row.selected_outside > MOST
    )


def _outside(values: np.ndarray, low: float, high: float) -> float:
    return float(np.mean((values < low) | (values > high)))
