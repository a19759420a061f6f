from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, rankdata

from im_assets.evidence.diagnostics import residual_diagnostics
from im_assets.evidence.evidence import rule_findings
from im_assets.evidence.fewer_mixtures import design_value
from im_assets.evidence.findings import COLUMNS, Finding, findings_table
from im_assets.evidence.kinds import ChosenMixtures, RandomMixtures
from im_assets.evidence.resampling import bootstrap
from im_assets.evidence.unseen import (
    learning_curve,
    leave_one_group_out,
    row_spearman,
    verdict,
)
from im_assets.rule.choosing import Points
from im_assets.rule.fitting import fit_rule
from im_assets.rule.published import published_rule
from im_resources.study import RuleSettings
from tests.rule.data import STACKLOSS, SWISS, SWISS_NAMES, random_study

NAMES = ["x0", "x1", "x2"]
QUICK = RuleSettings(bootstrap=40, permutations=39)


def sources_of(table: pd.DataFrame) -> dict[str, str]:
    return {seed: "abc"[i % 3] for i, seed in enumerate(table["partition"])}


def by_item(found: Sequence[Finding], section: str) -> dict[str, Finding]:
    return {f.item: f for f in found if f.section == section}


def number(value: float | None) -> float:
    assert value is not None
    return value


def p_of(finding: Finding) -> float:
    p = finding.row()["p"]
    assert isinstance(p, float)
    return p


def within(hits: int, draws: int, probability: float) -> bool:
    """Whether so many hits are likely (both tails together: 1 in 500) of such draws."""
    return bool(
        binom.ppf(0.001, draws, probability) <= hits <= binom.ppf(0.999, draws, probability)
    )


@pytest.mark.parametrize("choose", ["all_subsets", "stepwise"])
def test_the_table_has_every_section_and_is_the_same_twice(choose: str) -> None:
    table = random_study(rows=14)
    settings = QUICK.model_copy(update={"choose": choose, "bootstrap": 10, "permutations": 19})
    rule = fit_rule(table, NAMES, settings)
    first, second = (rule_findings(table, sources_of(table), rule, settings) for _ in range(2))
    pd.testing.assert_frame_equal(first, second)
    assert list(first.columns) == list(COLUMNS)
    assert set(first["section"]) == {
        "inclusion", "coefficient", "permutation", "leave_one_source_out", "diagnostics", "vif",
        "residuals", "learning_curve", "design",
    }  # fmt: skip
    assert list(first.loc[first["section"] == "inclusion", "item"]) == NAMES
    rows = first[first["section"] == "residuals"]
    assert list(rows["item"]) == list(table["partition"])
    np.testing.assert_allclose(rows["x"] + rows["value"], table["log_loss"])


def test_evidence_is_refused_for_other_mixtures_and_other_rules() -> None:
    table = random_study()
    rule = fit_rule(table, NAMES, QUICK)
    with pytest.raises(ValueError, match="published_v1"):
        rule_findings(table, sources_of(table), published_rule("published_v1"), QUICK)
    with pytest.raises(ValueError, match="materialize quality_rule again"):
        rule_findings(table[1:], sources_of(table), rule, QUICK)
    with pytest.raises(ValueError, match="no mixed_samples of seed-000"):
        rule_findings(table, sources_of(table[1:]), rule, QUICK)


def test_what_has_an_effect_is_chosen_more_often() -> None:
    table = random_study(rows=40, slopes=(0.5, 0.0, 0.1), noise=0.3)
    rule = fit_rule(table, NAMES, QUICK)
    found = by_item(bootstrap(Points.of(table, NAMES), rule, QUICK), "inclusion")
    assert found["x0"].value == 1
    assert number(found["x1"].value) < number(found["x2"].value)
    for f in found.values():
        assert number(f.low) <= number(f.value) <= number(f.high)
    # Wilson's interval of 40 of 40 (Wilson 1927): n / (n + z^2) to 1.
    assert number(found["x0"].low) == pytest.approx(40 / (40 + 1.959964**2))


def test_the_coefficient_s_interval_covers_as_often_as_it_says() -> None:
    # Wherever x0 belongs to the rule: pairs bootstrap percentiles of 30 rows cover 90 to 96 %.
    draws, hits = 150, 0
    settings = RuleSettings(bootstrap=120, max_indicators=2)
    for seed in range(draws):
        table = random_study(rows=30, slopes=(0.5, 0.0), noise=0.4, seed=seed)
        rule = fit_rule(table, ["x0", "x1"], settings)
        found = by_item(bootstrap(Points.of(table, ["x0", "x1"]), rule, settings), "coefficient")
        hits += number(found["x0"].low) <= 0.5 <= number(found["x0"].high)
    assert within(hits, draws, 0.93)


def test_a_source_is_predicted_by_a_rule_of_the_others() -> None:
    table = random_study(rows=30, slopes=(0.5, -0.3, 0.0))
    sources = sources_of(table)
    out = table["partition"].map(sources) == "b"
    table.loc[out, "log_loss"] = 2 - table.loc[out, "log_loss"]  # where the rule is upside down
    found = by_item(
        leave_one_group_out(Points.of(table, NAMES), sources, QUICK), "leave_one_source_out"
    )
    rule = fit_rule(table[~out].reset_index(drop=True), NAMES, QUICK)
    ranks = [rankdata(v) for v in (rule.predict_points(table[out]), table.loc[out, "log_loss"])]
    assert found["b"].value == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert number(found["b"].value) < -0.9
    assert found["b"].x == 10
    assert number(found["all"].low) <= number(found["all"].value) <= number(found["all"].high)
    assert found["all"].x == 30


def test_a_source_with_few_mixtures_gets_no_number() -> None:
    table = random_study(rows=20)
    sources = {seed: "rare" if i < 3 else "common" for i, seed in enumerate(table["partition"])}
    found = by_item(
        leave_one_group_out(Points.of(table, NAMES), sources, QUICK), "leave_one_source_out"
    )
    for name in ("rare", "common"):  # of the rare ones no rule can be fitted
        assert found[name].value is None
        assert found[name].verdict == "too_few"
        assert "too few" in found[name].note
    assert (found["rare"].x, found["common"].x) == (3, 17)
    assert found["all"].x == 3


def test_an_experiment_is_left_out_where_there_are_several() -> None:
    table = random_study(rows=24, slopes=(0.5, -0.3, 0.0))
    rule = fit_rule(table, NAMES, QUICK)
    sources = sources_of(table)
    of = {seed: "bins" if i % 3 == 2 else "mixtures" for i, seed in enumerate(table["partition"])}
    found = rule_findings(table, sources, rule, QUICK, of)
    rows = found[found["section"] == "leave_one_experiment_out"].set_index("item")
    assert rows["x"].to_dict() == {"bins": 8, "mixtures": 16, "all": 24}
    assert set(rows["verdict"]) == {"ranked"}
    assert rows.loc["bins", "note"] == "8 mixtures are its points; ranked by a rule of the others"
    # What "bins" are predicted by is what the source that stands for the same points is.
    left = found[found["section"] == "leave_one_source_out"].set_index("item")
    assert rows.loc["bins", "value"] == left.loc["c", "value"]
    one = rule_findings(table, sources, rule, QUICK, dict.fromkeys(of, "mixtures"))
    pd.testing.assert_frame_equal(one, rule_findings(table, sources, rule, QUICK))
    with pytest.raises(ValueError, match=r"no experiment is given for .* seed-000"):
        rule_findings(table, sources, rule, QUICK, {})


def test_diagnostics_equal_their_definitions() -> None:
    rule = fit_rule(SWISS, SWISS_NAMES, QUICK)
    mixtures = Points.of(SWISS, SWISS_NAMES)
    found = residual_diagnostics(mixtures, rule)
    tests, residuals = by_item(found, "diagnostics"), by_item(found, "residuals")
    n, k = len(SWISS), len(rule.indicators) + 1
    design = np.column_stack([np.ones(n), SWISS[list(rule.indicators)].to_numpy()])
    hat = design @ np.linalg.inv(design.T @ design) @ design.T
    y = SWISS["log_loss"].to_numpy()
    e = y - hat @ y
    # Koenker (1981): n times the R2 of the squared residuals on the indicators.
    squared = e**2
    explained = hat @ squared
    lm = n * (1 - ((squared - explained) ** 2).sum() / ((squared - squared.mean()) ** 2).sum())
    assert tests["breusch_pagan"].value == pytest.approx(lm)
    assert tests["max_leverage"].value == pytest.approx(np.diag(hat).max())
    # Cook (1977): how far all predictions move when a row is left out, by a fit without it.
    s2 = (e @ e) / (n - k)
    cook = []
    for i in range(n):
        beta = np.linalg.lstsq(np.delete(design, i, 0), np.delete(y, i), rcond=None)[0]
        cook.append(((hat @ y - design @ beta) ** 2).sum() / (k * s2))
    assert tests["max_cooks_distance"].value == pytest.approx(max(cook))
    assert [f.row()["cooks_distance"] for f in residuals.values()] == pytest.approx(cook)
    assert [f.row()["leverage"] for f in residuals.values()] == pytest.approx(list(np.diag(hat)))
    assert [f.value for f in residuals.values()] == pytest.approx(list(e))


def test_growing_errors_and_a_rule_without_indicators_are_said() -> None:
    rng = np.random.default_rng(0)
    table = random_study(rows=80, slopes=(0.5,), noise=0)
    table["log_loss"] += np.exp(table["x0"]) * 0.2 * rng.normal(size=80)
    rule = fit_rule(table, ["x0"], QUICK)
    found = by_item(residual_diagnostics(Points.of(table, ["x0"]), rule), "diagnostics")
    assert p_of(found["breusch_pagan"]) < 0.05
    assert found["breusch_pagan"].verdict == "doubt"
    assert "classical standard errors do not hold" in found["breusch_pagan"].note
    empty = rule.model_copy(update={"coefficients": ()})
    found = by_item(residual_diagnostics(Points.of(table, ["x0"]), empty), "diagnostics")
    assert found["breusch_pagan"].value is None
    assert found["breusch_pagan"].verdict == "undefined"
    assert "no indicator" in found["breusch_pagan"].note


def test_the_learning_curve_rises_where_there_is_a_signal() -> None:
    names = [f"x{i}" for i in range(6)]
    table = random_study(rows=64, slopes=[0.4, -0.3, 0.2, 0.0, 0.0, 0.0], noise=0.4)
    found = learning_curve(Points.of(table, names), QUICK)
    curve = [f for f in found if f.item == "spearman"]
    values = [number(f.value) for f in curve]
    assert [f.x for f in curve] == sorted({number(f.x) for f in curve})
    assert values[-1] > values[0] + 0.15
    assert values[-1] > 0.6
    assert found[-1].item == "verdict"
    noise = random_study(rows=64, slopes=[0.0] * 6, noise=1)
    found = learning_curve(Points.of(noise, names), QUICK)
    assert abs(number(found[-2].value)) < 0.3
    assert found[-1].note.startswith("Cannot tell: these mixtures do not show")
    short = learning_curve(Points.of(random_study(rows=11), NAMES), QUICK)
    assert [f.item for f in short] == ["verdict"]
    assert "11 mixtures are too few" in short[0].note


def curves(start: float, slope: float, spread: float) -> np.ndarray:
    """Curves start - slope / m at 10, 20, 40 mixtures that differ in level by ``spread``."""
    level = start + spread * np.random.default_rng(0).normal(size=60)
    return level[:, None] - slope / np.array([10, 20, 40])


def test_the_verdict_claims_no_more_than_the_curves_hold() -> None:
    sizes = [10, 20, 40]
    flat = verdict(curves(0.9, 0.1, 0.02), sizes, 10, 50, 0.95)
    assert flat.verdict == "no"
    assert flat.note.startswith("No: ")
    steep = verdict(curves(0.9, 8.0, 0.02), sizes, 10, 50, 0.95)
    assert steep.verdict == "yes"
    assert steep.note.startswith("Yes: twice as many mixtures are expected to raise")
    assert steep.value == pytest.approx(8 / 50 - 8 / 100)  # of a - b/m from 50 to 100
    assert steep.x == 100
    wild = curves(0.9, 4.0, 0.02) + 0.3 * np.random.default_rng(1).normal(size=(60, 3))
    unsure = verdict(wild, sizes, 10, 50, 0.95)
    assert unsure.verdict == "cannot_tell"
    assert unsure.note.startswith("Cannot tell: the curve is too")
    none = verdict(curves(0.0, 0.0, 0.4), sizes, 10, 50, 0.95)
    assert none.verdict == "cannot_tell"
    assert none.note.startswith("Cannot tell: these mixtures do not show")
    # More splits of the same mixtures are no more mixtures: the interval hardly narrows.
    many = verdict(np.tile(wild, (20, 1)), sizes, 10, 50, 0.95)
    few = verdict(wild, sizes, 10, 50, 0.95)
    assert number(many.high) - number(many.low) > 0.9 * (number(few.high) - number(few.low))


def test_row_spearman_is_spearman_with_ties_and_0_for_a_constant() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, (4, 9)).astype(float), rng.normal(size=(4, 9))
    expected = [np.corrcoef(rankdata(r), rankdata(s))[0, 1] for r, s in zip(a, b, strict=True)]
    assert row_spearman(a, b) == pytest.approx(expected)
    assert list(row_spearman(np.ones((2, 5)), b[:2, :5])) == [0, 0]


def test_what_chosen_mixtures_save_is_said_where_the_gain_is_beyond_chance() -> None:
    found = ChosenMixtures(
        x=8, gain=0.2, gain_low=0.05, gain_high=0.35, replaces=12.4, bound=None
    )  # fmt: skip
    numbers = "(Spearman +0.20, +0.05 to +0.35, against 8 random ones)"
    assert found.verdict == "better"
    assert found.note == f"8 chosen mixtures do as well as 12 random ones {numbers}"
    least = replace(found, bound="at_least")
    assert least.note == f"8 chosen mixtures do as well as 12 random ones or more {numbers}"
    unsure = replace(found, gain_low=-0.1)
    assert unsure.verdict == "not_distinguishable"
    assert unsure.note.startswith("8 chosen mixtures are not distinguishable from random ones (")
    table = findings_table([found, RandomMixtures(x=8, value=0.3)])
    assert table["replaces"].tolist()[0] == 12.4
    assert table["verdict"].isna().tolist() == [False, True]


def test_chosen_mixtures_replace_more_random_ones_where_a_few_are_extreme() -> None:
    # Most mixtures are alike and a few are far out: random choices mostly miss what tells most.
    table = random_study(rows=60, slopes=(0.5, -0.3), noise=0.3)
    far = np.arange(60) % 6 == 0
    for name in ("x0", "x1"):
        table.loc[~far, name] *= 0.2
    noise = np.random.default_rng(0).normal(size=60)
    table["log_loss"] = 0.5 * table["x0"] - 0.3 * table["x1"] + 0.1 * noise
    found = design_value(Points.of(table, ["x0", "x1"]), 0.95)
    chosen = {f.x: f for f in found if f.item == "d_optimal"}
    random = {f.x: f for f in found if f.item == "random"}
    assert set(random) - set(chosen) == {max(k or 0 for k in random)}
    smallest = min(k or 0 for k in chosen)
    assert number(chosen[smallest].value) > number(random[smallest].value) + 0.1
    assert f"against {smallest:.0f} random ones" in chosen[smallest].note
    best = chosen[smallest]
    assert isinstance(best, ChosenMixtures)
    assert best.gain == pytest.approx(number(best.value) - number(random[smallest].value))
    assert smallest < best.replaces <= max(k or 0 for k in random)
    assert design_value(Points.of(STACKLOSS[:11], ["air"]), 0.95) == []
