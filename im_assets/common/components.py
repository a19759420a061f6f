"""An interval for an estimate whose variance has several parts, each known from few values.

A difference of two arms varies with the finetunes of one, those of the other, and the instructions
they are measured on. Banerjee (1960, Sankhyā 22, 357) adds up t² times each part's variance, every
t with its part's own degrees of freedom. The interval holds the truth at least as often as it says,
whatever the parts' true sizes are. Satterthwaite's degrees of freedom, which Welch's test takes, do
not: they are guessed from the same few values, and with two of them up to 18 % of the tables
without any difference hold a verdict (tests/validation/test_simulated.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

CONFIDENCE = 0.95
POWER = 0.8


@dataclass(frozen=True)
class Component:
    """One part of an estimate's variance (its units squared), and its degrees of freedom."""

    variance: float
    df: int

    @classmethod
    def of_mean(cls, values: np.ndarray) -> "Component":
        """The variance of the mean of independent values [n ≥ 1]; of one value it is not known."""
        n = len(values)
        return cls(float(np.var(values, ddof=1)) / n if n > 1 else np.nan, n - 1)


def jackknife(without: np.ndarray) -> Component:
    """The variance of an estimate from its values without each of some equal groups, [groups].

    The delete-a-group jackknife (Kott 2001, Journal of Official Statistics 17, 521): closed, and
    right for any smooth function of the data, such as a ratio of sums. Fewer than two groups tell
    nothing.
    """
    groups = len(without)
    if groups < 2:
        return Component(np.nan, 0)
    squares = float(((without - without.mean()) ** 2).sum())
    return Component((groups - 1) / groups * squares, groups - 1)


def half_width(components: Sequence[Component], level: float = CONFIDENCE) -> float:
    """Half the length of the estimate's interval; infinite where a part's variance is not known."""
    if any(c.df < 1 or not np.isfinite(c.variance) for c in components):
        return np.inf
    return float(np.sqrt(sum(_squared(level, c.df) * c.variance for c in components)))


def detectable(
    components: Sequence[Component], level: float = CONFIDENCE, power: float = POWER
) -> float:
    """The smallest true difference whose interval excludes zero with probability ``power``, were
    the components the true ones; infinite where one is not known.

    The half width's square is a weighted sum of chi-squares; one chi-square of the same mean and
    variance stands for it.
    """
    from scipy.optimize import brentq
    from scipy.stats import chi2, norm

    half = half_width(components, level)
    error = float(np.sqrt(sum(c.variance for c in components)))
    if not np.isfinite(half) or error == 0:
        return half
    weighted = [_squared(level, c.df) * c.variance for c in components]
    df = half**4 / sum(w**2 / c.df for w, c in zip(weighted, components, strict=True))
    halves = half / error * np.sqrt(chi2.ppf((np.arange(200) + 0.5) / 200, df) / df)

    def lacking(difference: float) -> float:
        return float(norm.cdf(difference - halves).mean()) - power

    return float(brentq(lacking, 0, 10 * half / error + 10)) * error


@cache
def _squared(level: float, df: int) -> float:
    """The square of Student's t for a two-sided interval."""
    from scipy.stats import t

    return float(t.ppf((1 + level) / 2, df)) ** 2
