"""Whether a rule is beyond chance: how often noise is called that, and how often a relation is."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from im_assets.rule.chance import permutation_test
from im_assets.rule.choosing import Points, choose
from im_assets.rule.fitting import fit_rule
from im_assets.rule.model import CHANCE
from im_assets.rule.published import published_rule
from im_resources.study import RuleSettings
from tests.rule.data import random_study

NAMES = ["x0", "x1", "x2"]
NINE = [f"x{i}" for i in range(9)]
QUICK = RuleSettings(permutations=39)


def within(hits: int, draws: int, probability: float) -> bool:
    """Whether so many hits are likely (both tails together: 1 in 500) of such draws."""
    return bool(
        binom.ppf(0.001, draws, probability) <= hits <= binom.ppf(0.999, draws, probability)
    )


def simulated(
    rows: int, correlated: bool, slopes: Sequence[float], seed: int, noise: float = 1.0
) -> pd.DataFrame:
    """Nine indicators, independent or means of mixtures of four sources, and a log loss."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(rows, 9))
    if correlated:
        shares = rng.dirichlet(np.ones(4), size=rows)
        x = shares @ rng.normal(size=(4, 9)) + 0.05 * x
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    table = pd.DataFrame(x, columns=NINE)
    table["partition"] = [f"seed-{i:03d}" for i in range(rows)]
    return table.assign(log_loss=x[:, : len(slopes)] @ slopes + noise * rng.normal(size=rows))


def beyond(tables: Sequence[pd.DataFrame], settings: RuleSettings) -> int:
    """How many of the tables' rules are called beyond chance."""
    tests = (permutation_test(Points.of(table, NINE), settings) for table in tables)
    return sum(found.loo_r2.p <= CHANCE for found in tests)


@pytest.mark.parametrize("correlated", [False, True], ids=["independent", "correlated"])
@pytest.mark.parametrize(("rows", "draws"), [(16, 120), (24, 120), (78, 40)])
def test_noise_is_called_beyond_chance_in_one_table_of_twenty_at_most(
    rows: int, draws: int, correlated: bool
) -> None:
    settings = RuleSettings(permutations=19, max_indicators=3)
    tables = [simulated(rows, correlated, [], seed) for seed in range(draws)]
    assert beyond(tables, settings) <= binom.ppf(0.999, draws, 0.05)
    # Most of these tables have a rule with indicators all the same, which is why it is asked.
    assert sum(bool(choose(Points.of(t, NINE), settings).chosen) for t in tables[:20]) > 8


def test_noise_is_not_called_beyond_chance_in_a_stepwise_search_either() -> None:
    settings = RuleSettings(permutations=19, choose="stepwise", max_indicators=1)
    tables = [simulated(16, bool(seed % 2), [], 500 + seed) for seed in range(16)]
    assert beyond(tables, settings) <= binom.ppf(0.999, 16, 0.05)


@pytest.mark.parametrize("correlated", [False, True], ids=["independent", "correlated"])
def test_a_known_relation_is_found(correlated: bool) -> None:
    # Half of the variance in one of nine indicators: found in 98 % of tables of 24 mixtures, and a
    # third of that slope in half of them at 78.
    settings = RuleSettings(permutations=39, max_indicators=3)
    strong = [simulated(24, correlated, [1.0], seed) for seed in range(30)]
    assert beyond(strong, settings) >= 20
    weak = [simulated(78, correlated, [0.33], seed) for seed in range(20)]
    assert 5 <= beyond(weak, settings) <= 19


def test_p_values_are_uniform_under_the_null() -> None:
    draws, p = 150, []
    settings = RuleSettings(permutations=19, max_indicators=2)
    for seed in range(draws):
        table = random_study(rows=20, slopes=(0.0, 0.0, 0.0), noise=1, seed=seed)
        found = permutation_test(Points.of(table, NAMES), settings)
        p.append((found.r2.p, found.loo_r2.p))
    # Above, ties pile up: a rule without an indicator has R2 = 0, as such shuffles have.
    for level in (0.05, 0.1, 0.2, 0.3):
        for hits in (np.array(p) <= level + 1e-9).sum(axis=0):
            assert within(int(hits), draws, level), level


def test_the_choice_is_redone_and_a_signal_seen() -> None:
    table = random_study()
    rule = fit_rule(table, NAMES, QUICK)
    found = permutation_test(Points.of(table, NAMES), QUICK)
    assert rule.chance == found
    assert rule.beyond_chance is True
    assert "chance" not in [warning.kind for warning in rule.warnings]
    assert found.r2.value == pytest.approx(rule.r2)
    assert found.r2.p == found.loo_r2.p == pytest.approx(1 / 40)
    assert found.r2.high < found.r2.value
    best = min(s.value for s in rule.path if s.value is not None)
    y = table["log_loss"].to_numpy()
    constant = [(v - np.delete(y, i).mean()) ** 2 for i, v in enumerate(y)]
    assert found.loo_r2.value == pytest.approx(1 - best**2 * len(y) / sum(constant))
    # Nine columns of noise: the best subset of a shuffle fits well, and one column's null is lower.
    wide = random_study(rows=20, slopes=[0.0] * 9, noise=1)
    nulls = [
        permutation_test(Points.of(wide, [f"x{i}" for i in range(k)]), QUICK).r2.high
        for k in (1, 9)
    ]
    assert nulls[1] > nulls[0] + 0.2


def test_a_rule_of_noise_says_so() -> None:
    rules = [fit_rule(simulated(16, False, [], seed), NINE, QUICK) for seed in range(4)]
    [*_, rule] = [r for r in rules if r.indicators and r.beyond_chance is False]
    assert rule.chance is not None
    [caution] = [warning.note for warning in rule.warnings if warning.kind == "chance"]
    assert f"p = {rule.chance.loo_r2.p:.2g} of 39 shuffles, 16 mixtures" in caution


def test_of_what_was_not_tested_nothing_is_said() -> None:
    rule = fit_rule(random_study(), NAMES, QUICK)
    assert rule.model_copy(update={"chance": None}).beyond_chance is None
    assert rule.model_copy(update={"coefficients": ()}).beyond_chance is None
    assert published_rule("published_v1").beyond_chance is None


def test_fewer_shuffles_than_could_tell_are_refused() -> None:
    with pytest.raises(ValueError, match="permutations"):
        RuleSettings(permutations=18)
