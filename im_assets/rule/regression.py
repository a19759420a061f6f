"""Ordinary least squares for the rule: which columns can be fitted at all, and the fit itself."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from im_assets.common.numbers import numeric

# A column whose part not explained by the others is below this share of its norm is a copy of them
# up to rounding (a variance inflation factor of 1e14).
COLLINEAR = 1e-7
# Variation below this share is rounding; fitting it would select noise.
EXACT = 1e-12

Uselessness = Literal["constant", "copy", "combination", "few_mixtures"]


class Dropped(NamedTuple):
    """Why a column adds nothing: it is constant, a ``copy`` of one column up to scale and shift, or
    a linear ``combination`` ``of`` several.

    ``few_mixtures``: the ``rows`` are so few that they cannot tell all columns apart, which says
    nothing of the column itself.
    """

    kind: Uselessness
    of: tuple[str, ...] = ()
    rows: int | None = None

    @property
    def note(self) -> str:
        """The same in words."""
        if self.kind == "constant":
            return "constant over the mixtures"
        if self.kind == "few_mixtures":
            return (
                f"too few mixtures: {self.rows} cannot tell this many indicators apart, and it is "
                "the least correlated with what is predicted; more mixtures may tell it too "
                "(mixtures.seeds)"
            )
        if self.kind == "copy":
            return f"a copy of {self.of[0]} up to scale and shift"
        return f"an exact linear combination of {', '.join(self.of)}"


def least_squares(y: np.ndarray, x: np.ndarray) -> Any:
    """statsmodels' results for ``y`` (rows,) on a constant and the columns of ``x`` (rows, k)."""
    # Imported here: statsmodels takes over a second, and the code location should load faster.
    from statsmodels.regression.linear_model import OLS

    # QR, unlike the default pseudo-inverse, does not cut off columns of a small scale.
    return OLS(y, np.column_stack([np.ones(len(y)), x])).fit(method="qr")


def term_statistics(
    y: np.ndarray, x: np.ndarray, errors: Literal["HC3", "classical"], confidence: float
) -> np.ndarray:
    """Estimate, standard error, t, p and confidence limits of the constant and each column of ``x``
    (rows, k), shape (k + 1, 6); t and p with rows - k - 1 degrees of freedom.

    HC3 (MacKinnon and White 1985; Long and Ervin 2000, https://doi.org/10.1080/00031305.2000.10474549)
    holds also when the errors' spread differs from row to row, which "classical" assumes it does
    not. NaN where a row's leverage is 1, or nothing is left to estimate from.
    """
    # Fitted on standardised columns, which keep their digits also when one is a year and one a
    # population; each term of the raw columns is a linear combination of those coefficients.
    centre, spread = x.mean(axis=0), np.linalg.norm(x - x.mean(axis=0), axis=0)
    results = least_squares(y, (x - centre) / spread)
    if errors == "HC3":
        results = results.get_robustcov_results("HC3", use_t=True)
    terms = np.diag([1.0, *(1 / spread)])
    terms[0, 1:] = -centre / spread
    test = results.t_test(terms)
    columns = (test.effect, test.sd, test.tvalue, test.pvalue)
    shape = (len(terms), 1)
    return np.hstack(
        [*(np.reshape(c, shape) for c in columns), test.conf_int(alpha=1 - confidence)]
    )


def is_constant(values: np.ndarray) -> bool:
    """Whether ``values`` differ by no more than rounding."""
    return bool(np.ptp(values) <= EXACT * np.abs(values).max())


def distinct_columns(
    table: pd.DataFrame, names: Sequence[str]
) -> tuple[dict[str, np.ndarray], dict[str, Dropped]]:
    """Standardised columns (mean 0, norm 1), and ``{name: reason}`` of constants and copies.

    Of two columns that are equal up to scale and shift the first is kept. Whether a column is a
    combination of several depends on which of them are in a model, and is asked there
    (`unexplained`): an answer here would depend on the columns' order. Raises ValueError for values
    that are missing or not finite.
    """
    kept: dict[str, np.ndarray] = {}
    dropped: dict[str, Dropped] = {}
    for name, raw in zip(names, numeric(table, names).T, strict=True):
        if is_constant(raw):
            dropped[name] = Dropped("constant")
            continue
        x = raw / np.abs(raw).max()  # first to size 1, so that no square overflows
        x = x - x.mean()
        x = x / np.linalg.norm(x)
        same = (other for other, z in kept.items() if np.linalg.norm(x - z * (z @ x)) <= COLLINEAR)
        if (of := next(same, None)) is not None:
            dropped[name] = Dropped("copy", (of,))
        else:
            kept[name] = x
    return kept, dropped


def unexplained(x: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The norm of what the columns of ``others`` (rows, k) leave of each of ``x`` (rows, columns),
    shape (columns,); both centred and of norm 1, ``others`` dependent or not.

    Up to `COLLINEAR` a column is a linear combination of the others and a constant.
    """
    if not others.shape[1]:
        return np.linalg.norm(x, axis=0)
    u, s, _ = np.linalg.svd(others, full_matrices=False)
    basis = u[:, s > COLLINEAR * s[0]]
    rest = x - basis @ (basis.T @ x)
    rest = rest - basis @ (basis.T @ rest)  # twice: the first pass leaves rounding behind
    return np.linalg.norm(rest, axis=0)


def unexplained_by_rest(x: np.ndarray) -> np.ndarray:
    """`unexplained` of each column of ``x`` (rows, k) by all the others, shape (k,)."""
    columns = range(x.shape[1])
    return np.array([unexplained(x[:, [i]], np.delete(x, i, axis=1))[0] for i in columns])


def inflation_factors(x: np.ndarray) -> np.ndarray:
    """Variance inflation factor of each column of ``x`` (rows, k): 1 / (1 - R2 on the others); inf
    of a combination of these."""
    z = x - x.mean(axis=0)
    rest = unexplained_by_rest(z / np.linalg.norm(z, axis=0))
    with np.errstate(divide="ignore"):
        return 1 / np.where(rest > COLLINEAR, rest, 0.0) ** 2
