"""All subsets of the indicators at once: the one with the least leave-one-out squared error.

The error of leaving a mixture out has a closed form, e_i / (1 - h_i), with e the residuals and h
the diagonal of the hat matrix (PRESS: Allen 1974, doi:10.1080/00401706.1974.10489157), so that
nothing is refitted. Subsets are visited depth first: each adds one column to its parent's, by
one Gram-Schmidt step, for many data sets side by side.

A data set is given as weights on the mixtures: 0 leaves one out, 2 has it twice, as a bootstrap
resample does. A mixture is then left out with all its copies, since a copy that stays behind would
give its answer away; with rows scaled by the root of their weight the formula stays as it is.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from im_assets.common.tracking import work
from im_assets.rule.regression import COLLINEAR, EXACT

MOST = 15  # 32,768 subsets; each further indicator doubles the time
TIE = 1e-9  # errors that differ by less than this share differ by rounding
Subset = tuple[int, ...]


@dataclass(frozen=True)
class Search:
    """The subsets in order (smaller first, then in the candidates' order), and for each data set
    and subset the sum of squared leave-one-out errors, inf where a fold could not be fitted, and of
    squared residuals: shape (data sets, subsets)."""

    columns: int
    subsets: list[Subset]
    press: np.ndarray
    residual: np.ndarray

    @property
    def best(self) -> np.ndarray:
        """Place of the best subset of each data set, shape (data sets,). Ties, and an exact fit by
        several, go to the smaller subset, then to the candidates' order."""
        bound = self.press.min(axis=1) * (1 + TIE) + EXACT * self.press[:, 0]
        return np.argmax(self.press <= bound[:, None], axis=1)

    @property
    def masks(self) -> np.ndarray:
        """Which columns the best subset holds, bool, shape (data sets, columns)."""
        member = np.zeros((len(self.subsets), self.columns), dtype=bool)
        for place, subset in enumerate(self.subsets):
            member[place, list(subset)] = True
        return member[self.best]


def search_subsets(x: np.ndarray, y: np.ndarray, weights: np.ndarray, limit: int) -> Search:
    """The leave-one-out error of each subset of at most ``limit`` columns, with a constant.

    Args:
        x: shape (mixtures, columns).
        y: shape (mixtures,), or (data sets, mixtures).
        weights: not negative, shape (data sets, mixtures), or (1, mixtures) for all of ``y``.

    Raises ValueError for more columns than can be searched.
    """
    columns = x.shape[1]
    if columns > MOST:
        raise ValueError(
            f"{columns} indicators have 2^{columns} subsets, too many to search (the most is "
            f"{MOST}): set `rule.choose: stepwise`, or leave indicators out"
        )
    limit = max(0, min(limit, columns))
    subsets = [s for size in range(limit + 1) for s in combinations(range(columns), size)]
    place = {subset: i for i, subset in enumerate(subsets)}
    sets = max(len(np.atleast_2d(y)), len(weights))
    press, residual = np.full((2, sets, len(subsets)), np.inf)
    done, advance = 0, work("searching subsets", len(subsets), "subsets of the indicators")
    for family, e, h in _fits(*_centred(x, np.atleast_2d(y), weights), limit):
        places = [place[subset] for subset in family]
        # A row that alone carries a column cannot be left out: nothing else says its slope. A row
        # of weight 0 has e = h = 0 and adds nothing.
        possible = (h < 1 - COLLINEAR).all(axis=2)
        error = e / np.where(h < 1 - COLLINEAR, 1 - h, 1.0)
        press[:, places] = np.where(possible, np.einsum("bpn,bpn->bp", error, error), np.inf)
        residual[:, places] = np.einsum("bpn,bpn->bp", e, e)
        done += len(family)
        advance(done)
    return Search(columns, subsets, press, residual)


def _centred(
    x: np.ndarray, y: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows scaled by the root of the weight, less the constant: columns (sets, columns, rows) of
    norm 1 or 0, residuals (sets, rows), leverages (sets, rows)."""
    root = np.sqrt(weights.astype(float))
    constant = root / np.linalg.norm(root, axis=1, keepdims=True)
    # Zero rows for the constant within rounding, so that rounding is never fitted.
    e = root * (y - y.mean(axis=1, keepdims=True))
    e = e - constant * (constant * e).sum(axis=1, keepdims=True)
    size = np.linalg.norm(root * y, axis=1, keepdims=True)
    e = np.where(np.linalg.norm(e, axis=1, keepdims=True) <= EXACT * size, 0.0, e)
    scaled = x / np.maximum(np.abs(x).max(axis=0), np.finfo(float).tiny)
    z = root[:, None, :] * (scaled - scaled.mean(axis=0)).T
    before = np.linalg.norm(root[:, None, :] * scaled.T, axis=2, keepdims=True)
    z = z - constant[:, None, :] * np.einsum("bn,bpn->bp", constant, z)[:, :, None]
    norm = np.linalg.norm(z, axis=2, keepdims=True)
    z = np.divide(z, norm, out=np.zeros_like(z), where=norm > EXACT * before)
    return z, e, constant**2


def _fits(
    z: np.ndarray, e: np.ndarray, h: np.ndarray, limit: int
) -> Iterator[tuple[list[Subset], np.ndarray, np.ndarray]]:
    """Families of subsets, one parent's children each, with their residuals and leverages, shape
    (sets, children, rows). Where the columns of a subset are dependent, its leverages are 1."""
    yield [()], e[:, None], h[:, None]
    stack: list[tuple[Subset, int, np.ndarray, np.ndarray, np.ndarray]] = [((), 0, z, e, h)]
    while stack:
        parent, first, rest, e, h = stack.pop()
        if len(parent) == limit or not rest.shape[1]:
            continue
        norm = np.sqrt(np.einsum("bpn,bpn->bp", rest, rest))[:, :, None]
        q = rest / np.where(norm > COLLINEAR, norm, np.inf)
        left = e[:, None] - (q @ e[:, :, None]) * q
        leverage = np.where(norm > COLLINEAR, h[:, None] + q * q, 1.0)
        family = [(*parent, first + i) for i in range(rest.shape[1])]
        yield family, left, leverage
        for i, child in enumerate(family):
            later = rest[:, i + 1 :]
            later = later - (later @ q[:, i, :, None]) * q[:, None, i]
            stack.append((child, first + i + 1, later, left[:, i], leverage[:, i]))
