"""Which shape: by nested cross-validated error, and the one-standard-error rule.

Every shape finds what it is free in (indicators, penalties, rounds) inside of each fold's training
sets. Of several shapes the simplest is taken whose error is within one standard error of the least
(Breiman et al. 1984, *Classification and Regression Trees*, 3.4.3), that of the difference, since
all are judged on the same sets. So the rule stays a line unless another wins beyond noise.
"""

from dataclasses import dataclass
from typing import get_args

import numpy as np

from im_assets.rule.choosing import Points, selections, weighted_fits
from im_assets.rule.regression import is_constant
from im_assets.rule.shapes.additive import fit_additive
from im_assets.rule.shapes.boosting import fit_boosting
from im_assets.rule.shapes.regularized import fit_elastic_net, fit_ridge
from im_assets.rule.shapes.sample import Fit, Sample
from im_assets.rule.stepwise import indicator_limit
from im_assets.rule.subsets import TIE
from im_resources.study import RuleSettings, Shape

SIMPLEST_FIRST: tuple[Shape, ...] = get_args(Shape)


@dataclass(frozen=True)
class Compared:
    """The shapes on folds left out.

    Attributes:
        shapes: simplest first.
        errors: squared error of each shape on each set, left out with its fold (shapes, sets).
        mean: the same of the other folds' mean (sets,).
        counts: how often each set is there (sets,).
        chosen: the shape that is taken.
        fit: that shape fitted to all sets.
    """

    shapes: tuple[Shape, ...]
    errors: np.ndarray
    mean: np.ndarray
    counts: np.ndarray
    chosen: Shape
    fit: Fit

    @property
    def r2_left_out(self) -> float:
        """1 less the chosen shape's error as a share of the mean's, on folds left out; 0 where the
        fit has no slope: it is the mean."""
        if not self.fit.mask.any():
            return 0.0
        error = self.errors[self.shapes.index(self.chosen)]
        total = float(self.counts @ self.mean)
        return 1 - float(self.counts @ error) / total if total > 0 else 0.0

    def less_than(self, other: Shape, shape: Shape) -> tuple[float, float]:
        """Mean squared error of ``other`` less that of ``shape``, and its standard error."""
        return _difference(self.errors, self.counts, *map(self.shapes.index, (other, shape)))


def fit_shape(shape: Shape, sample: Sample, settings: RuleSettings) -> Fit:
    """One shape, fitted to a sample; what it is free in is found there too.

    Of a target that is the same throughout it is the mean: there is nothing to fit but rounding,
    which a shape would fit without an error.
    """
    if is_constant(sample.y):
        return Fit(float(sample.y[0]), np.zeros(sample.x.shape[1]))
    limit = indicator_limit(int(sample.counts.sum()), settings.max_indicators)
    if shape == "line":
        return _line(sample, settings)
    if shape == "ridge":
        return fit_ridge(sample)
    if shape == "elastic_net":
        return fit_elastic_net(sample)
    if shape == "additive":
        return fit_additive(sample, limit)
    return fit_boosting(sample)


def compare(sample: Sample, settings: RuleSettings) -> Compared:
    """The shapes of the settings on folds left out, and the one that is taken, fitted to all."""
    shapes = tuple(shape for shape in SIMPLEST_FIRST if shape in settings.shapes)
    errors, mean = np.empty((len(shapes), len(sample))), np.empty(len(sample))
    folds = sample.folds
    for fold in np.unique(folds):
        out = folds == fold
        others = sample.take(~out)
        for place, shape in enumerate(shapes):
            predicted = fit_shape(shape, others, settings).predict(sample.x[out])
            errors[place, out] = (sample.y[out] - predicted) ** 2
        mean[out] = (sample.y[out] - np.average(others.y, weights=others.counts)) ** 2
    chosen = shapes[_simplest(errors, sample.counts)]
    return Compared(
        shapes, errors, mean, sample.counts, chosen, fit_shape(chosen, sample, settings)
    )


def _simplest(errors: np.ndarray, counts: np.ndarray) -> int:
    """The first shape whose error is within one standard error of the least."""
    best = int(np.argmin(errors @ counts))
    for place in range(best):
        more, error = _difference(errors, counts, place, best)
        # Fits that are alike, as both may be the mean, differ by rounding.
        if more <= error + TIE * float(np.average(errors[best], weights=counts)):
            return place
    return best


def _difference(
    errors: np.ndarray, counts: np.ndarray, first: int, second: int
) -> tuple[float, float]:
    apart = errors[first] - errors[second]
    mean = float(np.average(apart, weights=counts))
    spread = float(np.average((apart - mean) ** 2, weights=counts))
    return mean, float(np.sqrt(spread / max(len(apart) - 1, 1)))


def _line(sample: Sample, settings: RuleSettings) -> Fit:
    """Least squares on the indicators that the settings choose."""
    names = tuple(map(str, range(sample.x.shape[1])))
    sets = Points(tuple(map(str, range(len(sample)))), names, sample.x, sample.y)
    weights = sample.counts[None]
    constants, slopes = weighted_fits(sets, weights, selections(sets, weights, settings))
    return Fit(float(constants[0]), slopes[0])
