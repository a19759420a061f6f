"""What is said of a rule on mixtures that it never saw is true, as often as it claims to be."""

from collections import Counter

import numpy as np
import pandas as pd
import pytest

from im_assets.rule.fitting import fit_rule
from im_assets.rule.holding import Verdict, holding
from im_assets.rule.model import Rule
from im_assets.rule.target import PAPER
from im_resources.study import RuleSettings

NAMES = ["a", "b", "c"]
SLOPES = np.array([0.5, 0.0, -0.3])
ROUNDS = 40


def points(
    count: int, rng: np.random.Generator, slopes: np.ndarray = SLOPES, shift: float = 0
) -> pd.DataFrame:
    values = rng.normal(size=(count, 3))
    log_loss = 1 + values @ slopes + shift + rng.normal(0, 0.4, count)
    return pd.DataFrame(values, columns=NAMES).assign(
        log_loss=log_loss,
        loss=np.exp(log_loss),
        partition=[f"seed-{i:03d}" for i in range(count)],
    )


def rule_on(table: pd.DataFrame) -> Rule:
    return fit_rule(table, NAMES, RuleSettings(), PAPER)


def verdicts(new: int, slopes: np.ndarray = SLOPES, shift: float = 0) -> Counter[Verdict]:
    rng = np.random.default_rng(7)
    found: Counter[Verdict] = Counter()
    for _ in range(ROUNDS):
        rule = rule_on(points(40, rng))
        found[holding(rule, points(new, rng, slopes, shift), 0.95).verdict] += 1
    return found


def test_of_a_rule_that_holds_it_is_rarely_said_that_it_fails() -> None:
    found = verdicts(16)
    assert found["holds"] > ROUNDS / 2
    assert found["fails"] <= ROUNDS / 10


def test_a_rule_that_ranks_nothing_any_more_is_rarely_said_to_hold() -> None:
    found = verdicts(16, slopes=np.zeros(3))
    assert found["holds"] <= ROUNDS / 10


def test_a_rule_that_is_off_or_the_wrong_way_round_is_found_out() -> None:
    assert verdicts(16, shift=0.6)["fails"] > ROUNDS * 0.9
    assert verdicts(16, slopes=-SLOPES)["fails"] > ROUNDS * 0.7


def test_the_sentence_says_what_the_numbers_say() -> None:
    rng = np.random.default_rng(1)
    rule = rule_on(points(60, rng))
    good = holding(rule, points(40, rng), 0.95)
    assert good.verdict == "holds"
    assert "holds on 40 mixtures that it never saw" in good.words
    assert "no refit is due" in good.words
    assert not good.refit_due
    bad = holding(rule, points(40, rng, shift=2), 0.95)
    assert bad.verdict == "fails"
    assert "off by more than its own error explains" in bad.words
    assert "a refit is due" in bad.words
    assert bad.refit_due
    assert bad.shift is not None
    assert bad.shift.value == pytest.approx(2, abs=0.3)
    wrong = holding(rule, points(40, rng, slopes=-SLOPES), 0.95)
    assert wrong.verdict == "fails"
    assert "wrong way round" in wrong.words


def test_too_few_mixtures_and_rules_without_slope_are_not_tested() -> None:
    rng = np.random.default_rng(1)
    rule = rule_on(points(40, rng))
    assert holding(rule, points(4, rng), 0.95).verdict == "untested"
    nothing = holding(rule, points(4, rng)[:0], 0.95)
    assert nothing.words == "no mixture is new to the rule"
    flat = rule.model_copy(update={"coefficients": ()})
    assert holding(flat, points(40, rng), 0.95).verdict == "untested"
    assert not nothing.refit_due
