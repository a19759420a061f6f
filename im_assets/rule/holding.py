"""Does the rule still hold? It is put to the test on mixtures that it never saw, before a refit.

New data brings new mixtures, and for a moment these are what no cross-validation can be: points
that had no part in the rule at all. Two things are asked of its predictions for them: whether they
rank the mixtures (Spearman, as selection only ranks), and whether they are right on average
(calibration in the large; Steyerberg 2019, *Clinical Prediction Models*, ch. 15).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from im_assets.common.correlation import Correlation, correlation
from im_assets.rule.model import Rule

FEWEST = 5  # fewer can not tell: of four mixtures one order in 24 is the right one by chance
Verdict = Literal["holds", "fails", "open", "untested"]


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True)
class Holding:
    """How a rule did on mixtures that it was not fitted on.

    Attributes:
        verdict: holds: it ranks them better than chance, and is right on average; fails: it ranks
            them the wrong way round, or is off by more than its own error explains; open: these
            mixtures cannot tell; untested: there are too few of them, or no rule to test.
        mixtures: how many there are.
        rank: Spearman of predicted and measured.
        shift: mean of measured - predicted, in the target's units.
        slope: of measured on predicted: 1 where the rule's differences have the right size.
        words: all that in a sentence.
    """

    verdict: Verdict
    mixtures: int
    words: str
    rank: Correlation | None = None
    shift: Interval | None = None
    slope: Interval | None = None

    @property
    def refit_due(self) -> bool:
        """Whether a refit is called for: not when the rule holds, nor when nothing is new."""
        return self.verdict in ("fails", "open")


CURVE = 5


def holding(rule: Rule, points: pd.DataFrame, confidence: float) -> Holding:
    """Put a rule to the test on points that it was not fitted on.

    Args:
        points: of one row a point: the rule's indicators and its target.
        confidence: level of the intervals.
    """
    count = len(points)
    if not rule.indicators or rule.loo_rmse is None or rule.n is None:
        return Holding("untested", count, "the rule has no indicator, or was not fitted here")
    if count < FEWEST:
        few = f"{count} mixtures that the rule was not fitted on: fewer than {FEWEST} cannot tell"
        return Holding("untested", count, few if count else "no mixture is new to the rule")
    predicted = rule.predict_points(points)
    measured = points[rule.predicts.column].to_numpy(dtype=float)
    rank = correlation(predicted, measured, "spearman", confidence=confidence, seed=5)
    shift = _shift(rule, measured - predicted, confidence)
    slope = _slope(predicted, measured, confidence)
    # In perfect order there is no interval, and chance is below one in a hundred.
    ranks = rank.value == 1 if rank.low is None else rank.low > 0
    reversed_ = rank.value == -1 if rank.high is None else rank.high < 0
    off = shift.low > 0 or shift.high < 0
    verdict: Verdict = "fails" if reversed_ or off else "holds" if ranks else "open"
    faults = [
        "ranks them the wrong way round" if reversed_ else "",
        "is off by more than its own error explains" if off else "",
    ]
    why = " and ".join(filter(None, faults))
    return Holding(verdict, count, _words(verdict, count, rank, shift, why), rank, shift, slope)


def _shift(rule: Rule, errors: np.ndarray, confidence: float) -> Interval:
    """The mean error, and an interval as wide as a rule that holds makes it.

    Its errors have the size that leaving mixtures out found (``loo_rmse``, the choice of indicators
    redone). They share the error of the fit, of variance k/n for k coefficients on n mixtures.
    """
    from scipy import stats

    assert rule.n is not None
    assert rule.loo_rmse is not None
    # A curve is worth several coefficients, at most as many as it has functions.
    k = min(1 + len(rule.coefficients) + CURVE * len(rule.curves), rule.n - 1)
    spread = rule.loo_rmse * np.sqrt(1 / len(errors) + k / rule.n)
    half = float(stats.t.ppf((1 + confidence) / 2, max(1, rule.n - k)) * spread)
    mean = float(errors.mean())
    return Interval(mean, mean - half, mean + half)


def _slope(predicted: np.ndarray, measured: np.ndarray, confidence: float) -> Interval | None:
    import statsmodels.api as sm

    if np.ptp(predicted) == 0:
        return None
    fit = sm.OLS(measured, sm.add_constant(predicted)).fit()
    low, high = fit.conf_int(1 - confidence)[1]
    return Interval(float(fit.params[1]), float(low), float(high))


def _words(verdict: Verdict, count: int, rank: Correlation, shift: Interval, why: str) -> str:
    said = "undefined" if rank.value is None else f"{rank.value:.2f}"
    if rank.low is not None and rank.high is not None:
        said += f" [{rank.low:.2f}, {rank.high:.2f}]"
    numbers = f"rank correlation {said}, mean error {shift}"
    if verdict == "holds":
        return (
            f"the rule holds on {count} mixtures that it never saw ({numbers}): no refit is due, "
            "though one would learn from them"
        )
    if verdict == "open":
        return (
            f"{count} mixtures that the rule never saw cannot tell whether it ranks better than "
            f"chance ({numbers}): a refit on all of them is due"
        )
    return (
        f"the rule does not hold on {count} mixtures that it never saw: it {why} ({numbers}); a "
        "refit is due"
    )
