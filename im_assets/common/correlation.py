"""Correlations of few points, each with a bootstrap interval."""

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np

from im_assets.common.numbers import finite

Kind = Literal["pearson", "spearman"]


@dataclass(frozen=True)
class Correlation:
    """An estimate with its interval; None where one is not defined."""

    value: float | None
    low: float | None
    high: float | None


def correlation(
    x: np.ndarray,
    y: np.ndarray,
    kind: Kind,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Correlation:
    """Pearson's or Spearman's correlation of ``x`` and ``y``, shape (points,), with its interval.

    The interval is the bias-corrected and accelerated bootstrap over points (Efron 1987,
    doi:10.1080/01621459.1987.10478410): on eight normal points it covers 92 to 97 %, percentiles 89
    to 96 %. A constant column has no correlation; points in perfect order have no interval, since
    every resample is in perfect order too.

    Raises ValueError for shapes that differ or fewer than four points.
    """
    from scipy import stats

    if x.shape != y.shape or x.ndim != 1 or len(x) < 4:
        raise ValueError(f"a correlation needs at least 4 pairs, got shapes {x.shape}, {y.shape}")
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return Correlation(None, None, None)

    def statistic(a: np.ndarray, b: np.ndarray, axis: int = -1) -> np.ndarray:
        if kind == "spearman":
            a, b = stats.rankdata(a, axis=axis), stats.rankdata(b, axis=axis)
        a = a - a.mean(axis=axis, keepdims=True)
        b = b - b.mean(axis=axis, keepdims=True)
        norm = np.sqrt((a * a).sum(axis=axis) * (b * b).sum(axis=axis))
        # A resample of one point again and again, not rare among four, shows no relation.
        return np.divide((a * b).sum(axis=axis), norm, out=np.zeros_like(norm), where=norm > 0)

    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        interval = stats.bootstrap(
            (x, y),
            statistic,
            paired=True,
            vectorized=True,
            n_resamples=resamples,
            confidence_level=confidence,
            method="BCa",
            rng=np.random.Generator(np.random.PCG64(seed)),
        ).confidence_interval
    low, high = finite(interval.low), finite(interval.high)
    return Correlation(finite(float(statistic(x, y))), low, high)
