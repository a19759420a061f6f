"""The measured sets as a shape is fitted to them, and what a fit is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from im_assets.common.digests import digest
from im_assets.rule.regression import EXACT

FOLDS = 5


@dataclass(frozen=True)
class Bend:
    """A curve of one indicator, by its value at some points.

    Between two points of ``at`` (ascending) it is the straight line, beyond the outermost level. Of
    ``steps``, ``value`` has one more than ``at``: it is constant up to and with each point.
    """

    at: np.ndarray
    value: np.ndarray
    steps: bool = False

    def of(self, x: np.ndarray) -> np.ndarray:
        """The curve at ``x``, float64 of the same shape."""
        if self.steps:
            return np.asarray(self.value[np.searchsorted(self.at, x, side="left")])
        return np.interp(x, self.at, self.value)


@dataclass(frozen=True)
class Fit:
    """A fitted shape: a constant, slopes (indicators,), and the curves by the indicator's place."""

    constant: float
    slopes: np.ndarray
    bends: Mapping[int, Bend] = field(default_factory=dict)

    @property
    def mask(self) -> np.ndarray:
        """Which indicators change the prediction, bool (indicators,)."""
        found = self.slopes != 0
        for place, bend in self.bends.items():
            found[place] |= bool(np.ptp(bend.value) > 0)
        return np.asarray(found)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """The target of sets with the indicators ``x`` (sets, indicators), shape (sets,)."""
        predicted = self.constant + x @ self.slopes
        for place, bend in self.bends.items():
            predicted = predicted + bend.of(x[:, place])
        return np.asarray(predicted)

    def r2(self, x: np.ndarray, y: np.ndarray) -> float:
        """R2 on the sets that it was fitted to; 0 where it is the mean."""
        if not self.mask.any():
            return 0.0
        total, left = y - y.mean(), y - self.predict(x)
        return float(1 - (left @ left) / (total @ total))


@dataclass(frozen=True)
class Sample:
    """Sets with their measured target, of which some count several times.

    Attributes:
        x: indicators (sets, indicators).
        y: the target (sets,).
        counts: how often each is there, whole and at least 1 (sets,).
        ranks: a number of each set that no row order changes (sets,): what folds are cut by.
    """

    x: np.ndarray
    y: np.ndarray
    counts: np.ndarray
    ranks: np.ndarray

    def __len__(self) -> int:
        return len(self.y)

    @property
    def folds(self) -> np.ndarray:
        """The fold of each set, equal copies in one, shape (sets,); at most ``FOLDS``."""
        places = np.empty(len(self), dtype=int)
        places[np.argsort(self.ranks, kind="stable")] = np.arange(len(self))
        return places % FOLDS

    def take(self, rows: np.ndarray) -> "Sample":
        """The sample of some of its sets."""
        return Sample(self.x[rows], self.y[rows], self.counts[rows], self.ranks[rows])

    @property
    def repeated(self) -> np.ndarray:
        """The place of each set as often as it is there, (sum of counts,)."""
        return np.repeat(np.arange(len(self)), self.counts)


def fold_ranks(seeds: Sequence[str]) -> np.ndarray:
    """A number for each set by its name, whatever the order of the rows (sets,)."""
    return np.array([int(digest(0, f"fold:{seed}")[:13], 16) for seed in seeds], dtype=float)


def standardized(sample: Sample) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The indicators with mean 0 and variance 1 over the sample [sets, indicators], and their means
    and spreads; an indicator that does not vary is 0 throughout, its spread infinite."""
    centre = np.average(sample.x, axis=0, weights=sample.counts)
    spread = np.sqrt(np.average((sample.x - centre) ** 2, axis=0, weights=sample.counts))
    size = np.abs(sample.x).max(axis=0)
    spread = np.where(spread > EXACT * size, spread, np.inf)
    return (sample.x - centre) / spread, centre, spread


def on_own_scale(z_slopes: np.ndarray, centre: np.ndarray, spread: np.ndarray, level: float) -> Fit:
    """The fit whose slopes are for standardised indicators, for the indicators as they are."""
    slopes = z_slopes / spread
    return Fit(float(level - centre @ slopes), slopes)
