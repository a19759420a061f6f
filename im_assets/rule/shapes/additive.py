"""A generalized additive fit: of each indicator in it a smooth curve (Hastie and Tibshirani 1986,
doi:10.1214/ss/1177013604).

Cubic B-splines of statsmodels, whose second derivative is penalised (as its GLMGam does); the
penalty, one for all curves, and the indicators, one more as long as it helps, by the error of
leaving a set out, which needs no refit. At the largest penalty a curve is a straight line.
"""

from collections.abc import Sequence

import numpy as np

from im_assets.rule.shapes.sample import Bend, Fit, Sample, standardized

DEGREE, KNOTTED = 3, 6  # of the B-splines; functions of each, the constant with them
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 1e4)  # in units of a basis' own size
POINTS = 41  # that a curve is told at
BETTER = 0.98  # a further indicator has to bring the error to this share of what it was


def spline_basis(x: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """B-splines of ``x`` (sets,), without one so that no constant is in them: at the sets
    [sets, functions], at the points ``at`` [points, functions], and the penalty of their squared
    second derivative [functions, functions]."""
    from statsmodels.gam.smooth_basis import UnivariateBSplines

    basis = UnivariateBSplines(x, df=KNOTTED, degree=DEGREE)
    return basis.basis, basis.transform(at), basis.cov_der2


def penalized_fit(
    design: np.ndarray, target: np.ndarray, root: np.ndarray, penalty: np.ndarray
) -> tuple[np.ndarray, float]:
    """Penalised least squares: the coefficients (columns,), the constant's first, and the sum of
    squared errors of leaving each set out.

    Args:
        design: [sets, columns], with the constant, each row times ``root``, of its count.
        target: (sets,), times ``root``.
        penalty: [columns, columns].
    """
    solved = np.linalg.solve(design.T @ design + penalty, design.T)
    coefficients = solved @ target
    leverage = np.einsum("ij,ji->i", design, solved)
    left = target - design @ coefficients
    return coefficients, float(np.sum((left / np.maximum(1 - leverage, 1e-9)) ** 2))


def fit_additive(sample: Sample, limit: int) -> Fit:
    """The additive fit with at most ``limit`` indicators.

    Indicators with fewer different values than spline functions are left out.
    """
    z, centre, spread = standardized(sample)
    root = np.sqrt(sample.counts.astype(float))
    level = float(np.average(sample.y, weights=sample.counts))
    target = root * (sample.y - level)
    places = [i for i, column in enumerate(z.T) if len(np.unique(column)) > KNOTTED]
    bases = {}
    for place in places:
        at = np.linspace(z[:, place].min(), z[:, place].max(), POINTS)
        own, told, penalty = spline_basis(z[:, place], at)
        mean = np.average(own, axis=0, weights=sample.counts)
        own = own - mean
        scale = np.trace(own.T @ (sample.counts[:, None] * own)) / np.trace(penalty)
        bases[place] = root[:, None] * own, told - mean, scale * penalty, at
    chosen: list[int] = []
    error = float(np.sum((target / (1 - root**2 / sample.counts.sum())) ** 2))
    found: np.ndarray | None = None
    while len(chosen) < limit:
        tried = [
            (*_best(root, target, [bases[p] for p in (*chosen, place)]), place)
            for place in places
            if place not in chosen
        ]
        if not tried:
            break
        less, coefficients, place = min(tried, key=lambda one: one[0])
        if less > BETTER * error:
            break
        chosen, error, found = [*chosen, place], less, coefficients
    if found is None:
        return Fit(level, np.zeros(z.shape[1]))
    bends, column = {}, 1
    for place in chosen:
        _, told, _, at = bases[place]
        width = told.shape[1]
        value = told @ found[column : column + width]
        bends[place] = Bend(centre[place] + spread[place] * at, value)
        column += width
    fit = Fit(level + float(found[0]), np.zeros(z.shape[1]), bends)
    # What interpolation between the points leaves, the constant takes.
    off = np.average(sample.y - fit.predict(sample.x), weights=sample.counts)
    return Fit(fit.constant + float(off), fit.slopes, bends)


def _best(
    root: np.ndarray,
    target: np.ndarray,
    bases: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
) -> tuple[float, np.ndarray]:
    """The least error over the penalties, and its coefficients."""
    design = np.column_stack([root, *(own for own, *_ in bases)])
    penalty = np.zeros((design.shape[1],) * 2)
    column = 1
    for own, _, part, _ in bases:
        width = own.shape[1]
        penalty[column : column + width, column : column + width] = part
        column += width
    # A trace of rounding keeps it solvable where sets are as good as equal.
    floor = 1e-9 * np.trace(design.T @ design) / len(penalty) * np.eye(len(penalty))
    floor[0, 0] = 0
    tried = [penalized_fit(design, target, root, size * penalty + floor) for size in PENALTIES]
    coefficients, error = min(tried, key=lambda one: one[1])
    return error, coefficients
