"""How the rule ranks mixtures that it was not fitted on: other sources, and fewer mixtures.

Indicators are chosen anew on the mixtures that each fit may see.
"""

from collections.abc import Mapping

import numpy as np

from im_assets.common.correlation import correlation
from im_assets.evidence.findings import Finding, generator, interval
from im_assets.rule.choosing import Mixtures, predictions, selections
from im_resources.study import RuleSettings

FEWEST = 4  # mixtures for a rank correlation, and for a fit
SPLITS = 60
SIZES = 7
WORTH = 0.05  # a gain in Spearman below this is not worth finetuning twice as many mixtures


def leave_one_source_out(
    mixtures: Mixtures, source_of: Mapping[str, str], settings: RuleSettings
) -> list[Finding]:
    """Section ``leave_one_source_out``: value Spearman, x mixtures, one item a source and ``all``.

    The mixtures that a source dominates are predicted by a rule fitted on the others. Mixtures of
    the same sources are near to each other, so leaving one mixture out leaves its likes in.
    """
    sources = np.array([source_of[seed] for seed in mixtures.seeds])
    predicted, sloped = np.full(len(mixtures), np.nan), np.zeros(len(mixtures), dtype=bool)
    found = []
    for source in sorted(set(source_of.values())):
        out = sources == source
        count = int(out.sum())
        if count and (~out).sum() >= FEWEST:
            weights = (~out).astype(int)[None]
            values, slope = predictions(mixtures, weights, selections(mixtures, weights, settings))
            predicted[out], sloped[out] = values[0, out], slope[0]
        note = f"{count} mixtures have most examples from it; "
        if count < FEWEST or np.isnan(predicted[out]).any():
            note += f"too few in or outside for a rank correlation ({FEWEST} are needed)"
            found.append(Finding("leave_one_source_out", source, count, note=note))
            continue
        note += (
            "ranked by a rule of the others"
            if sloped[out].all()
            else "the rule of the others has no indicator and ranks nothing"
        )
        r = correlation(predicted[out], mixtures.y[out], "spearman", seed=3)
        row = (r.value, r.low, r.high) if sloped[out].all() else (None, None, None)
        found.append(Finding("leave_one_source_out", source, count, *row, note))
    known = np.isfinite(predicted)
    count, note = int(known.sum()), "all of these predictions together"
    ranked = np.where(sloped, predicted, mixtures.y.mean())[known]  # no slope: one tie
    if count < FEWEST:
        return [*found, Finding("leave_one_source_out", "all", count, note="too few mixtures")]
    r = correlation(ranked, mixtures.y[known], "spearman", seed=3)
    return [
        *found, Finding("leave_one_source_out", "all", count, r.value, r.low, r.high, note)
    ]  # fmt: skip


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
    mixtures: Mixtures, fitted_on: np.ndarray, tests: np.ndarray, settings: RuleSettings
) -> np.ndarray:
    """Spearman on each split's test set; 0 where the rule has no slope, since it ranks nothing.

    ``fitted_on`` are weights (splits, mixtures), ``tests`` places (splits, test mixtures).
    """
    masks = selections(mixtures, fitted_on, settings)
    predicted, _ = predictions(mixtures, fitted_on, masks)
    return row_spearman(mixtures.y[tests], np.take_along_axis(predicted, tests, axis=1))


def row_spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Spearman of each row of ``a`` and ``b`` (rows, points), 0 where one is constant: who gives
    all the same value ranks nothing."""
    from scipy.stats import rankdata

    a, b = (r - r.mean(axis=1, keepdims=True) for r in (rankdata(a, axis=1), rankdata(b, axis=1)))
    norm = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.divide((a * b).sum(axis=1), norm, out=np.zeros(len(a)), where=norm > 0)


def learning_curve(mixtures: Mixtures, settings: RuleSettings) -> list[Finding]:
    """Section ``learning_curve``: x mixtures fitted on, value mean Spearman on others over random
    splits, low and high the spread over them; the item ``verdict`` answers whether more would help.
    """
    n = len(mixtures)
    orders, sizes = splits(n)
    if not sizes:
        note = f"Cannot tell: {n} mixtures are too few for a learning curve (12 are needed)."
        return [Finding("learning_curve", "verdict", note=note)]
    tests = orders[:, sizes[-1] :]
    curves = np.empty((SPLITS, len(sizes)))
    for i, size in enumerate(sizes):
        weights = np.zeros((SPLITS, n), dtype=int)
        np.put_along_axis(weights, orders[:, :size], 1, axis=1)
        curves[:, i] = split_spearman(mixtures, weights, tests, settings)
    note = f"mean and {settings.confidence:.0%} range over {SPLITS} splits, {tests.shape[1]} unseen"
    found = [
        Finding("learning_curve", "spearman", size, curve.mean(),
                *interval(curve, settings.confidence), note)
        for size, curve in zip(sizes, curves.T, strict=True)
    ]  # fmt: skip
    return [*found, verdict(curves, sizes, tests.shape[1], n, settings.confidence)]


def verdict(
    curves: np.ndarray, sizes: list[int], unseen: int, mixtures: int, confidence: float
) -> Finding:
    """What twice as many mixtures would add to Spearman, and what that says (Finding.note).

    Each split's curve (splits, sizes) is fitted by a - b/m; the gain from n to 2n is b/2n. Splits
    share their mixtures, so that their mean's variance does not fall with their number: it is
    (1/splits + unseen/fitted) times the splits' variance (Nadeau and Bengio 2003,
    doi:10.1023/A:1024068626366).
    """
    design = np.column_stack([np.ones(len(sizes)), -1 / np.array(sizes)])
    slope = np.linalg.lstsq(design, curves.T, rcond=None)[0][1]
    gain, gain_low, gain_high = corrected_mean(
        slope / (2 * mixtures), unseen / sizes[-1], confidence
    )
    rho, rho_low, rho_high = corrected_mean(curves[:, -1], unseen / sizes[-1], confidence)
    rho_high = min(rho_high, 1.0)
    if rho_low <= 0:
        answer = (
            "Cannot tell: these mixtures do not show that the rule ranks unseen ones at all, so "
            "the curve says nothing about more of them."
        )
    elif gain_high < WORTH:
        answer = f"No: twice as many mixtures would hardly rank better (by less than {WORTH})."
    elif gain_low > 0 and gain >= WORTH:
        answer = f"Yes: twice as many mixtures are expected to raise the Spearman by {gain:.2f}."
    else:
        answer = "Cannot tell: the curve is too uncertain to say what more mixtures would add."
    answer += (
        f" Spearman on unseen mixtures is {rho:.2f} ({rho_low:.2f} to {rho_high:.2f}) from "
        f"{sizes[-1]} mixtures; from {mixtures} to {2 * mixtures} a curve a - b/m gives a change "
        f"of {gain:+.2f} ({gain_low:+.2f} to {gain_high:+.2f})."
    )
    return Finding("learning_curve", "verdict", 2 * mixtures, gain, gain_low, gain_high, answer)


def corrected_mean(
    values: np.ndarray, ratio: float, confidence: float
) -> tuple[float, float, float]:
    """Mean over splits and its interval, corrected for what they share (see `verdict`).

    ``ratio`` is unseen mixtures / others, of a split.
    """
    from scipy.stats import t

    half = np.sqrt((1 / len(values) + ratio) * values.var(ddof=1))
    half *= t.ppf((1 + confidence) / 2, len(values) - 1)
    mean = float(values.mean())
    return mean, mean - float(half), mean + float(half)
