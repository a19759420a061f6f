"""Tilted mixtures: sets that lean to one end of the indicators, where selections go.

Random mixtures of S sources differ in only S - 1 directions, and their mean indicators stay near
the centre, while a selection takes an extreme end of the pool: a rule fitted on them extrapolates.
So a tilted mixture draws its examples with probability proportional to exp(theta . z), z being the
example's indicators as normal scores of the pool and theta a direction and a strength: as many
directions as there are indicators. (Exponential tilting; Siegmund 1976, *Importance sampling in the
Monte Carlo study of sequential tests*, doi:10.1214/aos/1176343541.)
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from im_assets.common.digests import uniform

LEVELS = np.linspace(0.005, 0.995, 100)  # the percentiles that are kept of each indicator
VERSION, INDICATOR, FINGERPRINT, LEVEL = "pool_version", "indicator", "fingerprint", "level"

Tilt = Mapping[str, float]


def random_tilt(number: int, names: Sequence[str], strength: float) -> dict[str, float]:
    """theta of a mixture: a random direction over the indicators, of the length ``strength``.

    Each coordinate is the normal quantile of a hash of the number and the indicator's name, so that
    all directions are equally likely and the order of the names is nothing.
    """
    from scipy.special import ndtri

    raw = {name: float(ndtri(uniform(number, f"tilt:{name}"))) for name in sorted(names)}
    length = float(np.sqrt(sum(x * x for x in raw.values())))
    return {name: strength * x / length for name, x in raw.items()}


def percentiles(scores: pd.DataFrame) -> pd.DataFrame:
    """The percentiles of each indicator over a pool.

    Args:
        scores: of the pool's examples: indicator, fingerprint, value; one fingerprint an indicator.

    Returns: indicator, fingerprint, level (in ``LEVELS``), value; ascending.
    """
    found = [
        pd.DataFrame(
            {
                INDICATOR: str(name),
                FINGERPRINT: str(mine[FINGERPRINT].iloc[0]),
                LEVEL: LEVELS,
                "value": np.quantile(mine["value"].to_numpy(dtype=float), LEVELS),
            }
        )
        for name, mine in scores.groupby(INDICATOR, observed=True)
    ]
    return pd.concat(found, ignore_index=True)


def normal_scores(values: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Values of an indicator as normal quantiles of where they lie in the pool, of the same shape.

    Whatever the indicator's scale and tails, they have about mean 0 and variance 1, and none is
    beyond the outermost percentiles (2.58): no single example draws itself into every mixture. A
    value that many examples share lies in the middle of theirs. NaN stays NaN.

    Args:
        kept: the indicator's percentiles at ``LEVELS``, ascending.
    """
    from scipy.special import ndtri

    last = len(LEVELS) - 1
    low, high = np.searchsorted(kept, values, "left"), np.searchsorted(kept, values, "right")
    middle = (LEVELS[np.minimum(low, last)] + LEVELS[np.clip(high - 1, 0, last)]) / 2
    # Where several percentiles have this value, it is shared.
    levels = np.where(high - low > 1, middle, np.interp(values, kept, LEVELS))
    return np.where(np.isnan(values), np.nan, ndtri(levels))


def log_weights(tilt: Tilt, scores: Mapping[str, np.ndarray]) -> np.ndarray:
    """theta . z of each example, added up in the order of the names, float64 [examples].

    Args:
        scores: normal scores of each indicator [examples].
    """
    names = sorted(tilt)
    total = np.zeros(len(next(iter(scores.values()))))
    for name in names:
        total += tilt[name] * scores[name]
    return total


def inclusion(weights: np.ndarray, count: int) -> np.ndarray:
    """The probability of each of a source's examples to be among ``count`` that are drawn one after
    the other with these log weights, without replacement, float64 [examples].

    1 - exp(-t w) with t such that they sum to ``count``: what the draw comes to as the source grows
    (Rosen 1997, *Asymptotic theory for order sampling*, doi:10.1016/S0378-3758(96)00185-1).
    """
    if count >= len(weights):
        return np.ones(len(weights))
    if count <= 0:
        return np.zeros(len(weights))
    w = np.exp(weights - weights.max())
    t = count / w.sum()
    for _ in range(100):
        left = np.exp(-t * w)
        lacking = count - (1 - left).sum()
        if lacking <= 1e-9 * count:
            break
        t += lacking / (w @ left)  # the sum is concave in t: Newton's steps come from below
    return np.asarray(-np.expm1(-t * w))
