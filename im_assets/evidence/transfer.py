"""Proxy transfer: would a smaller base model's study have told the same about these mixtures?

If a rule fitted with a small model ranks the larger one's mixtures, finetunes of the small one can
stand in for most of the larger's (ranks of mixtures hold across model sizes in RegMix, Liu et al.
2024, arXiv 2407.01492).
"""

import numpy as np
import pandas as pd

from im_assets.common.correlation import correlation
from im_assets.common.numbers import numeric
from im_assets.rule.model import Rule
from im_assets.rule.target import plural
from im_assets.rule.transform import scale_of

COLUMNS = {
    "item": ("text", "What is compared"),
    "value": ("double", "Spearman; null: not defined"),
    "low": ("double", "Lower end of its bootstrap interval over mixtures"),
    "high": ("double", "Upper end"),
    "n": ("bigint", "Mixtures compared"),
    "note": ("text", "What it means"),
}
FEWEST = 4


def transfer(
    rule: Rule, small: pd.DataFrame, large: pd.DataFrame, confidence: float
) -> pd.DataFrame:
    """Rank agreement of a small model's study with a larger one's; columns as in COLUMNS.

    ``rule_on_larger_model``: the small study's rule, applied to the larger study's indicators,
    against what it measured. ``losses_on_common_sets`` (``<measure>_on_common_sets`` of a rule with
    another target): what both models came to on the same sets, which are known by their
    fingerprints.

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
    rows = [("rule_on_larger_model", *_agreement(predicted, actual, confidence), note)]
    both = small[["set_id", column]].merge(
        large[["set_id", column]], on="set_id", suffixes=("", "_l")
    )
    note = (
        f"{values} of both models on the same sets"
        if len(both)
        else "the studies drew different examples: no set is common to both"
    )
    pair = both[[column, f"{column}_l"]].to_numpy(dtype=float).T
    item = f"{'losses' if target.measure == 'loss' else target.measure}_on_common_sets"
    rows.append((item, *_agreement(pair[0], pair[1], confidence), note))
    frame = pd.DataFrame(rows, columns=list(COLUMNS))
    numbers = dict.fromkeys(("value", "low", "high"), "float64")
    return frame.astype({"item": "string", "n": "int64", "note": "string"} | numbers)


def _agreement(
    a: np.ndarray, b: np.ndarray, confidence: float
) -> tuple[float | None, float | None, float | None, int]:
    if len(a) < FEWEST:
        return None, None, None, len(a)
    found = correlation(a, b, "spearman", confidence=confidence, seed=5)
    return found.value, found.low, found.high, len(a)
