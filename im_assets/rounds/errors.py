"""How wrong a rule is where it selects, and whether the next round's is less so.

The error of a round is the root mean square of measured less predicted target (log loss) over its
sets, which the round's rule was not fitted on. Intervals are for new sets of the same strategies:
sets are drawn again with replacement within each strategy (bootstrap). Of K sets that leaves out a
share of 1/K of their variance, and the percentiles of so few are too narrow: on simulated errors
that do not change, they would call up to 17 % fallen. So the bootstrap gives the standard error,
made whole by K / (K - 1), and Student's t the rest (tests/rounds/test_errors.py: at most 5 %).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from im_assets.common.components import CONFIDENCE

RESAMPLES = 2000
Verdict = Literal["fell", "did_not_fall", "cannot_tell"]


@dataclass(frozen=True)
class Errors:
    """The errors of one round.

    Attributes:
        errors: measured less predicted, in the target's units (log loss), float64 [sets].
        strategies: of each set, [sets].
    """

    errors: np.ndarray
    strategies: np.ndarray

    @property
    def rmse(self) -> float:
        """Root mean square of the errors."""
        return float(np.sqrt(np.mean(self.errors**2)))

    def of(self, strategy: str) -> "Errors":
        """Those of one strategy's sets."""
        mine = self.strategies == strategy
        return Errors(self.errors[mine], self.strategies[mine])


@dataclass(frozen=True)
class Estimate:
    """A number with its interval; the ends are None where nothing tells of its spread."""

    value: float
    low: float | None = None
    high: float | None = None


def error_of(errors: Errors, level: float = CONFIDENCE, seed: int = 0) -> Estimate:
    """A round's root mean squared error, with its interval, which ends at zero."""
    half = _half([errors], level, seed)
    if half is None:
        return Estimate(errors.rmse)
    return Estimate(errors.rmse, max(0.0, errors.rmse - half), errors.rmse + half)


def change(before: Errors, now: Errors, level: float = CONFIDENCE, seed: int = 0) -> Estimate:
    """A round's error less that of the round before, with its interval."""
    value, half = now.rmse - before.rmse, _half([before, now], level, seed)
    return Estimate(value) if half is None else Estimate(value, value - half, value + half)


def verdict(found: Estimate) -> Verdict:
    """Whether an error fell beyond what other sets would give (``found``: its change)."""
    if found.high is not None and found.high < 0:
        return "fell"
    if found.low is not None and found.low > 0:
        return "did_not_fall"
    return "cannot_tell"


def _half(rounds: list[Errors], level: float, seed: int) -> float | None:
    """Half the length of the interval of a sum or difference of the rounds' errors; None where a
    strategy has one set."""
    from scipy.stats import t

    generator = np.random.Generator(np.random.PCG64(seed))
    variance, freedom = 0.0, []
    for errors in rounds:
        # In order, so that the result does not depend on the rows'.
        names = sorted(set(errors.strategies))
        groups = [np.sort(errors.of(name).errors ** 2) for name in names]
        fewest = min(map(len, groups), default=0)
        if fewest < 2:
            return None
        sums = sum(
            group[generator.integers(0, len(group), (RESAMPLES, len(group)))].sum(axis=1)
            for group in groups
        )
        resampled = np.sqrt(sums / len(errors.errors))
        variance += float(np.var(resampled)) * fewest / (fewest - 1)
        freedom.append(len(errors.errors) - len(groups))
    return float(t.ppf((1 + level) / 2, min(freedom)) * np.sqrt(variance))
