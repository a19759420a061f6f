"""How many random mixtures a D-optimal choice replaces, on mixtures that are measured already.

Of every random split (the learning curve's) the test set stays the same; the study's own rule is
chosen and fitted on k of the other mixtures, taken for information or at random. Neither choice
sees a loss. They are taken in as many directions as `seed_design` takes them in: mixtures of S
sources differ in S - 1. It knows these directions from the sources' means; here they are the first
principal directions of the indicators that the mixtures came to have.
"""

from typing import Literal

import numpy as np

from im_assets.common.tracking import tracked
from im_assets.evidence.findings import Finding, interval
from im_assets.evidence.kinds import ChosenMixtures, RandomMixtures
from im_assets.evidence.unseen import corrected_mean, split_spearman, splits
from im_assets.mixtures.design import d_optimal, principal_directions
from im_assets.rule.choosing import Points
from im_resources.study import RuleSettings

SHARE = 0.9  # of the indicators' variance in the directions, where the sources are not known
SMALLEST = 6  # fewer mixtures have no rule worth the name
SIZES = 5


def design_value(
    mixtures: Points, settings: RuleSettings, sources: int | None = None
) -> list[Finding]:
    """Section ``design``: x mixtures fitted on, value mean Spearman on the test sets, low and high
    the spread over splits; items ``d_optimal`` and ``random``, whose largest size is all that a
    split leaves, where there is nothing to choose. Empty where no learning curve is possible.

    Args:
        sources: how many the mixtures are drawn from; None where they are points of other kinds.
    """
    orders, fitted = splits(len(mixtures))
    if not fitted:
        return []
    pool, confidence = fitted[-1], settings.confidence
    most = max(1, pool // 2) if sources is None else max(1, min(sources - 1, pool // 2))
    share = SHARE if sources is None else 1.0
    vectors = principal_directions(mixtures.x, share, most)
    least = max(SMALLEST, vectors.shape[1] + 2)
    sizes = sorted({round(s) for s in np.linspace(min(least, pool), pool, SIZES)})
    tests = orders[:, pool:]
    random = np.array([_spearman(mixtures, orders[:, :k], tests, settings) for k in sizes])
    found: list[Finding] = []
    for i, size in enumerate(sizes[:-1]):
        rows = [
            order[:pool][d_optimal(vectors[order[:pool]], size, seed=split, starts=2)]
            for split, order in enumerate(
                tracked(orders, f"choosing {size} mixtures", "splits", len(orders))
            )
        ]
        best = _spearman(mixtures, np.array(rows), tests, settings)
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


def _spearman(
    mixtures: Points, rows: np.ndarray, tests: np.ndarray, settings: RuleSettings
) -> np.ndarray:
    """Spearman on each split's test set of the study's rule from ``rows`` (splits, mixtures)."""
    weights = np.zeros((len(rows), len(mixtures)), dtype=int)
    np.put_along_axis(weights, rows, 1, axis=1)
    return split_spearman(mixtures, weights, tests, settings)


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
