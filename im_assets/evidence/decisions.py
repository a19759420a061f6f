"""Would the predictions have decided rightly? Pairs of trials, the best trial, and optimism.

A rank correlation says how well all trials are ordered. Who chooses data decides between two sets,
or takes the one predicted best: *decision accuracy* is the share of pairs that a prediction orders
as they were measured (DataDecide, Magnusson et al. 2025, arXiv 2504.11393), *regret* what is lost
by taking the trial predicted best in place of the best measured, *optimism* how much larger the
error is on trials left out than on those fitted (Efron 1986, doi:10.1080/01621459.1986.10478291).

Intervals are a bootstrap over trials, not over pairs, since the pairs of a trial share its luck; a
resample's pairs of a trial with its own copy are left out. A resample keeps the predictions, though
other trials would have led to others, so that percentiles are too near: they are taken further off
by factors that were found by simulation (docs/rule.md says what the intervals then hold).
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from im_assets.evidence.findings import generator
from im_assets.rule.choosing import Points, left_out, predictions
from im_resources.study import RuleSettings

FEWEST = 4  # trials: of three, one order in six is right by chance
BEYOND = 2.0  # a difference counts as more than noise from so many of its standard deviations
RESAMPLES = 1000
WIDER = {"decision_accuracy": 1.3, "regret": 2.0, "optimism": 2.5}
Reached = Literal["reached", "missed", "open"]


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
    predictions in its place. That holds the noise and what the predictions miss besides, so it is
    no less than the noise: what is more than it is more than the noise, what is less may not be.
    """

    sd: float
    measured: bool

    @property
    def difference(self) -> float:
        """From here on two trials differ by more than noise: two standard deviations of the
        difference of two, each with its own noise."""
        return float(BEYOND * np.sqrt(2) * self.sd)


@dataclass(frozen=True)
class Predictor:
    """What predicts the trials: ``predicted`` (trials,), lower is better, and its errors on trials
    left out and fitted, None where nothing is fitted."""

    name: str
    kind: Literal["rule", "indicator", "published"]
    predicted: np.ndarray
    left_out: np.ndarray | None = None
    fitted: np.ndarray | None = None


def repeated_noise(sets: np.ndarray, values: np.ndarray, fewest: int = 5) -> float | None:
    """Pooled standard deviation of ``values`` (trials,) within equal ``sets`` (trials,); None of
    fewer than ``fewest`` degrees of freedom, by which it is off by a third."""
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

    Where no pair is wrong, or none right, every resample says the same; the interval is then
    Wilson's (1927) of half as many pairs as trials, which share none.
    """
    apart = actual[:, None] - actual
    eligible = (np.abs(apart) > difference).astype(float)
    pairs = int(eligible.sum()) // 2
    if len(actual) < FEWEST or not pairs:
        return Estimate(None, pairs=pairs)
    right = eligible * (0.5 + 0.5 * np.sign(apart) * np.sign(predicted[:, None] - predicted))
    value = float(right.sum() / eligible.sum())
    if value in (0.0, 1.0):
        from statsmodels.stats.proportion import proportion_confint

        count = len(actual) // 2
        low, high = proportion_confint(value * count, count, 1 - confidence, method="wilson")
        return Estimate(value, float(low), float(high), pairs)
    weights = _resamples(len(actual))
    of, hits = (((weights @ m) * weights).sum(axis=1) for m in (eligible, right))
    low, high = _interval(value, hits[of > 0] / of[of > 0], "decision_accuracy", confidence)
    return Estimate(value, max(0.0, low), min(1.0, high), pairs)


def regret(predicted: np.ndarray, actual: np.ndarray, confidence: float) -> Estimate:
    """``actual`` of the trial with the lowest ``predicted`` less the lowest ``actual``; both
    (trials,), lower is better. Several predicted equally best count with their mean.

    No interval where every resample says the same.
    """
    if len(actual) < FEWEST:
        return Estimate(None)
    value = float(actual[predicted == predicted.min()].mean() - actual.min())
    weights = _resamples(len(actual))
    drawn = weights > 0
    best = np.where(drawn, predicted, np.inf).min(axis=1, keepdims=True)
    tied = np.where(drawn & (predicted <= best), weights, 0)
    lost = tied @ actual / tied.sum(axis=1) - np.where(drawn, actual, np.inf).min(axis=1)
    if np.ptp(lost) == 0:
        return Estimate(value)
    low, high = _interval(value, lost, "regret", confidence)
    return Estimate(value, max(0.0, low), high)


def optimism(left_out: np.ndarray, fitted: np.ndarray, confidence: float) -> Estimate:
    """Root mean squared error of the errors ``left_out`` (trials,) less that of ``fitted``."""
    if len(left_out) < FEWEST:
        return Estimate(None)
    weights = _resamples(len(left_out)) / len(left_out)
    gaps = np.sqrt(weights @ left_out**2) - np.sqrt(weights @ fitted**2)
    value = float(np.sqrt(np.mean(left_out**2)) - np.sqrt(np.mean(fitted**2)))
    return Estimate(value, *_interval(value, gaps, "optimism", confidence))


def against_goal(low: float | None, high: float | None, goal: float, *, above: bool) -> Reached:
    """Whether the interval lies wholly on the goal's side (``above`` it, or below), or wholly on
    the other."""
    if low is None or high is None:
        return "open"
    good, bad = (low >= goal, high < goal) if above else (high < goal, low >= goal)
    return "reached" if good else "missed" if bad else "open"


def alone(mixtures: Points, name: str, sign: int, settings: RuleSettings) -> Predictor:
    """The rule of one indicator ``name`` and nothing else, fitted without each mixture."""
    place = mixtures.names.index(name)
    one = Points(mixtures.seeds, (name,), mixtures.x[:, [place]], mixtures.y)
    without, sloped = left_out(one, settings, (name,))
    masks = np.ones((1, 1), dtype=bool)
    fitted, _ = predictions(one, np.ones((1, len(one)), dtype=int), masks)
    return Predictor(
        name,
        "indicator",
        ranked(without, sloped, mixtures.y, sign),
        mixtures.y - without,
        mixtures.y - fitted[0],
    )


def ranked(without: np.ndarray, sloped: np.ndarray, y: np.ndarray, sign: int) -> np.ndarray:
    """Left-out predictions to rank by, lower is better: a fold without a slope ranks nothing, and
    all such are one tie at the mean (the mean of the others falls as the left-out value rises)."""
    return sign * np.where(sloped, without, y.mean())


def _interval(
    value: float, resampled: np.ndarray, of: str, confidence: float
) -> tuple[float, float]:
    low, high = np.quantile(resampled, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(value - WIDER[of] * (value - low)), float(value + WIDER[of] * (high - value))


def _resamples(trials: int) -> np.ndarray:
    """How often each trial is in each resample, shape (RESAMPLES, trials)."""
    return generator(6).multinomial(trials, np.full(trials, 1 / trials), size=RESAMPLES)
