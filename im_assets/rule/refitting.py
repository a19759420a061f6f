"""The whole of the rule's fitting, its shape chosen too, on many weighted versions of one study.

Of a rule that can only be a line, all versions are searched side by side (see choosing); other
shapes are fitted one version after the other.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from im_assets.common.tracking import tracked
from im_assets.rule.choosing import Points, left_out, selections, weighted_fits
from im_assets.rule.shapes.comparing import compare, fit_shape
from im_assets.rule.shapes.sample import Fit, Sample, fold_ranks
from im_resources.study import RuleSettings, Shape


@dataclass(frozen=True)
class Refitted:
    """The rules of some versions.

    Attributes:
        predicted: the target of every mixture by each version's rule (versions, mixtures).
        masks: which indicators each reads, bool (versions, indicators).
        slopes: of each, 0 where an indicator is not in or has a curve (versions, indicators).
        shapes: what each became (versions,).
    """

    predicted: np.ndarray
    masks: np.ndarray
    slopes: np.ndarray
    shapes: tuple[Shape, ...]

    @property
    def sloped(self) -> np.ndarray:
        """Whether the version's rule ranks anything, bool (versions,). Of a line, what was chosen
        and does not vary in the version has no slope."""
        straight = np.array([shape == "line" for shape in self.shapes])
        return np.where(straight, (self.slopes != 0).any(axis=1), self.masks.any(axis=1))


def lines_only(settings: RuleSettings) -> bool:
    """Whether the rule can only be the line, chosen by subsets or stepwise."""
    return settings.shapes == ("line",)


def whole(mixtures: Points) -> Sample:
    """The study as it is."""
    ones = np.ones(len(mixtures), dtype=int)
    return Sample(mixtures.x, mixtures.y, ones, fold_ranks(mixtures.seeds))


def versions_of(
    mixtures: Points, weights: np.ndarray, y: np.ndarray | None = None
) -> Iterator[Sample]:
    """The sample of each version; ``weights`` and ``y`` as `choosing.selections` has them."""
    study, count = whole(mixtures), max(len(weights), 1 if y is None else len(y))
    for version in tracked(range(count), "fitting shapes", "versions of the points"):
        counts = weights[version % len(weights)].astype(int)
        target = mixtures.y if y is None else y[version % len(y)]
        kept = counts > 0
        yield Sample(study.x[kept], target[kept], counts[kept], study.ranks[kept])


def refitted(mixtures: Points, weights: np.ndarray, settings: RuleSettings) -> Refitted:
    """The rule chosen and fitted anew on each version (a row of ``weights``)."""
    if lines_only(settings):
        masks = selections(mixtures, weights, settings)
        constants, slopes = weighted_fits(mixtures, weights, masks)
        predicted = constants[:, None] + slopes @ mixtures.x.T
        return Refitted(predicted, masks, slopes, settings.shapes * len(weights))
    found = [chosen_fit(sample, settings) for sample in versions_of(mixtures, weights)]
    return Refitted(
        np.array([fit.predict(mixtures.x) for _, fit in found]),
        np.array([fit.mask for _, fit in found]),
        np.array([fit.slopes for _, fit in found]),
        tuple(shape for shape, _ in found),
    )


def chosen_fit(sample: Sample, settings: RuleSettings) -> tuple[Shape, Fit]:
    """The shape that the settings choose on a sample, fitted to it."""
    if len(settings.shapes) == 1:
        return settings.shapes[0], fit_shape(settings.shapes[0], sample, settings)
    found = compare(sample, settings)
    return found.chosen, found.fit


def without_each(mixtures: Points, settings: RuleSettings) -> tuple[np.ndarray, np.ndarray]:
    """Each mixture predicted by a rule that was chosen and fitted on the others: predictions
    (mixtures,), and whether that rule has a slope (mixtures,)."""
    if lines_only(settings):
        return left_out(mixtures, settings)
    found = refitted(mixtures, 1 - np.eye(len(mixtures), dtype=int), settings)
    return np.diag(found.predicted), found.sloped
