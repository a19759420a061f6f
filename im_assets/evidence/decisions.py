"""Would the predictions have decided rightly? Pairs of trials, the best trial, and optimism.

A rank correlation says how well all trials are ordered. Who chooses data decides between two sets,
or takes the one predicted best: *decision accuracy* is the share of pairs that a prediction orders
as they were measured (DataDecide, Magnusson et al. 2025, arXiv 2504.11393), *regret* what is lost
by taking the trial predicted best in place of the best measured, *optimism* how much larger the
error is on trials left out than on those fitted (Efron 1986, doi:10.1080/01621459.1986.10478291).

Intervals are a bootstrap over trials, not over pairs, since the pairs of a trial share its luck; a
resample's pairs of a trial with its own copy are left out.
"""

from dataclasses import dataclass

import numpy as np

from im_assets.evidence.findings import generator
from im_assets.rule.choosing import Points, left_out, predictions

FEWEST = 4  # trials: of three, one order in six is right by chance
BEYOND = 2.0  # a difference counts as more than noise from so many of its standard deviations
RESAMPLES = 1000


@dataclass(frozen=True)
class Estimate:
    """A number with its interval, None where one is not defined, and of how many ``pairs``."""

    value: float | None
    low: float | None = None
    high: float | None = None
    pairs: int = 0


@dataclass(frozen=True)
class Noise:
    """Standard deviation of a trial's measured target between finetunes of the same set.

    ``measured``: from sets that were finetuned several times. If not, ``sd`` is the error of
    predictions in its place, which holds the noise and what the predictions miss besides: it is at
    least the noise, so that what exceeds it exceeds the noise, and not the other way round.
    """

    sd: float
    measured: bool

    @property
    def difference(self) -> float:
        """From here on two trials differ by more than noise: two standard deviations of the
        difference of two, each with its own noise."""
        return BEYOND * np.sqrt(2) * self.sd


def repeated_noise(sets: np.ndarray, values: np.ndarray, fewest: int = 5) -> float | None:
    """Pooled standard deviation of ``values`` (trials,) within equal ``sets`` (trials,); None of
    fewer than ``fewest`` degrees of freedom, whose standard deviation is off by a third or more."""
    _, place, counts = np.unique(sets, return_inverse=True, return_counts=True)
    means = np.bincount(place, values) / counts
    freedom = int((counts - 1).sum())
    if freedom < fewest:
        return None
    return float(np.sqrt(np.sum((values - means[place]) ** 2) / freedom))


def decision_accuracy(
    predicted: np.ndarray, actual: np.ndarray, confidence: float, difference: float = 0.0
) -> Estimate:
    """Share of the pairs whose ``actual`` values (trials,) differ by more than ``difference`` that
    ``predicted`` (trials,) orders the same way. Predicted equal is a coin's toss: one half.

    The interval is Wilson's (1927) for as many independent pairs as have the bootstrap's variance,
    at least a half and at most ... of the trials.
    """
    apart = actual[:, None] - actual
    eligible = (np.abs(apart) > difference).astype(float)
    np.fill_diagonal(eligible, 0.0)
    pairs = int(eligible.sum()) // 2
    if len(actual) < FEWEST or not pairs:
        return Estimate(None, pairs=pairs)
    right = eligible * (0.5 + 0.5 * np.sign(apart) * np.sign(predicted[:, None] - predicted))
    weights = _resamples(len(actual))
    of = np.einsum("bi,ij,bj->b", weights, eligible, weights, optimize=True)
    hits = np.einsum("bi,ij,bj->b", weights, right, weights, optimize=True)
    shares = hits[of > 0] / of[of > 0]
    value = float(right.sum() / eligible.sum())
    low, high = np.quantile(shares, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Estimate(value, float(low), float(high), pairs)


def regret(predicted: np.ndarray, actual: np.ndarray, confidence: float) -> Estimate:
    """``actual`` of the trial with the lowest ``predicted`` less the lowest ``actual``; both
    (trials,), lower is better. Several predicted equally best count with their mean."""
    if len(actual) < FEWEST:
        return Estimate(None)
    weights = _resamples(len(actual))
    drawn = weights > 0
    best = np.where(drawn, predicted, np.inf).min(axis=1, keepdims=True)
    tied = np.where(drawn & (predicted <= best), weights, 0)
    lost = tied @ actual / tied.sum(axis=1) - np.where(drawn, actual, np.inf).min(axis=1)
    low, high = np.quantile(lost, [(1 - confidence) / 2, (1 + confidence) / 2])
    value = actual[predicted == predicted.min()].mean() - actual.min()
    return Estimate(float(value), float(low), float(high))


def optimism(left_out: np.ndarray, fitted: np.ndarray, confidence: float) -> Estimate:
    """Root mean squared error of the errors ``left_out`` (trials,) less that of ``fitted``."""
    if len(left_out) < FEWEST:
        return Estimate(None)
    weights = _resamples(len(left_out)) / len(left_out)
    gaps = np.sqrt(weights @ left_out**2) - np.sqrt(weights @ fitted**2)
    low, high = np.quantile(gaps, [(1 - confidence) / 2, (1 + confidence) / 2])
    value = np.sqrt(np.mean(left_out**2)) - np.sqrt(np.mean(fitted**2))
    return Estimate(float(value), float(low), float(high))


def alone(mixtures: Points, place: int) -> tuple[np.ndarray, np.ndarray]:
    """The target of each mixture by a rule of the one indicator at ``place``: fitted without the
    mixture, and with it, shape (mixtures,) each."""
    one = Points(
        mixtures.seeds, (mixtures.names[place],), mixtures.x[:, [place]], mixtures.y
    )
    raise NotImplementedError


def _resamples(trials: int) -> np.ndarray:
    """How often each trial is in each resample, shape (RESAMPLES, trials)."""
    return generator(6).multinomial(trials, np.full(trials, 1 / trials), size=RESAMPLES)
