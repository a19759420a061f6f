"""Choosing indicators and fitting on many weighted versions of one study at a time.

Whatever tests a rule (leaving a mixture or a source out, a bootstrap resample, a shuffle, a smaller
study) chooses the indicators and fits anew on other rows of the same mixtures. Each such version is
a row of weights: 0 leaves a mixture out, 2 counts it twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd

from im_assets.common.numbers import numeric
from im_assets.common.tracking import tracked
from im_assets.rule.model import Step
from im_assets.rule.regression import COLLINEAR, EXACT, distinct_columns
from im_assets.rule.stepwise import Selected, indicator_limit, stepwise
from im_assets.rule.subsets import search_subsets
from im_assets.rule.target import PAPER
from im_resources.study import RuleSettings

_TARGET = "(target)"  # no name that an indicator could have


@dataclass(frozen=True)
class Points:
    """The measured sets as arrays: ``x`` (points, indicators), and ``y`` (points,), what is
    predicted: the log loss, or another target."""

    seeds: tuple[str, ...]
    names: tuple[str, ...]
    x: np.ndarray
    y: np.ndarray

    @classmethod
    def of(cls, table: pd.DataFrame, names: Sequence[str], target: str = PAPER.column) -> Self:
        """The rows of an indicator table, whose column ``target`` is predicted. Raises ValueError
        for repeated seeds, and for values that are missing or not finite."""
        seeds = keys_of(table)
        if not seeds.is_unique:
            raise ValueError(f"mixtures repeated: {', '.join(sorted(seeds[seeds.duplicated()]))}")
        return cls(
            tuple(seeds), tuple(names), numeric(table, names), numeric(table, [target])[:, 0]
        )

    def __len__(self) -> int:
        return len(self.y)

    def mask(self, chosen: Sequence[str]) -> np.ndarray:
        """Which indicators are among ``chosen``, bool, shape (indicators,)."""
        return np.isin(self.names, list(chosen))


def keys_of(table: pd.DataFrame) -> pd.Series:
    """The names of the points in an indicator table: their partitions, else the index."""
    keys = table["partition"] if "partition" in table else table.index.to_series()
    return keys.astype(str)


def choose(mixtures: Points, settings: RuleSettings) -> Selected:
    """The indicators that the settings choose on all mixtures, and how they were arrived at."""
    if settings.choose == "stepwise":
        return _stepwise(mixtures.names, mixtures.x, mixtures.y, settings)
    frame = pd.DataFrame(mixtures.x, columns=list(mixtures.names))
    columns, dropped = distinct_columns(frame, mixtures.names)
    x = frame[list(columns)].to_numpy()
    rows = len(mixtures)
    limit = indicator_limit(rows, settings.max_indicators)
    found = search_subsets(x, mixtures.y, np.ones((1, rows)), limit)
    names = list(columns)
    path = [Step.of_dropped(name, why) for name, why in dropped.items()]
    sizes = np.array([len(subset) for subset in found.subsets])
    for size in range(sizes.max() + 1):
        places = np.flatnonzero(sizes == size)
        best = places[np.argmin(found.press[0, places])]
        if not np.isfinite(found.press[0, best]):
            continue
        rss, total = found.residual[0, best], found.residual[0, 0]
        fit = np.log(2 * np.pi * rss / rows) + 1 if rss > 0 else -np.inf
        step = {
            "value": np.sqrt(found.press[0, best] / rows),
            "aic": rows * fit + 2 * (size + 1),
            "bic": rows * fit + np.log(rows) * (size + 1),
            "r2": 1 - rss / total if total > 0 else 0.0,
        }
        path.append(
            Step(
                step=size,
                action="best",
                indicator=", ".join(names[i] for i in found.subsets[best]) or None,
                note="leave-one-out RMSE of the best subset of this size",
                **{key: float(v) for key, v in step.items() if np.isfinite(v)},
            )
        )
    chosen = tuple(names[i] for i in found.subsets[found.best[0]])
    return Selected(chosen, tuple(path), dropped)


def selections(
    mixtures: Points, weights: np.ndarray, settings: RuleSettings, y: np.ndarray | None = None
) -> np.ndarray:
    """Which indicators are chosen on each weighted version, bool, shape (versions, indicators).

    Args:
        weights: whole numbers, shape (versions, mixtures), each row of the same sum; one row serves
            all of ``y``.
        y: other values of the target, shape (versions, mixtures), for all mixtures; default: the
            measured.
    """
    targets = mixtures.y[None] if y is None else y
    rows = weights.sum(axis=1)
    if (rows != rows[0]).any():
        raise ValueError("versions of different sizes have different limits: choose them apart")
    if settings.choose == "all_subsets":
        limit = indicator_limit(int(rows[0]), settings.max_indicators)
        return search_subsets(mixtures.x, targets, weights, limit).masks
    masks = []
    versions = range(max(len(targets), len(weights)))
    for version in tracked(versions, "choosing indicators", "versions of the points"):
        kept = np.repeat(np.arange(len(mixtures)), weights[version % len(weights)].astype(int))
        target = targets[version % len(targets)][kept]
        found = _stepwise(mixtures.names, mixtures.x[kept], target, settings)
        masks.append(mixtures.mask(found.chosen))
    return np.array(masks)


def weighted_fits(
    mixtures: Points, weights: np.ndarray, masks: np.ndarray, y: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Least squares of each version on its indicators: constants (versions,), and slopes
    (versions, indicators), 0 where an indicator is not in. ``y`` as in `selections`.

    An indicator that does not vary in a version gets no slope; dependent ones share theirs.
    """
    x = mixtures.x
    targets = np.broadcast_to(mixtures.y if y is None else y, (len(weights), len(mixtures)))
    slopes = np.zeros((len(weights), x.shape[1]))
    constants = np.empty(len(weights))
    for version, (weight, mask, y) in enumerate(zip(weights, masks, targets, strict=True)):
        root = np.sqrt(weight.astype(float))[:, None]
        centre, level = (
            np.average(x[:, mask], axis=0, weights=weight),
            np.average(y, weights=weight),
        )
        z = root * (x[:, mask] - centre)
        norm = np.linalg.norm(z, axis=0)
        varies = norm > EXACT * np.linalg.norm(root * x[:, mask], axis=0)
        scale = np.where(varies, norm, np.inf)
        fit = np.linalg.lstsq(z / scale, root[:, 0] * (y - level), rcond=COLLINEAR)[0] / scale
        slopes[version, mask] = fit
        constants[version] = level - centre @ fit
    return constants, slopes


def predictions(
    mixtures: Points, weights: np.ndarray, masks: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The target of every mixture as each version's rule predicts it, shape (versions, mixtures),
    and whether that rule has a slope, shape (versions,)."""
    constants, slopes = weighted_fits(mixtures, weights, masks)
    return constants[:, None] + slopes @ mixtures.x.T, (slopes != 0).any(axis=1)


def left_out(
    mixtures: Points, settings: RuleSettings, chosen: Sequence[str] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Each mixture predicted by a rule chosen and fitted on the others (or, with ``chosen``, fitted
    only): predictions (mixtures,), and whether the fold's rule has a slope (mixtures,)."""
    weights = 1 - np.eye(len(mixtures), dtype=int)
    if chosen is None:
        masks = selections(mixtures, weights, settings)
    else:
        masks = np.tile(mixtures.mask(chosen), (len(mixtures), 1))
    predicted, sloped = predictions(mixtures, weights, masks)
    return np.diag(predicted), sloped


def _stepwise(
    names: Sequence[str], x: np.ndarray, y: np.ndarray, settings: RuleSettings
) -> Selected:
    return stepwise(
        pd.DataFrame(x, columns=list(names)).assign(**{_TARGET: y}),
        _TARGET,
        names,
        criterion=settings.criterion,
        direction=settings.direction,
        p_enter=settings.p_enter,
        p_remove=settings.p_remove,
        max_indicators=settings.max_indicators,
    )
