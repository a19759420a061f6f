"""How the rule ranks mixtures that it was not fitted on: other sources, and fewer mixtures.

Indicators are chosen anew on the mixtures that each fit may see.
"""

from collections.abc import Mapping

import numpy as np

from im_assets.common.correlation import correlation
from im_assets.common.tracking import tracked
from im_assets.evidence.findings import Finding, generator, interval
from im_assets.evidence.kinds import (
    FEWEST,
    WORTH,
    CurvePoint,
    CurveVerdict,
    LeftOut,
    SourceLeftOut,
)
from im_assets.evidence.more_mixtures import Gain, expected_gain
from im_assets.rule.choosing import Points
from im_assets.rule.refitting import lines_only, refitted
from im_resources.study import RuleSettings

SPLITS = 60
SIZES = 7


def leave_one_group_out(
    mixtures: Points,
    group_of: Mapping[str, str],
    settings: RuleSettings,
    kind: type[LeftOut] = SourceLeftOut,
) -> list[Finding]:
    """The section of ``kind``: value Spearman, x mixtures, one item a group and ``all``.

    The mixtures of a group are predicted by a rule fitted on the others. Mixtures of the same
    sources, and points of the same experiment, are near to each other, so leaving one mixture out
    leaves its likes in.

    Args:
        group_of: the group of each seed, e.g. the largest source of its mixture.
    """
    groups = np.array([group_of[seed] for seed in mixtures.seeds])
    predicted, sloped = np.full(len(mixtures), np.nan), np.zeros(len(mixtures), dtype=bool)
    found: list[Finding] = []
    for group in sorted(set(group_of.values())):
        out = groups == group
        count = int(out.sum())
        if count and (~out).sum() >= FEWEST:
            weights = (~out).astype(int)[None]
            of_others = refitted(mixtures, weights, settings)
            predicted[out], sloped[out] = of_others.predicted[0, out], of_others.sloped[0]
        if count < FEWEST or np.isnan(predicted[out]).any():
            found.append(kind(item=group, x=count, few=True))
        elif not sloped[out].all():
            found.append(kind(item=group, x=count, sloped=False))
        else:
            r = correlation(predicted[out], mixtures.y[out], "spearman", seed=3)
            found.append(kind(item=group, x=count, value=r.value, low=r.low, high=r.high))
    known = np.isfinite(predicted)
    count = int(known.sum())
    if count < FEWEST:
        return [*found, kind(item="all", x=count, few=True)]
    ranked = np.where(sloped, predicted, mixtures.y.mean())[known]  # no slope: one tie
    r = correlation(ranked, mixtures.y[known], "spearman", seed=3)
    return [*found, kind(item="all", x=count, value=r.value, low=r.low, high=r.high)]


def splits(rows: int) -> tuple[np.ndarray, list[int]]:
    """Random orders of the mixtures, shape (SPLITS, rows), and the sizes fitted on.

    A split's last quarter, at least four, is its test set, whatever the size; the first so many are
    fitted on. No size is there when too few mixtures are.
    """
    orders = generator(4).permuted(np.tile(np.arange(rows), (SPLITS, 1)), axis=1)
    largest = rows - max(FEWEST, rows // 4)
    smallest = max(6, rows // 8)
    if largest < smallest + 2:
        return orders, []
    return orders, sorted({round(s) for s in np.linspace(smallest, largest, SIZES)})


def split_spearman(
    mixtures: Points, fitted_on: np.ndarray, tests: np.ndarray, settings: RuleSettings
) -> np.ndarray:
    """Spearman on each split's test set; 0 where the rule has no slope, since it ranks nothing.

    ``fitted_on`` are weights (splits, mixtures), ``tests`` places (splits, test mixtures).
    """
    predicted = refitted(mixtures, fitted_on, settings).predicted
    return row_spearman(mixtures.y[tests], np.take_along_axis(predicted, tests, axis=1))


def row_spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman of each row of ``a`` and ``b`` (rows, points), 0 where one is constant: who gives
    all the same value ranks nothing."""
    from scipy.stats import rankdata

    a, b = (r - r.mean(axis=1, keepdims=True) for r in (rankdata(a, axis=1), rankdata(b, axis=1)))
    norm = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.divide((a * b).sum(axis=1), norm, out=np.zeros(len(a)), where=norm > 0)


def learning_curve(mixtures: Points, settings: RuleSettings) -> list[Finding]:
    """Section ``learning_curve``: x mixtures fitted on, value mean Spearman on others over random
    splits, low and high the spread over them; the item ``verdict`` answers whether more would help.
    """
    n = len(mixtures)
    orders, sizes = splits(n)
    if not sizes:
        return [CurveVerdict(mixtures=n)]
    tests = orders[:, sizes[-1] :]
    unseen, confidence = tests.shape[1], settings.confidence
    curves = np.empty((SPLITS, len(sizes)))
    for i, size in enumerate(tracked(sizes, "learning curve", "sizes")):
        weights = np.zeros((SPLITS, n), dtype=int)
        np.put_along_axis(weights, orders[:, :size], 1, axis=1)
        curves[:, i] = split_spearman(mixtures, weights, tests, settings)
    found: list[Finding] = []
    for size, curve in zip(sizes, curves.T, strict=True):
        low, high = interval(curve, confidence)
        found.append(
            CurvePoint(
                x=size,
                value=curve.mean(),
                low=low,
                high=high,
                splits=SPLITS,
                unseen=unseen,
                confidence=confidence,
            )
        )
    # Its studies are simulated with straight lines: of a rule that bends nobody knows.
    gain = expected_gain(mixtures, settings) if lines_only(settings) else None
    return [*found, verdict(curves[:, -1], sizes[-1], unseen, n, confidence, gain)]


def verdict(
    last: np.ndarray,
    fitted_on: int,
    unseen: int,
    mixtures: int,
    confidence: float,
    gain: Gain | None,
) -> CurveVerdict:
    """What twice as many mixtures would add to Spearman (`more_mixtures`), and what that says.

    Args:
        last: Spearman of each split at the curve's last point, ``fitted_on`` mixtures.
        gain: None where it cannot be told.
    """
    rho, rho_low, rho_high = corrected_mean(last, unseen / fitted_on, confidence)
    return CurveVerdict(
        x=2 * mixtures,
        value=None if gain is None else gain.value,
        low=None if gain is None else gain.low,
        high=None if gain is None else gain.high,
        worth=0.0 if gain is None else float(np.mean(gain.models >= WORTH)),
        mixtures=mixtures,
        fitted_on=fitted_on,
        spearman=rho,
        spearman_low=rho_low,
        spearman_high=min(rho_high, 1.0),
    )


def corrected_mean(
    values: np.ndarray, ratio: float, confidence: float
) -> tuple[float, float, float]:
    """Mean over splits and its interval.

    Splits share their mixtures, so that their mean's variance does not fall with their number: it
    is (1/splits + ratio) times the splits' variance, with ``ratio`` unseen mixtures / others
    (Nadeau and Bengio 2003, doi:10.1023/A:1024068626366). Of 95 % intervals of the Spearman in
    simulated studies 92 to 97 % hold its mean.
    """
    from scipy.stats import t

    half = np.sqrt((1 / len(values) + ratio) * values.var(ddof=1))
    half *= t.ppf((1 + confidence) / 2, len(values) - 1)
    mean = float(values.mean())
    return mean, mean - float(half), mean + float(half)
