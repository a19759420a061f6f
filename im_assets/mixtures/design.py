"""Fewer finetunes for the same knowledge: which seeds' mixtures tell most about the rule.

Indicators cost little and a finetune much, and the variance of least squares depends on the
indicators alone, not on the losses. So the mixtures can be chosen before any is finetuned on: those
with the largest determinant of the information matrix X'X (D-optimality; Fedorov 1972, *Theory of
Optimal Experiments*; Atkinson, Donev and Tobias 2007, ch. 12).
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from im_assets.common.tracking import tracked
from im_assets.mixtures.drawing import allocate, source_weights
from im_resources.study.schema.base import Shares

RIDGE = 1e-9  # lets the exchange start from a singular design; far below any information
GAIN = 1e-9  # an exchange that multiplies the determinant by less is rounding


def d_optimal(
    vectors: np.ndarray,
    size: int,
    seed: int,
    measured: np.ndarray | None = None,
    starts: int = 8,
) -> np.ndarray:
    """The ``size`` rows that tell most about a linear rule with a constant.

    Fedorov's exchange: from a random choice, swap the pair that raises the determinant most until
    none does; the best of several starts, since one may end in a local optimum.

    Args:
        vectors: the candidates, shape (candidates, directions).
        measured: rows that are measured already and count as well, shape (rows, directions).

    Returns: places of the chosen candidates, ascending, shape (size,).

    Raises ValueError for more rows than there are candidates, or fewer (measured ones included)
    than a constant and a slope for each direction need.
    """
    candidates, directions = vectors.shape
    known = np.empty((0, directions)) if measured is None else measured
    if size > candidates:
        raise ValueError(f"{size} mixtures cannot be chosen from {candidates} candidates")
    if size + len(known) < directions + 1:
        raise ValueError(
            f"{size + len(known)} mixtures cannot tell {directions} slopes and a constant apart: "
            f"at least {directions + 1} are needed"
        )
    centre, spread = vectors.mean(axis=0), vectors.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    x, before = (
        np.column_stack([np.ones(len(v)), (v - centre) / spread]) for v in (vectors, known)
    )
    base = before.T @ before + RIDGE * np.eye(directions + 1)
    rng = np.random.Generator(np.random.PCG64(seed))
    found = [
        _exchange(x, base, rng.choice(candidates, size, replace=False))
        for _ in tracked(range(starts), "choosing seeds", "starts")
    ]
    return max(found, key=lambda f: f[0])[1]


def _exchange(x: np.ndarray, base: np.ndarray, start: np.ndarray) -> tuple[float, np.ndarray]:
    """The local optimum reached from ``start``: its log determinant, and the rows in order."""
    inside = np.zeros(len(x), dtype=bool)
    inside[start] = True
    while True:
        ins, outs = np.flatnonzero(inside), np.flatnonzero(~inside)
        information = base + x[ins].T @ x[ins]
        if len(outs) and len(ins):
            inverse = np.linalg.inv(information)
            d = np.einsum("ij,jk,ik->i", x, inverse, x)
            between = x[ins] @ inverse @ x[outs].T
            # The factor on the determinant of swapping row i of the design for row j.
            factor = (1 - d[ins])[:, None] * (1 + d[outs]) + between**2
            i, j = np.unravel_index(np.argmax(factor), factor.shape)
            if factor[i, j] > 1 + GAIN:
                inside[ins[i]], inside[outs[j]] = False, True
                continue
        return float(np.linalg.slogdet(information)[1]), ins


def information(vectors: np.ndarray) -> float:
    """D-criterion of a design with a constant: |X'X|^(1/p), p coefficients; it grows in proportion
    to the number of mixtures. 0 for a singular design."""
    x = np.column_stack([np.ones(len(vectors)), vectors])
    sign, log = np.linalg.slogdet(x.T @ x)
    return float(np.exp(log / x.shape[1])) if sign > 0 else 0.0


def principal_directions(vectors: np.ndarray, share: float, most: int) -> np.ndarray:
    """Scores on the standardised columns' principal directions, each of variance 1, shape
    (rows, directions): as few as explain ``share`` of the variance, at most ``most``; none where no
    column varies.

    Indicators are collinear, and least squares on fewer mixtures needs fewer columns.
    """
    spread = vectors.std(axis=0)
    varies = spread > 1e-12 * np.abs(vectors).max(axis=0)
    if not varies.any():
        return np.empty((len(vectors), 0))
    z = (vectors[:, varies] - vectors[:, varies].mean(axis=0)) / spread[varies]
    u, s, _ = np.linalg.svd(z, full_matrices=False)
    explained = np.cumsum(s**2) / np.sum(s**2)
    count = min(int(np.searchsorted(explained, min(share, 1 - 1e-12))) + 1, most, len(s))
    return u[:, : max(1, count)] * np.sqrt(len(z))


def expected_indicators(
    held: Mapping[str, int],
    means: "pd.DataFrame | Callable[[int, Mapping[str, int]], pd.DataFrame]",
    seeds: Sequence[int],
    size: int,
    shares: Shares = "uniform",
) -> pd.DataFrame:
    """The mean indicators that each seed's mixture is expected to have, one row a seed.

    A seed decides how many examples each source gives (`allocate`), and the expected indicator is
    the mean of the sources' means, weighted by that. Which examples are drawn is left out: it would
    cost a hash of every candidate for every seed, and shifts a mean by only 1/sqrt(size) of the
    examples' spread. So the vectors of random mixtures lie in as many directions as there are
    sources, less one; those of tilted ones in as many as there are indicators. Indicators of the
    set, such as KNN, have no mean over examples and are left out.

    Args:
        held: candidates that each source holds.
        means: mean of each indicator (columns) over the scored examples of each source (rows); of
            tilted mixtures, what gives it of a seed and of what it draws of each source.

    Raises ValueError when a source has no score of an indicator; MixtureError as `allocate` does.
    """
    sources = sorted(held)
    found = []
    for seed in tracked(seeds, "expecting indicators", "seeds"):
        counts = allocate(source_weights(sources, seed, shares), held, size)
        of = means if isinstance(means, pd.DataFrame) else means(seed, counts)
        lacking = [s for s in sources if s not in of.index or of.loc[s].isna().any()]
        if lacking:
            raise ValueError(
                f"no score of some indicator for any example of {', '.join(lacking)}; materialize "
                "example_scores first (`scoring.score: all` scores every source)"
            )
        parts = np.array([counts[source] for source in sources]) / size
        found.append(pd.Series(parts @ of.loc[sources].to_numpy(), of.columns, name=seed))
    return pd.DataFrame(found).rename_axis("seed")


def source_means(
    scores: pd.DataFrame, pool: pd.DataFrame, sources: Sequence[str]
) -> tuple[pd.DataFrame, list[str]]:
    """Mean of each indicator over the scored examples of each source, and the sources without any,
    which take the mean of all.

    Args:
        scores: columns example_id, indicator, value.
        pool: columns example_id, source.

    Returns: means with a row for each of ``sources``, in order, a column for each indicator.
    """
    scored = scores.merge(pool[["example_id", "source"]], on="example_id")
    means = scored.pivot_table(index="source", columns="indicator", values="value", aggfunc="mean")
    means = means.reindex(pd.Index(sources, name="source"))
    unscored = list(means.index[means.isna().any(axis=1)])
    return means.fillna(scored.groupby("indicator")["value"].mean()), unscored
