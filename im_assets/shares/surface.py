"""What a share of each source is worth, from mixtures that were finetuned on.

The target (log loss) is regressed on the mixtures' shares of the sources: Scheffe's first-order
mixture model (1958, *Experiments with mixtures*, doi:10.1111/j.2517-6161.1958.tb00299.x). Where the
truth is curved this is the best line through mixtures like the measured ones, and its intervals,
which take no line for granted (HC3), are of that. Every interval is Scheffe's (1953,
doi:10.1093/biomet/40.1-2.87): all differences of the surface are covered together, also those that
the same losses chose, as a proposed mixture is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd

STEP = 0.1  # the share by which a source's effect is told
FEWEST = 4  # mixtures beyond one a source


class SurfaceError(ValueError):
    """A surface that cannot be fitted; says what is there and what would do."""


@dataclass(frozen=True)
class Difference:
    """A difference of the target between two mixtures, with its interval."""

    value: float
    low: float
    high: float

    @property
    def distinct(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Surface:
    """The best line over shares.

    Attributes:
        sources: in order.
        values: the target of a mixture of one source alone, by the line [sources].
        covariance: of these [sources, sources].
        centre: the mean shares of the measured mixtures [sources].
        mixtures: how many were measured.
        factor: half an interval's width in standard errors.
        curved: whether a curved surface (all products of two shares besides) predicts mixtures left
            out better, by more than one standard error; None: too few mixtures to tell.
        r2_left_out: 1 - squared error / variance on mixtures left out; below 0 the mean is better.
    """

    sources: tuple[str, ...]
    values: np.ndarray
    covariance: np.ndarray
    centre: np.ndarray
    mixtures: int
    factor: float
    curved: bool | None
    r2_left_out: float

    def difference(self, towards: np.ndarray, since: np.ndarray) -> Difference:
        """The target at the shares ``towards`` less that at ``since`` [sources]."""
        step = towards - since
        value = float(step @ self.values)
        half = self.factor * float(np.sqrt(max(step @ self.covariance @ step, 0.0)))
        return Difference(value, value - half, value + half)

    def effect(self, source: str) -> Difference:
        """What ``STEP`` more of a source changes, taken from the others in proportion to what they
        have at the centre (Cox 1971, doi:10.1093/biomet/58.1.155)."""
        one = np.array([name == source for name in self.sources], dtype=float)
        share = float(self.centre @ one)
        others = (self.centre - share * one) / (1 - share)
        return self.difference(self.centre + STEP * (one - others), self.centre)


def fit_surface(shares: pd.DataFrame, target: pd.Series, confidence: float) -> Surface:
    """The surface of measured mixtures.

    Args:
        shares: one row a mixture, one column a source; each row sums to one.
        target: what was measured of each mixture, by the same index.

    Raises SurfaceError for fewer than two sources, mixtures too few or too alike to tell the
    sources apart, or a target that is missing.
    """
    from scipy.stats import f
    from statsmodels.regression.linear_model import OLS

    sources = tuple(map(str, shares.columns))
    x, y = shares.to_numpy(dtype=float), target.reindex(shares.index).to_numpy(dtype=float)
    rows, count = x.shape
    if count < 2:
        raise SurfaceError("shares need at least two sources (data.candidates)")
    if np.abs(x.sum(axis=1) - 1).max() > 1e-9:
        raise SurfaceError("the shares of a mixture have to sum to one")
    if not np.isfinite(y).all():
        raise SurfaceError(f"{int((~np.isfinite(y)).sum())} mixtures have no measured target")
    if rows < count + FEWEST:
        raise SurfaceError(
            f"{rows} mixtures cannot tell the shares of {count} sources: at least "
            f"{count + FEWEST} are needed (mixtures.seeds)"
        )
    if np.linalg.matrix_rank(x, tol=1e-6) < count:
        raise SurfaceError("the mixtures' shares are too alike to tell the sources apart")
    fit = OLS(y, x).fit(method="qr").get_robustcov_results("HC3", use_t=True)
    total = float(np.sum((y - y.mean()) ** 2))
    line = _left_out(x, y)
    curved = None
    if rows >= (terms := count * (count + 1) // 2) + count + FEWEST:
        gain = line - _left_out(_curved(x), y)
        curved = bool(gain.mean() > gain.std(ddof=1) / np.sqrt(rows))
        assert terms == _curved(x).shape[1]
    freedom = count - 1
    factor = float(np.sqrt(freedom * f.ppf(confidence, freedom, rows - count)))
    return Surface(
        sources,
        np.asarray(fit.params),
        np.asarray(fit.cov_params()),
        x.mean(axis=0),
        rows,
        factor,
        curved,
        1 - float(line.sum()) / total if total > 0 else 0.0,
    )


def _curved(x: np.ndarray) -> np.ndarray:
    """Scheffe's second-order terms: the shares, and their products of two."""
    pairs = combinations(range(x.shape[1]), 2)
    return np.column_stack([x, *(x[:, i] * x[:, j] for i, j in pairs)])


def _left_out(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The squared error of each row's prediction by a fit to the others [rows]."""
    q, _ = np.linalg.qr(x)
    error = y - q @ (q.T @ y)
    leverage = np.minimum(np.sum(q**2, axis=1), 1 - 1e-9)
    return np.asarray((error / (1 - leverage)) ** 2)


@dataclass(frozen=True)
class Proposal:
    """A mixture that is proposed.

    Attributes:
        shares: of each source, summing to one.
        gain: of the target against the data as it is; with the sign of the target, so that of a
            loss less is better.
        capped: sources whose share is as high as their examples may be repeated.
    """

    shares: Mapping[str, float]
    gain: Difference
    capped: tuple[str, ...]


def propose(
    surface: Surface, held: Mapping[str, int], nearness: float, repeats: float, sign: int
) -> Proposal:
    """The shares of the least target that stay near the data one has.

    They minimise sign * target + nearness * KL(shares || the data's own), no source being repeated
    more than ``repeats`` times in as many examples as there are. Without that limit a source has
    its own share times exp(-sign * value / nearness), up to a factor for all.

    Args:
        held: examples of each source.
        nearness: in units of the target a nat.
        sign: 1 where a lower target is better, -1 where a higher one is.

    Raises SurfaceError when some source of the surface has no example any more.
    """
    if lacking := [name for name in surface.sources if not held.get(name)]:
        raise SurfaceError(f"no example is left of {', '.join(lacking)}")
    if repeats < 1:
        raise SurfaceError("shares.repeats below 1 leaves no mixture as large as the data")
    own = np.array([held[name] for name in surface.sources], dtype=float)
    own /= own.sum()
    most = np.minimum(repeats * own, 1.0)
    worth = sign * surface.values / nearness
    wanted = own * np.exp(-(worth - worth.min()))
    low, high = 0.0, float((most / wanted).max())
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.minimum(most, middle * wanted).sum() < 1 else (low, middle)
    found = np.minimum(most, high * wanted)
    found /= found.sum()
    at_most = found >= most * (1 - 1e-9)
    return Proposal(
        dict(zip(surface.sources, map(float, found), strict=True)),
        surface.difference(found, own),
        tuple(name for name, full in zip(surface.sources, at_most, strict=True) if full),
    )
