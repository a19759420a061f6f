"""Proxy transfer: would a smaller base model's study have told the same about these mixtures?

If a rule fitted with a small model ranks the larger one's mixtures, finetunes of the small one can
stand in for most of the larger's (ranks of mixtures hold across model sizes in RegMix, Liu et al.
2024, arXiv 2407.01492).
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from im_assets.common.correlation import correlation
from im_assets.common.numbers import numeric
from im_assets.evidence.deciding import noise_of
from im_assets.evidence.decision_kinds import ACCURACY_GOAL
from im_assets.evidence.decisions import Noise, against_goal, decision_accuracy, regret
from im_assets.rule.model import Rule
from im_assets.rule.target import plural
from im_assets.rule.transform import scale_of

COLUMNS = {
    "item": ("text", "What is compared"),
    "measure": ("text", "spearman, decision_accuracy (all pairs, or beyond noise), or regret"),
    "value": ("double", "Its value; null: not defined"),
    "low": ("double", "Lower end of its bootstrap interval over mixtures"),
    "high": ("double", "Upper end"),
    "n": ("bigint", "Mixtures compared"),
    "goal": ("double", "What is aimed at"),
    "verdict": ("text", "reached, missed or open; null: no goal"),
    "note": ("text", "What it means"),
}
FEWEST = 4
Row = tuple[str, str, float | None, float | None, float | None, int, float | None, str | None, str]


def transfer(
    rule: Rule, small: pd.DataFrame, large: pd.DataFrame, confidence: float
) -> pd.DataFrame:
    """Rank agreement of a small model's study with a larger one's; columns as in COLUMNS.

    ``rule_on_larger_model``: the small study's rule, applied to the larger study's indicators,
    against what it measured. ``losses_on_common_sets`` (``<measure>_on_common_sets`` of a rule with
    another target): what both models came to on the same sets, which are known by their
    fingerprints. Of each its Spearman, and what it would have decided (`decisions`): the smaller
    model's side stands for the prediction.

    Args:
        rule: the small study's, which says what is compared.
        small, large: the studies' indicator tables (set_id, indicators, the rule's target).

    Raises ValueError when the larger study lacks an indicator of the rule or its target, has its
    points on another scale, or a table was written before sets had fingerprints.
    """
    if "set_id" not in small:
        raise ValueError("the smaller study's indicator_table has no set_id: materialize it again")
    if (scale := scale_of(large)) != rule.transform:
        raise ValueError(
            f"the smaller study's rule reads indicators on the scale {rule.transform}, and this "
            f"study's points are on {scale}: set rule.transform alike in both, and materialize "
            "indicator_table and quality_rule again"
        )
    target = rule.predicts
    column, values = target.column, plural(target.label)
    predicted, actual = rule.predict_points(large), numeric(large, [column])[:, 0]
    note = (
        f"the smaller model's rule against the larger one's measured {values}"
        if rule.indicators
        else "the smaller model's rule has no indicator and ranks nothing"
    )
    sign = target.sign
    rows = [
        *_rows("rule_on_larger_model", sign * predicted, sign * actual, large, confidence, note)
    ]
    both = small[["set_id", column]].merge(
        large[["set_id", column]], on="set_id", suffixes=("", "_l")
    )
    note = (
        f"{values} of both models on the same sets"
        if len(both)
        else "the studies drew different examples: no set is common to both"
    )
    pair = sign * both[[column, f"{column}_l"]].to_numpy(dtype=float).T
    item = f"{'losses' if target.measure == 'loss' else target.measure}_on_common_sets"
    rows += _rows(item, pair[0], pair[1], both, confidence, note)
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    numbers = dict.fromkeys(("value", "low", "high", "goal"), "float64")
    texts = dict.fromkeys(("item", "measure", "verdict", "note"), "string")
    return frame.astype({"n": "int64"} | texts | numbers)


def _rows(
    item: str,
    predicted: np.ndarray,
    actual: np.ndarray,
    sets: pd.DataFrame,
    confidence: float,
    note: str,
) -> Iterator[Row]:
    """The rows of one comparison of values (sets,), lower is better."""
    n = len(actual)
    yield item, "spearman", *_agreement(predicted, actual, confidence), None, None, note
    if n < FEWEST or np.ptp(predicted) == 0:
        return
    noise = noise_of(sets, actual, _line_error(predicted, actual))
    share = decision_accuracy(predicted, actual, confidence)
    verdict = against_goal(share.low, share.high, ACCURACY_GOAL, above=True)
    words = f"share of {share.pairs} pairs ordered alike"
    ends = share.value, share.low, share.high
    yield item, "decision_accuracy", *ends, n, ACCURACY_GOAL, verdict, words
    share = decision_accuracy(predicted, actual, confidence, noise.difference)
    ends = share.value, share.low, share.high
    words = f"of the {share.pairs} that differ by more than {noise.difference:.3g}, {_said(noise)}"
    yield item, "decision_accuracy_beyond_noise", *ends, n, None, None, words
    lost = regret(predicted, actual, confidence)
    found = against_goal(lost.low, lost.high, noise.sd, above=False)
    verdict = "open" if found == "reached" and not noise.measured else found
    words = f"of the set that the smaller model has best; the goal is {_said(noise)}"
    yield item, "regret", lost.value, lost.low, lost.high, n, noise.sd, verdict, words


def _line_error(x: np.ndarray, y: np.ndarray) -> float:
    """Root mean square of what a straight line through x leaves of y, with its freedom."""
    left = y - np.polynomial.Polynomial.fit(x, y, 1)(x)
    return float(np.sqrt(left @ left / (len(y) - 2)))


def _said(noise: Noise) -> str:
    if noise.measured:
        return "by the noise between finetunes of the same set"
    return "by what a straight line leaves, which is at least the noise"


def _agreement(
    a: np.ndarray, b: np.ndarray, confidence: float
) -> tuple[float | None, float | None, float | None, int]:
    if len(a) < FEWEST:
        return None, None, None, len(a)
    found = correlation(a, b, "spearman", confidence=confidence, seed=5)
    return found.value, found.low, found.high, len(a)
