"""Verdicts: against textbook intervals, and what a table is refused for."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from im_assets.experiments.lineage import LineageError
from im_assets.rule.target import Target
from im_assets.validation.arms import Arm
from im_assets.validation.verdicts import deciles, require_all, validation_runs, verdicts

GROUPS = 8


def runs(
    arms: dict[str, list[float]], without: dict[str, np.ndarray] | None = None, size: int = 64
) -> pd.DataFrame:
    """Finetunes of some strategies; ``without`` [groups] of each are its losses without each of
    some groups of instructions, which have no effect by default."""
    rows = [
        ("strategy", name, size, seed, 0, loss, list(loss + (without or {}).get(name, np.zeros(8))))
        for name, losses in arms.items()
        for seed, loss in enumerate(losses)
    ]
    columns = ["kind", "strategy", "size", "seed", "slice", "loss", "loss_without"]
    return pd.DataFrame(rows, columns=columns)


RULE, RANDOM = [1.50, 1.47, 1.52], [1.60, 1.55, 1.63, 1.58]


def row_of(table: pd.DataFrame, strategy: str = "rule") -> pd.Series:
    return table[table["strategy"] == strategy].iloc[0]


def test_the_interval_of_a_difference_by_hand() -> None:
    row = row_of(verdicts(runs({"rule": RULE, "random": RANDOM})))
    errors = stats.sem(RULE), stats.sem(RANDOM)
    # t² with 2 and 3 degrees of freedom, 4.3027² and 3.1824², each times its own variance.
    half = np.sqrt((4.30265 * errors[0]) ** 2 + (3.18245 * errors[1]) ** 2)
    gap = np.mean(RULE) - np.mean(RANDOM)
    assert row["difference"] == pytest.approx(gap)
    assert row["difference_low"] == pytest.approx(gap - half, rel=1e-5)
    assert row["difference_high"] == pytest.approx(gap + half, rel=1e-4)
    assert row["finetune_sd"] == pytest.approx(np.hypot(*errors))
    assert row["instruction_sd"] == 0
    assert row["noise_units"] == pytest.approx(gap / np.std(RANDOM, ddof=1))
    assert row["verdict"] == "better"
    assert row["loss_low"] == pytest.approx(np.mean(RULE) - 4.30265 * errors[0], rel=1e-5)


def test_instructions_widen_the_interval_and_take_the_verdict_back() -> None:
    shifts = np.array([-1, 1, -1, 1, -1, 1, -1, 1]) * 0.05
    table = verdicts(runs({"rule": RULE, "random": RANDOM}, {"rule": shifts}))
    row, before = row_of(table), row_of(verdicts(runs({"rule": RULE, "random": RANDOM})))
    # Eight groups: 7/8 times eight squares of 0.05.
    assert row["instruction_sd"] == pytest.approx(0.05 * np.sqrt(7))
    assert row["difference"] == before["difference"]
    assert row["difference_low"] < before["difference_low"]
    assert row["detectable"] > before["detectable"]
    assert (before["verdict"], row["verdict"]) == ("better", "not distinguishable")


def test_what_moves_all_arms_alike_is_no_noise() -> None:
    harder = np.linspace(-0.2, 0.2, GROUPS)  # groups that are hard for everybody
    table = verdicts(runs({"rule": RULE, "random": RANDOM}, {"rule": harder, "random": harder}))
    assert row_of(table)["instruction_sd"] == pytest.approx(0, abs=1e-12)
    assert row_of(table)["verdict"] == "better"


def test_worse_and_not_distinguishable_are_said_too() -> None:
    arms = {"random": RANDOM, "bad": [1.95, 1.96, 1.94], "same": [1.57, 1.60, 1.59]}
    found = verdicts(runs(arms)).set_index("strategy")["verdict"].to_dict()
    assert found == {"random": "baseline", "bad": "worse", "same": "not distinguishable"}
    higher = verdicts(runs(arms), Target("loss", "identity", "higher"))
    assert row_of(higher, "bad")["verdict"] == "better"


def test_without_instructions_to_tell_by_there_is_no_interval() -> None:
    frame = runs({"rule": RULE, "random": RANDOM})
    frame["loss_without"] = [[] for _ in range(len(frame))]
    row = row_of(verdicts(frame))
    assert row[["difference_low", "difference_high", "detectable"]].isna().all()
    assert row["verdict"] == "not distinguishable"
    assert row["difference"] < 0


def test_more_comparisons_in_a_table_make_each_harder() -> None:
    one = runs({"rule": RULE, "random": RANDOM})
    two = pd.concat([one, runs({"rule": RULE, "random": RANDOM}, size=128)])
    alone = row_of(verdicts(one))
    both = row_of(verdicts(two).query("size == 64"))
    assert both["difference_high"] > alone["difference_high"]
    # Two comparisons: each at 97.5 %.
    errors = stats.sem(RULE), stats.sem(RANDOM)
    half = np.hypot(*(stats.t.ppf(0.9875, df) * e for df, e in zip((2, 3), errors, strict=True)))
    assert both["difference_high"] == pytest.approx(both["difference"] + half)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_a_verdict_does_not_depend_on_the_order_of_rows_or_arms(seed: int) -> None:
    generator = np.random.Generator(np.random.PCG64(seed))
    names = ["random", "rule", "length", "reward"]
    arms = {n: list(generator.normal(2, 0.1, 6 if n == "random" else 3)) for n in names}
    without = {n: generator.normal(0, 0.01, GROUPS) for n in names}
    table, shuffled = runs(arms, without), [names[i] for i in generator.permutation(4)]
    other = runs({n: arms[n] for n in shuffled}, without)
    other = other.iloc[generator.permutation(len(other))]
    pd.testing.assert_frame_equal(verdicts(other), verdicts(table))


def test_losses_over_the_deciles_are_correlated_with_the_rule() -> None:
    rows = pd.DataFrame(
        [("decile", f"decile-{i}", 64, 0, i, 1.5 + 0.01 * i + 0.004 * (i % 2)) for i in range(10)],
        columns=["kind", "strategy", "size", "seed", "slice", "loss"],
    )
    table = deciles(rows, np.linspace(0.1, 0.5, 10))
    assert table["decile"].tolist() == list(range(1, 11))
    assert table["spearman"].iloc[0] > 0.9


def test_an_arm_without_a_loss_is_named() -> None:
    arms = {f"rule-64-seed-00{seed}": Arm("strategy", "rule", 64, seed) for seed in range(2)}
    found = validation_runs({"rule-64-seed-000": 1.5}, arms).assign(rule_id="r")
    assert found["arm"].tolist() == ["rule-64-seed-000"]
    with pytest.raises(LineageError, match=r"lacks rule-64-seed-001: see .*validation_parts_agree"):
        require_all(found, arms)


def test_verdicts_are_about_one_rule() -> None:
    arms = {f"rule-64-seed-00{seed}": Arm("strategy", "rule", 64, seed) for seed in range(2)}
    found = validation_runs(dict.fromkeys(arms, 1.5), arms)
    assert require_all(found.assign(rule_id="r"), arms) == "r"
    with pytest.raises(LineageError, match=r"2 different rules; materialize selection_samples"):
        require_all(found.assign(rule_id=["r", "s"]), arms)
