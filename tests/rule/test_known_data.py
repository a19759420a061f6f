"""The regression against R's documented results, and against formulas worked out here."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.outliers_influence import variance_inflation_factor

from im_assets.evidence.diagnostics import collinearity
from im_assets.rule.choosing import Points
from im_assets.rule.fitting import fit_rule
from im_assets.rule.regression import term_statistics
from im_assets.rule.stepwise import stepwise
from im_resources.study import RuleSettings
from tests.rule.data import (
    LONGLEY,
    LONGLEY_NAMES,
    STACKLOSS,
    SWISS,
    SWISS_NAMES,
    random_study,
)

STACKLOSS_NAMES = ["air", "water", "acid"]
KNOWN = [(STACKLOSS, STACKLOSS_NAMES), (SWISS, SWISS_NAMES), (LONGLEY, LONGLEY_NAMES)]
KEEP_ALL = RuleSettings(
    choose="stepwise",
    direction="backward",
    p_enter=0.999,
    p_remove=0.999,
    max_indicators=6,
    permutations=19,
)


def test_swiss_equals_r() -> None:
    # R: lm1 <- lm(Fertility ~ ., swiss); coef(lm1), AIC(lm1) and BIC(lm1) as in example(AIC).
    rule = fit_rule(SWISS, SWISS_NAMES, KEEP_ALL)
    estimates = [rule.intercept, *(c.estimate for c in rule.coefficients)]
    expected = [66.91518, -0.17211, -0.25801, -0.87094, 0.10412, 1.07705]
    assert estimates == pytest.approx(expected, abs=5e-6)
    # R counts the variance of the errors among the parameters, statsmodels does not.
    assert rule.aic is not None
    assert rule.bic is not None
    assert rule.aic + 2 == pytest.approx(326.0716, abs=5e-5)
    assert rule.bic + np.log(len(SWISS)) == pytest.approx(339.0226, abs=5e-5)


def test_swiss_takes_the_steps_that_r_takes() -> None:
    # R: step(lm1) prints AIC=190.69, drops Examination, and ends at AIC=189.86. Its AIC is
    # n log(RSS / n) + 2 k: ours less the constant n (log(2 pi) + 1).
    found = stepwise(
        SWISS, "log_loss", SWISS_NAMES,
        criterion="aic", direction="backward", max_indicators=6,
    )  # fmt: skip
    steps = [(s.action, s.indicator) for s in found.path]
    assert steps == [("start", None), ("remove", "examination")]
    constant = len(SWISS) * (np.log(2 * np.pi) + 1)
    printed = [s.aic - constant for s in found.path if s.aic is not None]
    assert printed == pytest.approx([190.69, 189.86], abs=5e-3)


def test_longley_has_nist_s_certified_standard_errors() -> None:
    # NIST StRD, Longley: standard deviations of the estimates.
    certified = [
        890420.383607373, 84.9149257747669, 0.334910077722432e-01, 0.488399681651699,
        0.214274163161675, 0.226073200069370, 455.478499142212,
    ]  # fmt: skip
    x, y = LONGLEY[LONGLEY_NAMES].to_numpy(), LONGLEY["log_loss"].to_numpy()
    found = term_statistics(y, x, "classical", 0.95)
    assert found[:, 1] == pytest.approx(certified, rel=1e-7)
    assert found[0, 0] == pytest.approx(-3482258.63459582, rel=1e-9)


@pytest.mark.parametrize(("table", "names"), KNOWN[:2])
def test_hc3_is_the_sandwich_and_statsmodels(table: pd.DataFrame, names: Sequence[str]) -> None:
    x, y = table[list(names)].to_numpy(), table["log_loss"].to_numpy()
    found = term_statistics(y, x, "HC3", 0.9)
    # By hand: (X'X)^-1 X' diag(e^2 / (1 - h)^2) X (X'X)^-1.
    design = np.column_stack([np.ones(len(y)), x])
    bread = np.linalg.inv(design.T @ design)
    beta = bread @ design.T @ y
    e, h = y - design @ beta, np.diag(design @ bread @ design.T)
    meat = design.T @ (design * ((e / (1 - h)) ** 2)[:, None])
    assert found[:, 0] == pytest.approx(beta)
    assert found[:, 1] == pytest.approx(np.sqrt(np.diag(bread @ meat @ bread)))
    robust = OLS(y, design).fit().get_robustcov_results("HC3", use_t=True)
    assert found[:, 2] == pytest.approx(robust.tvalues)
    assert found[:, 3] == pytest.approx(robust.pvalues)
    assert found[:, 4:] == pytest.approx(robust.conf_int(0.1))


def test_the_rule_reports_the_errors_that_the_settings_ask_for() -> None:
    rules = {
        kind: fit_rule(SWISS, SWISS_NAMES, KEEP_ALL.model_copy(update={"standard_errors": kind}))
        for kind in ("HC3", "classical")
    }
    x, y = SWISS[SWISS_NAMES].to_numpy(), SWISS["log_loss"].to_numpy()
    for kind, rule in rules.items():
        assert rule.standard_errors == kind
        errors = [t.std_error for t in (rule.constant, *rule.coefficients)]
        assert errors == pytest.approx(term_statistics(y, x, kind, 0.95)[:, 1])


def test_hc3_covers_where_the_spread_grows_and_classical_does_not() -> None:
    rng = np.random.default_rng(0)
    x = np.linspace(-1, 1, 60)[:, None]
    hits = dict.fromkeys(("HC3", "classical"), 0)
    for _ in range(300):
        y = x[:, 0] + np.abs(x[:, 0]) ** 2 * 2 * rng.normal(size=60)
        for kind in hits:
            low, high = term_statistics(y, x, kind, 0.95)[1, 4:]  # type: ignore[arg-type]
            hits[kind] += low < 1 < high
    # 300 draws of 0.95 give at least 270 but in one case of 3000; the classical ones cover ~0.8.
    assert hits["HC3"] >= 270
    assert hits["classical"] < 260


@pytest.mark.parametrize(("table", "names"), KNOWN)
def test_inflation_factors_are_those_of_statsmodels(
    table: pd.DataFrame, names: Sequence[str]
) -> None:
    found = {f.item: f.value for f in collinearity(Points.of(table, names))}
    z = table[list(names)].to_numpy()
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    design = np.column_stack([np.ones(len(z)), z])
    for i, name in enumerate(names):
        expected = variance_inflation_factor(design, i + 1)
        assert found[name] == pytest.approx(expected, rel=1e-6)


def test_collinear_indicators_are_named() -> None:
    found = {f.item: f for f in collinearity(Points.of(LONGLEY, LONGLEY_NAMES))}
    # R: car::vif(lm(Employed ~ ., longley)).
    printed = {"deflator": 135.53, "gnp": 1788.51, "unemployed": 33.62, "forces": 3.59}
    assert {n: found[n].value for n in printed} == pytest.approx(printed, abs=5e-3)
    assert found["gnp"].note.startswith("collinear: the other indicators explain 99.9%")
    assert found["gnp"].verdict == "collinear"
    assert (found["forces"].verdict, found["forces"].note) == ("ok", "")
    few = collinearity(Points.of(LONGLEY[:6], LONGLEY_NAMES))
    assert {f.value for f in few} == {None}
    assert few[0].verdict == "undefined"  # and the last adds nothing to five columns of six rows
    assert few[-1].verdict == "few_mixtures"
    copy = random_study().assign(copy=lambda t: 2 * t.x0)
    [first, second] = collinearity(Points.of(copy, ["x0", "copy"]))
    assert first.value == pytest.approx(1)
    assert second.value is None
    assert second.verdict == "combination"
    assert second.note == "an exact linear combination of x0"
