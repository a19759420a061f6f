"""The decisions of a rule and of its rivals, on the points that the rule was fitted on.

The rivals are what one would use without the rule: each indicator alone, and the paper's rules
where their indicators are there. All that is fitted predicts trials left out.
"""

import numpy as np
import pandas as pd

from im_assets.evidence.decision_kinds import (
    DecisionAccuracy,
    DecisionAccuracyBeyondNoise,
    Optimism,
    Regret,
)
from im_assets.evidence.decisions import (
    Noise,
    Predictor,
    alone,
    decision_accuracy,
    optimism,
    ranked,
    regret,
    repeated_noise,
)
from im_assets.evidence.findings import Finding
from im_assets.rule.choosing import Points
from im_assets.rule.model import Rule
from im_assets.rule.published import published_rule
from im_assets.rule.refitting import without_each
from im_assets.rule.target import PAPER
from im_resources.study import RuleSettings


def decision_findings(
    mixtures: Points, table: pd.DataFrame, rule: Rule, settings: RuleSettings, noise: Noise
) -> list[Finding]:
    """Sections ``decision_accuracy`` (x: pairs), ``decision_accuracy_beyond_noise``, ``regret`` and
    ``optimism``, each with one item a predictor: ``rule``, an indicator, or a published rule.

    Args:
        table: the points, as `rule` was fitted on them.
    """
    sign, confidence = rule.predicts.sign, settings.confidence
    actual = sign * mixtures.y
    predictors = [
        of_rule(mixtures, table, rule, settings),
        *(
            alone(mixtures, name, sign, settings)
            for name, column in zip(mixtures.names, mixtures.x.T, strict=True)
            if np.ptp(column) > 0
        ),
        *_published(mixtures, table, rule),
    ]
    found: dict[str, list[Finding]] = {"all": [], "beyond": [], "regret": [], "optimism": []}
    for one in predictors:
        share = decision_accuracy(one.predicted, actual, confidence)
        found["all"].append(
            DecisionAccuracy(
                item=one.name,
                by=one.kind,
                x=share.pairs,
                value=share.value,
                low=share.low,
                high=share.high,
            )
        )
        share = decision_accuracy(one.predicted, actual, confidence, noise.difference)
        found["beyond"].append(
            DecisionAccuracyBeyondNoise(
                item=one.name, by=one.kind, noise=noise, x=share.pairs, value=share.value,
                low=share.low, high=share.high,
            )
        )  # fmt: skip
        lost = regret(one.predicted, actual, confidence)
        found["regret"].append(
            Regret(
                item=one.name,
                by=one.kind,
                noise=noise,
                value=lost.value,
                low=lost.low,
                high=lost.high,
            )
        )
        if one.left_out is not None and one.fitted is not None:
            gap = optimism(one.left_out, one.fitted, confidence)
            found["optimism"].append(
                Optimism(item=one.name, by=one.kind, value=gap.value, low=gap.low, high=gap.high)
            )
    return [finding for findings in found.values() for finding in findings]


def noise_of(table: pd.DataFrame, y: np.ndarray, stand_in: float | None) -> Noise:
    """The noise of the points: of sets that were finetuned several times, where there are enough;
    else ``stand_in``, the error of predictions of trials left out."""
    if "set_id" in table:
        measured = repeated_noise(table["set_id"].astype(str).to_numpy(), y)
        if measured is not None:
            return Noise(measured, True)
    return Noise(float(np.std(y)) if stand_in is None else stand_in, False)


def of_rule(mixtures: Points, table: pd.DataFrame, rule: Rule, settings: RuleSettings) -> Predictor:
    """The rule, by its predictions of mixtures left out; one without indicators ranks nothing."""
    without, sloped = without_each(mixtures, settings)
    sloped = sloped & bool(rule.indicators)
    return Predictor(
        "rule",
        "rule",
        ranked(without, sloped, mixtures.y, rule.predicts.sign),
        mixtures.y - without,
        mixtures.y - rule.predict_points(table),
    )


def _published(mixtures: Points, table: pd.DataFrame, rule: Rule) -> list[Predictor]:
    # They read indicators as they are, and of a set on another scale nobody knows these.
    if rule.predicts != PAPER or rule.transform != "none":
        return []
    rules = (published_rule("published_v1"), published_rule("published_v2"))
    return [
        Predictor(r.source, "published", r.predict_points(table))
        for r in rules
        if set(r.indicators) <= set(mixtures.names)
    ]
