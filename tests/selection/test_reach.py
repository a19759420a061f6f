"""How far a selection lies outside of the points, by hand-worked cases."""

import math

import pandas as pd
import pytest

from im_assets.rule.model import Coefficient
from im_assets.rule.published import published_rule
from im_assets.selection.reach import beyond_reach, reach, tied
from tests.selection.pools import linear_rule

POOL = pd.DataFrame({"mtld": [0.0, 9.0, 99.0, 999.0], "reward": [-1.0, 0.0, 1.0, 2.0]})


def test_shares_are_on_the_rules_scale() -> None:
    """On it the points' means of mtld are log 10 to log 100: the ends, 9 and 99, are within."""
    term = Coefficient(name="mtld", estimate=-1.0, low=math.log(10), high=math.log(100))
    rule = linear_rule().model_copy(update={"coefficients": (term,), "transform": "log"})
    [row] = reach(rule, POOL, POOL.iloc[2:]).to_dict("records")
    assert row == {
        "indicator": "log1p(mtld)", "low": term.low, "high": term.high, "selected_outside": 0.5,
        "pool_outside": 0.5, "mean": pytest.approx(math.log(100_000) / 2), "mean_outside": True,
    }  # fmt: skip
    assert not beyond_reach(reach(rule, POOL, POOL.iloc[2:]))
    said = beyond_reach(reach(rule, POOL, POOL.iloc[3:]))
    assert said.startswith("100% of the selection (of the pool 50%) lies outside")
    assert "in log1p(mtld), 2.3 to 4.61; its mean is 6.91" in said


def test_where_the_range_is_not_known_nothing_is_said() -> None:
    rule = published_rule("published_v1")
    pool = pd.DataFrame({name: [1.0, 2.0] for name in rule.indicators})
    assert reach(rule, pool, pool[:1]).empty
    assert not beyond_reach(reach(rule, pool, pool[:1]))


def test_what_is_cut_alike_ties() -> None:
    terms = (Coefficient(name="reward", estimate=-1.0, low=-0.5, high=0.5),)
    rule = linear_rule().model_copy(update={"coefficients": terms})
    assert tied(rule, POOL, POOL.iloc[2:3]) == 1
    assert tied(rule.model_copy(update={"winsorize": True}), POOL, POOL.iloc[2:3]) == 2
