"""How many random mixtures a D-optimal choice replaces, on mixtures that are measured already.

Of every random split (the learning curve's) the test set stays the same; the rule is fitted on k of
the other mixtures, chosen for information or at random. Neither choice sees a loss. The rule is
least squares on the indicators' principal directions, so that nothing else is chosen either.
"""

from typing import Literal

import numpy as np

from im_assets.common.tracking import tracked
from im_assets.evidence.findings import Finding, interval
from im_assets.evidence.kinds import ChosenMixtures, RandomMixtures
from im_assets.evidence.unseen import corrected_mean, row_spearman, splits
from im_assets.mixtures.design import d_optimal, principal_directions
from im_assets.rule.choosing import Points, predictions

SHARE = 0.9  # of the indicators' variance that the directions have to explain
MOST_DIRECTIONS = 4
SIZES = 5


def design_value(mixtures: Points, confidence: float) -> list[Finding]:
    """Section ``design``: x mixtures fitted on, value mean Spearman on the test sets, low and high
    the spread over splits; items ``d_optimal`` and ``random``, whose largest size is all that a
    split leaves, where there is nothing to choose. Empty where no learning curve is possible."""
    orders, fitted = splits(len(mixtures))
    if not fitted:
        return []
    vectors = principal_directions(mixtures.x, SHARE, MOST_DIRECTIONS)
    pool, least = fitted[-1], vectors.shape[1] + 2
    sizes = sorted({round(s) for s in np.linspace(min(least, pool), pool, SIZES)})
    names = tuple(str(i) for i in range(vectors.shape[1]))
    scores = Points(mixtures.seeds, names, vectors, mixtures.y)
    tests = orders[:, pool:]
    random = np.array([_spearman(scores, orders[:, :k], tests) for k in sizes])
    found: list[Finding] = []
    for i, size in enumerate(sizes[:-1]):
        rows = [
            order[:pool][d_optimal(vectors[order[:pool]], size, seed=split, starts=2)]
            for split, order in enumerate(
                tracked(orders, f"choosing {size} mixtures", "splits", len(orders))
            )
        ]
        best = _spearman(scores, np.array(rows), tests)
        gain, gain_low, gain_high = corrected_mean(
            best - random[i], tests.shape[1] / pool, confidence
        )
        replaces, bound = _equal(best.mean(), random.mean(axis=1), sizes)
        low, high = interval(best, confidence)
        found.append(
            ChosenMixtures(
                x=size,
                value=best.mean(),
                low=low,
                high=high,
                gain=gain,
                gain_low=gain_low,
                gain_high=gain_high,
                replaces=replaces,
                bound=bound,
            )
        )
    for size, values in zip(sizes, random, strict=True):
        low, high = interval(values, confidence)
        found.append(RandomMixtures(x=size, value=values.mean(), low=low, high=high))
    return found


def _spearman(scores: Points, rows: np.ndarray, tests: np.ndarray) -> np.ndarray:
    """Spearman on each split's test set of a rule fitted on ``rows`` (splits, mixtures)."""
    weights = np.zeros((len(rows), len(scores)), dtype=int)
    np.put_along_axis(weights, rows, 1, axis=1)
    masks = np.ones((len(rows), len(scores.names)), dtype=bool)
    predicted, _ = predictions(scores, weights, masks)
    return row_spearman(scores.y[tests], np.take_along_axis(predicted, tests, axis=1))


def _equal(
    value: float, random: np.ndarray, sizes: list[int]
) -> tuple[float, Literal["at_least", "at_most"] | None]:
    """How many random mixtures rank as well, and whether that is a bound, the value lying beyond
    the sizes measured. The mean over random mixtures is taken as never falling: where it dips, that
    is chance."""
    rising = np.maximum.accumulate(random)
    if value >= rising[-1]:
        return sizes[-1], "at_least"
    if value <= rising[0]:
        return sizes[0], "at_most"
    return float(np.interp(value, rising, sizes)), None
