"""Regularised lines: all indicators stay, and their slopes are shrunk."""

import warnings

import numpy as np

from im_assets.rule.shapes.sample import Fit, Sample, on_own_scale, standardized

PENALTIES = np.logspace(-3, 3, 25)  # of ridge, times the number of sets
RATIOS = (0.2, 0.6, 1.0)  # of the elastic net: the share of the absolute penalty
STEPS = 20


def fit_ridge(sample: Sample) -> Fit:
    """Ridge regression (Hoerl and Kennard 1970, doi:10.1080/00401706.1970.10488634), its penalty by
    the error of leaving a set out with all its copies."""
    z, centre, spread = standardized(sample)
    level = float(np.average(sample.y, weights=sample.counts))
    root = np.sqrt(sample.counts.astype(float))
    u, s, vt = np.linalg.svd(root[:, None] * z, full_matrices=False)
    target = root * (sample.y - level)
    constant = root**2 / sample.counts.sum()
    best: tuple[float, np.ndarray] = (np.inf, np.zeros(z.shape[1]))
    for penalty in PENALTIES * sample.counts.sum():
        shrunk = s**2 / (s**2 + penalty)
        left = target - u @ (shrunk * (u.T @ target))
        leverage = constant + (u**2) @ shrunk
        error = float(np.sum((left / np.maximum(1 - leverage, 1e-9)) ** 2))
        if error < best[0] * (1 - 1e-9):
            best = error, vt.T @ ((s / (s**2 + penalty)) * (u.T @ target))
    return on_own_scale(best[1], centre, spread, level)


def fit_elastic_net(sample: Sample) -> Fit:
    """The elastic net (Zou and Hastie 2005, doi:10.1111/j.1467-9868.2005.00503.x) of scikit-learn,
    penalty and ratio by cross-validation over the sample's folds."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import ElasticNetCV

    z, centre, spread = standardized(sample)
    rows, level = sample.repeated, float(np.average(sample.y, weights=sample.counts))
    folds, target = sample.folds[rows], sample.y[rows] - level
    if not np.isfinite(spread).any() or np.ptp(target) == 0 or len(np.unique(folds)) < 2:
        return Fit(level, np.zeros(z.shape[1]))
    splits = [(np.flatnonzero(folds != f), np.flatnonzero(folds == f)) for f in np.unique(folds)]
    model = ElasticNetCV(l1_ratio=RATIOS, alphas=STEPS, cv=splits, max_iter=10_000)
    with warnings.catch_warnings():
        # At the least penalties, which hardly ever win, the last digits would take long.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(z[rows], target)
    return on_own_scale(model.coef_, centre, spread, level + float(model.intercept_))
