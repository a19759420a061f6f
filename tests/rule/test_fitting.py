from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from im_assets.rule.choosing import Points, left_out
from im_assets.rule.fitting import fit_rule, rank_correlation
from im_assets.rule.regression import term_statistics
from im_assets.rule.stepwise import stepwise
from im_resources.study import RuleSettings
from tests.rule.data import LONGLEY, LONGLEY_NAMES, STACKLOSS, random_study


def by_steps(**settings: Any) -> RuleSettings:
    """The paper's settings: stepwise, classical standard errors; and few shuffles, for speed."""
    return RuleSettings(choose="stepwise", standard_errors="classical", permutations=19, **settings)


KEEP_ALL = by_steps(p_enter=0.999, p_remove=0.999, max_indicators=6)
NAMES = ["x0", "x1", "x2"]


def solve(table: pd.DataFrame, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Least squares by the normal equations: (coefficients, residuals)."""
    x = np.column_stack([np.ones(len(table)), table[list(names)].to_numpy()])
    y = table["log_loss"].to_numpy()
    beta = np.linalg.solve(x.T @ x, x.T @ y)
    return beta, y - x @ beta


def number(value: float | None) -> float:
    assert value is not None
    return value


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    return np.corrcoef(rankdata(a), rankdata(b))[0, 1]


def test_stackloss_equals_r() -> None:
    # R: summary(lm(stack.loss ~ ., stackloss)); BIC(), AIC() less the parameter sigma.
    rule = fit_rule(STACKLOSS, ["air", "water", "acid"], KEEP_ALL)
    assert rule.indicators == ("air", "water", "acid")
    terms = [rule.constant, *rule.coefficients]

    def approx(values: Any) -> Any:  # as many digits as R prints
        return pytest.approx(values, abs=5e-5)

    assert [t.estimate for t in terms] == approx([-39.9197, 0.7156, 1.2953, -0.1521])
    assert [t.std_error for t in terms] == approx([11.8960, 0.1349, 0.3680, 0.1563])
    x, y = STACKLOSS[["air", "water", "acid"]].to_numpy(), STACKLOSS["log_loss"].to_numpy()
    found = term_statistics(y, x, "classical", 0.95)
    assert found[:, 2] == pytest.approx([-3.356, 5.307, 3.520, -0.973], abs=5e-4)
    assert found[:, 3] == approx([0.00375, 5.8e-5, 0.00263, 0.34405])
    assert (rule.r2, rule.adj_r2) == approx((0.9136, 0.8983))
    assert rule.f == pytest.approx(59.9, abs=0.005)
    assert rule.residual_std_error == pytest.approx(3.243, abs=5e-4)
    # R: confint(), t quantile 2.1098 on 17 degrees of freedom.
    assert rule.coefficients[0].ci_low == pytest.approx(0.7156 - 2.1098 * 0.1349, abs=1e-3)
    assert rule.coefficients[0].ci_high == pytest.approx(0.7156 + 2.1098 * 0.1349, abs=1e-3)


def test_information_criteria_by_hand() -> None:
    rule = fit_rule(STACKLOSS, ["air", "water", "acid"], KEEP_ALL)
    _, residuals = solve(STACKLOSS, rule.indicators)
    n, k = len(STACKLOSS), 4
    minus_2_log_likelihood = n * (np.log(2 * np.pi * (residuals**2).sum() / n) + 1)
    assert rule.aic == pytest.approx(minus_2_log_likelihood + 2 * k)
    assert rule.bic == pytest.approx(minus_2_log_likelihood + np.log(n) * k)


def test_longley_keeps_its_certified_digits() -> None:
    # NIST StRD certified values; the condition number of this problem is about 5e9.
    certified = {
        "deflator": 15.0618722713733, "gnp": -0.358191792925910e-01,
        "unemployed": -2.02022980381683, "forces": -1.03322686717359,
        "population": -0.511041056535807e-01, "year": 1829.15146461355,
    }  # fmt: skip
    settings_ = by_steps(direction="backward", p_enter=0.99, p_remove=0.99, max_indicators=6)
    rule = fit_rule(LONGLEY, LONGLEY_NAMES, settings_)
    assert rule.intercept == pytest.approx(-3482258.63459582, rel=1e-7)
    assert {c.name: c.estimate for c in rule.coefficients} == pytest.approx(certified, rel=1e-6)
    assert rule.f == pytest.approx(330.285339234588)
    assert ("collinear", "year") in [(w.kind, w.indicator) for w in rule.warnings]


def test_inflation_factors_are_those_of_auxiliary_regressions() -> None:
    rule = fit_rule(STACKLOSS, ["air", "water", "acid"], KEEP_ALL)
    for term in rule.coefficients:
        others = [n for n in rule.indicators if n != term.name]
        auxiliary = STACKLOSS.assign(log_loss=STACKLOSS[term.name])
        _, residuals = solve(auxiliary, others)
        r2 = (
            1 - (residuals**2).sum() / ((auxiliary.log_loss - auxiliary.log_loss.mean()) ** 2).sum()
        )
        assert term.vif == pytest.approx(1 / (1 - r2))
    assert rule.constant.vif is None


def test_leave_one_out_equals_a_naive_loop() -> None:
    table = random_study(rows=20, slopes=(0.3, -0.2, 0.1), noise=0.3, seed=4)
    rule = fit_rule(table, NAMES, by_steps())
    honest: list[float] = []
    fixed: list[float] = []
    for i in range(len(table)):
        rest, row = table.drop(index=i), table.loc[i]
        chosen = stepwise(rest, "log_loss", NAMES).chosen
        assert chosen  # otherwise another rule applies, tested below
        for names, predictions in ((chosen, honest), (rule.indicators, fixed)):
            beta, _ = solve(rest, names)
            predictions.append(beta[0] + beta[1:] @ row[list(names)].to_numpy(dtype=float))
    assert list(rule.loo_predictions) == list(table.partition)
    assert list(rule.loo_predictions.values()) == pytest.approx(honest)
    assert rule.loo_spearman == pytest.approx(spearman(table.log_loss, honest))
    assert rule.loo_spearman_fixed == pytest.approx(spearman(table.log_loss, fixed))
    assert rule.loo_rmse == pytest.approx(np.sqrt(np.mean((table.log_loss - honest) ** 2)))


def test_selection_in_every_fold_is_not_flattered_by_noise() -> None:
    # Noise, nine candidates and a lax threshold: something enters and fits, and it ranks nothing.
    lax = by_steps(p_enter=0.3, p_remove=0.3)
    rules = [
        fit_rule(random_study(16, [0.0] * 9, 1, seed), [f"x{i}" for i in range(9)], lax)
        for seed in range(6)
    ]
    assert np.mean([number(rule.r2) for rule in rules]) > 0.4
    assert all(number(r.loo_spearman_fixed) > number(r.loo_spearman) for r in rules)
    assert abs(np.mean([number(rule.loo_spearman) for rule in rules])) < 0.2
    assert np.mean([number(rule.loo_spearman_fixed) for rule in rules]) > 0.3


def test_without_an_indicator_the_rule_is_the_mean_and_claims_no_rank() -> None:
    table = random_study(slopes=(0.0, 0.0, 0.0), noise=1)
    rule = fit_rule(table, NAMES, by_steps(p_enter=1e-6))
    assert rule.indicators == ()
    assert rule.predict_points(table) == pytest.approx(np.full(24, table.log_loss.mean()))
    assert (rule.r2, rule.adj_r2, rule.f) == (0, 0, None)
    assert (rule.loo_spearman, rule.loo_spearman_fixed) == (None, None)
    assert rule.loo_folds_without_slope == 24
    assert number(rule.loo_rmse) > number(rule.residual_std_error)
    assert "no_indicator" in [w.kind for w in rule.warnings]
    left_out = np.array(list(rule.loo_predictions.values()))
    assert spearman(table.log_loss, left_out) == pytest.approx(-1)  # what would have been reported


def test_folds_without_a_slope_count_as_ties() -> None:
    actual = np.array([1.0, 2.0, 3.0, 4.0])
    sloped = np.array([True, False, False, True])
    predicted = np.array([0.5, 2.67, 2.33, 4.5])  # folds 1 and 2 predict the others' mean
    assert rank_correlation(actual, predicted, sloped) == pytest.approx(
        spearman(actual, [0.5, 2.5, 2.5, 4.5])
    )
    assert rank_correlation(actual, predicted, np.zeros(4, dtype=bool)) is None


def test_one_mixture_that_carries_an_indicator_alone() -> None:
    # Without row 0, `spike` is constant: its folds must predict, not divide by zero.
    table = random_study(slopes=(0.5,)).assign(spike=[1.0] + [0.0] * 23)
    table["log_loss"] += 10 * table["spike"]
    rule = fit_rule(table, ["x0", "spike"], by_steps())
    assert "spike" in rule.indicators
    assert np.isfinite(number(rule.loo_rmse))
    assert rule.loo_predictions["seed-000"] < 5
    # The permutation test leaves it out in the same way.
    assert rule.chance is not None
    actual = table["log_loss"].to_numpy()
    fixed, _ = left_out(Points.of(table, ["x0", "spike"]), by_steps(), rule.indicators)
    total = np.sum((actual - actual.mean()) ** 2) * (24 / 23) ** 2
    expected = 1 - np.sum((actual - fixed) ** 2) / total
    assert rule.chance.loo_r2.value == pytest.approx(expected)


def test_warnings_say_what_to_distrust() -> None:
    table = random_study(rows=24)
    rule = fit_rule(table.assign(flat=1.0), [*NAMES, "flat"], by_steps())
    text = "\n".join(w.note for w in rule.warnings)
    assert "optimistic" in text
    assert "few mixtures: 24 for 4 candidate indicators (6.0 each" in text
    assert "flat was dropped: constant" in text
    assert [w.kind for w in rule.warnings] == ["dropped", "selection_ignored", "few_mixtures"]


def test_too_few_mixtures_and_repeated_ones_are_refused() -> None:
    table = random_study()
    with pytest.raises(ValueError, match=r"5 mixtures are too few .* at least 6"):
        fit_rule(table[:5], NAMES, by_steps(max_indicators=3))
    with pytest.raises(ValueError, match="at least 6"):
        fit_rule(table[:5], NAMES, by_steps(direction="backward"))
    fit_rule(table[:4], NAMES, by_steps())
    fit_rule(table[:6], NAMES, by_steps(direction="backward", max_indicators=3))
    with pytest.raises(ValueError, match="repeated: seed-003"):
        fit_rule(pd.concat([table, table[3:4]]), NAMES, by_steps())


@settings(max_examples=8, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    scales=st.lists(st.floats(1e-6, 1e6), min_size=3, max_size=3),
    shift=st.floats(-100, 100),
)
def test_row_order_and_units_change_nothing(seed: int, scales: list[float], shift: float) -> None:
    table = random_study(rows=14, slopes=(0.4, -0.1, 0.0), noise=0.3, seed=seed)
    rule = fit_rule(table, NAMES, by_steps())
    shuffled = table.sample(frac=1, random_state=seed)
    assert fit_rule(shuffled, NAMES, by_steps()).predict_points(table) == pytest.approx(
        rule.predict_points(table)
    )
    scaled = table.copy()
    scaled[NAMES] = table[NAMES] * scales + shift * np.array(scales)
    other = fit_rule(scaled, NAMES, by_steps())
    assert other.indicators == rule.indicators
    assert other.predict_points(scaled) == pytest.approx(rule.predict_points(table), rel=1e-6)
    assert other.loo_spearman == pytest.approx(rule.loo_spearman)


def test_a_column_of_a_tiny_scale_is_not_cut_off() -> None:
    table = random_study()
    rule = fit_rule(table, NAMES, by_steps())
    tiny = fit_rule(table.assign(x0=table.x0 * 1e-18), NAMES, by_steps())
    assert tiny.r2 == pytest.approx(rule.r2)
    assert tiny.coefficients[0].estimate == pytest.approx(rule.coefficients[0].estimate * 1e18)
