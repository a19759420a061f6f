"""The judge's win rate: how often the finetuned model's answer is preferred to the base model's."""

import pandas as pd

from im_assets.experiments.measures import MeasureError, measure


def judged(rows: pd.DataFrame) -> int:
    """How many pairs have a verdict in both orders."""
    return int(rows["outcome"].notna().sum())


@measure("win_rate", version=1, reads="verdicts", scale="logit", count=judged)
def win_rate(rows: pd.DataFrame) -> float:
    """Wins and half of the ties against the base model, of the pairs judged; 0.5 is the base.

    A pair without a verdict is no tie and is left out. Raises MeasureError when none has one.
    """
    outcome = rows["outcome"].dropna()
    if outcome.empty:
        raise MeasureError(f"win_rate: none of the {len(rows)} pairs was judged")
    return float(((outcome == "win") + 0.5 * (outcome == "tie")).mean())
