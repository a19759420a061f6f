"""Decisions against cases by hand, and their intervals against simulated truth."""

import numpy as np
import pytest
from scipy.stats import binom

from im_assets.evidence.deciding import decision_findings, noise_of
from im_assets.evidence.decision_kinds import DecisionAccuracy, Regret
from im_assets.evidence.decisions import (
    Noise,
    against_goal,
    decision_accuracy,
    optimism,
    ranked,
    regret,
    repeated_noise,
)
from im_assets.rule.choosing import Points, left_out, selections, weighted_fits
from im_assets.rule.fitting import fit_rule, rank_interval
from im_resources.study import RuleSettings
from tests.rule.data import random_study

SETTINGS = RuleSettings()


def number(value: float | None) -> float:
    assert value is not None
    return value


def test_pairs_are_counted_as_by_hand() -> None:
    actual = np.array([1.0, 2.0, 3.0, 4.0])
    # Of the six pairs only (2, 3) is turned round.
    found = decision_accuracy(np.array([1.0, 3.0, 2.0, 4.0]), actual, 0.95)
    assert (found.value, found.pairs) == (5 / 6, 6)
    assert 0 <= number(found.low) < 5 / 6 < number(found.high) <= 1
    # Predicted equal is half a hit; measured equal is no pair.
    assert decision_accuracy(np.array([1.0, 2.0, 2.0, 4.0]), actual, 0.95).value == 5.5 / 6
    tied = decision_accuracy(np.arange(4.0), np.array([1.0, 1.0, 2.0, 3.0]), 0.95)
    assert (tied.value, tied.pairs) == (1, 5)
    # More than 1.5 apart: (1, 3), (1, 4), (2, 4), all right.
    far = decision_accuracy(np.array([1.0, 3.0, 2.0, 4.0]), actual, 0.95, 1.5)
    assert (far.value, far.pairs) == (1, 3)
    assert decision_accuracy(np.zeros(4), actual, 0.95).value == 0.5
    assert decision_accuracy(actual[:3], actual[:3], 0.95).value is None


def test_few_trials_in_perfect_order_reach_no_goal() -> None:
    found = decision_accuracy(np.arange(6.0), np.arange(6.0), 0.95)
    assert found.value == 1
    assert number(found.low) < 0.5
    assert DecisionAccuracy(item="rule", by="rule", low=found.low, high=1.0).verdict == "open"
    many = decision_accuracy(np.arange(60.0), np.arange(60.0), 0.95)
    assert DecisionAccuracy(item="rule", by="rule", low=many.low, high=1.0).verdict == "reached"


def test_regret_and_optimism_are_as_by_hand() -> None:
    actual = np.array([0.5, 0.2, 0.9, 0.4])
    assert regret(np.array([1.0, 3.0, 2.0, 4.0]), actual, 0.95).value == pytest.approx(0.3)
    assert regret(np.array([1.0, 0.0, 2.0, 4.0]), actual, 0.95).value == 0
    assert regret(np.array([1.0, 3.0, 2.0, 1.0]), actual, 0.95).value == pytest.approx(0.25)
    gap = optimism(np.array([2.0, -2, 2, -2]), np.array([1.0, -1, 1, -1]), 0.95)
    assert (gap.value, gap.low, gap.high) == (1, 1, 1)


def test_noise_is_that_of_sets_finetuned_several_times() -> None:
    sets = np.array(["a", "a", "b", "b", "b", "c", "d", "d", "d"])
    values = np.array([1.0, 3.0, 5.0, 5.0, 8.0, 9.0, 1.0, 2.0, 3.0])
    # Squares 2 + 6 + 2 of 1 + 2 + 2 degrees of freedom.
    assert repeated_noise(sets, values) == pytest.approx(np.sqrt(10 / 5))
    assert repeated_noise(sets[:5], values[:5]) is None
    table = random_study()
    assert noise_of(table, table["log_loss"].to_numpy(), 0.3) == Noise(0.3, False)


def test_a_stand_in_for_the_noise_can_be_missed_but_not_reached() -> None:
    def said(noise: Noise, low: float, high: float) -> Regret:
        return Regret(item="rule", by="rule", value=0.05, low=low, high=high, noise=noise)

    assert said(Noise(0.2, True), 0.0, 0.1).verdict == "reached"
    unknown = said(Noise(0.2, False), 0.0, 0.1)
    assert unknown.verdict == "open"
    assert unknown.noise_sds == pytest.approx(0.25)
    assert "stands in" in unknown.note
    assert said(Noise(0.2, False), 0.3, 0.5).verdict == "missed"
    assert against_goal(0.7, 0.9, 0.8, above=True) == "open"
    assert against_goal(None, None, 0.8, above=True) == "open"


def test_rivals_stand_beside_the_rule() -> None:
    table = random_study(rows=40, slopes=(0.5, -0.3, 0.0), noise=0.2)
    names = ["reward", "len_out", "knn_6"]
    table = table.rename(columns=dict(zip(["x0", "x1", "x2"], names, strict=True)))
    rule = fit_rule(table, names, SETTINGS)
    mixtures = Points.of(table, names)
    found = decision_findings(mixtures, table, rule, SETTINGS, Noise(0.2, True))
    rows = {f.item: f for f in found if f.section == "decision_accuracy"}
    assert list(rows) == ["rule", *names, "published_v1"]
    predicted = np.array([rule.loo_predictions[s] for s in mixtures.seeds])
    by_hand = decision_accuracy(predicted, mixtures.y, 0.95)
    assert rows["rule"].value == pytest.approx(by_hand.value)
    assert number(rows["rule"].value) > number(rows["reward"].value) > number(rows["knn_6"].value)
    gaps = {f.item: f for f in found if f.section == "optimism"}
    fitted = table["log_loss"] - rule.predict_points(table)
    expected = number(rule.loo_rmse) - float(np.sqrt(np.mean(fitted**2)))
    assert gaps["rule"].value == pytest.approx(expected)
    assert "published_v1" not in gaps  # nothing of it is fitted here
    # Where higher is better, the same data decide the same.
    up = table.assign(log_loss=-table["log_loss"])
    turned = fit_rule(up, names, SETTINGS).model_copy(update={"direction": "higher"})
    again = decision_findings(Points.of(up, names), up, turned, SETTINGS, Noise(0.2, True))
    assert again[0].value == rows["rule"].value


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    # True numbers of the fitted rule with new mixtures, in closed form for normal variables.
    slopes, noise, rows, draws = np.array([1.0, -0.7, 0.4, 0.0]), 0.9, 24, 120
    rng = np.random.default_rng(0)
    inside = {"accuracy": 0, "spearman": 0, "false": 0}
    for _ in range(draws):
        x = rng.normal(size=(rows, 4))
        mixtures = Points(
            tuple(map(str, range(rows))),
            tuple("abcd"),
            x,
            x @ slopes + noise * rng.normal(size=rows),
        )
        whole = np.ones((1, rows), dtype=int)
        _, fitted = weighted_fits(mixtures, whole, selections(mixtures, whole, SETTINGS))
        size = np.linalg.norm(fitted[0]) * np.hypot(np.linalg.norm(slopes), noise)
        r = float(fitted[0] @ slopes / size)
        predicted, sloped = left_out(mixtures, SETTINGS)
        found = decision_accuracy(ranked(predicted, sloped, mixtures.y, 1), mixtures.y, 0.95)
        low, high = rank_interval(mixtures.y, predicted, sloped, 0.95)
        true = 0.5 + np.arcsin(r) / np.pi
        inside["accuracy"] += number(found.low) <= true <= number(found.high)
        inside["spearman"] += number(low) <= 6 / np.pi * np.arcsin(r / 2) <= number(high)
        goal = against_goal(found.low, found.high, true + 0.001, above=True)
        inside["false"] += goal == "reached"  # a goal that is just above the truth
    for what in ("accuracy", "spearman"):
        assert inside[what] >= binom.ppf(0.001, draws, 0.93), what
    assert inside["false"] <= binom.ppf(0.999, draws, 0.05)
