"""Verdicts: against Welch's test, and right as often as they say on simulated finetunes."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from im_assets.experiments.lineage import LineageError
from im_assets.validation.arms import Arm, arms_of
from im_assets.validation.verdicts import (
    deciles,
    noise_floor,
    require_all,
    validation_runs,
    verdicts,
)
from im_resources.study import StrategySettings, ValidationSettings


def runs(arms: dict[str, list[float]], noise: list[float] | None = None) -> pd.DataFrame:
    rows = [
        ("strategy", name, 64, seed, 0, loss)
        for name, losses in arms.items()
        for seed, loss in enumerate(losses)
    ]
    rows += [("noise", "noise", 64, seed, 0, loss) for seed, loss in enumerate(noise or [], 1)]
    columns = ["kind", "strategy", "size", "seed", "slice", "loss"]
    return pd.DataFrame(rows, columns=columns)


def test_two_arms_are_welchs_test() -> None:
    rule, random = [1.50, 1.47, 1.52], [1.60, 1.55, 1.63, 1.58]
    row = verdicts(runs({"rule": rule, "random": random})).set_index("strategy").loc["rule"]
    test = stats.ttest_ind(rule, random, equal_var=False)
    interval = test.confidence_interval(0.95)
    assert row["p"] == pytest.approx(test.pvalue)
    assert row["difference_low"] == pytest.approx(interval.low)
    assert row["difference_high"] == pytest.approx(interval.high)
    assert row["noise_units"] == pytest.approx(
        (np.mean(rule) - np.mean(random)) / np.std(random, ddof=1)
    )
    assert row["verdict"] == "better"


def test_worse_and_not_distinguishable_are_said_too() -> None:
    random = [1.60, 1.55, 1.63, 1.58]
    arms = {"random": random, "bad": [1.90, 1.92, 1.89], "same": [1.57, 1.60, 1.59]}
    found = verdicts(runs(arms)).set_index("strategy")["verdict"].to_dict()
    assert found == {"random": "baseline", "bad": "worse", "same": "not distinguishable"}


def test_without_any_difference_a_verdict_is_rare() -> None:
    generator = np.random.Generator(np.random.PCG64(7))
    trials = 400
    wrong = 0
    for _ in range(trials):
        subset, seed = 0.02, 0.01
        random = list(2 + generator.normal(0, np.hypot(subset, seed), 6))
        noise = list(random[0] + generator.normal(0, seed, 2))
        # A strategy is one draw of quality from the same world, as a random subset is; the claim
        # tested is about its mean, so its own subset has no spread here.
        arms = {name: list(2 + generator.normal(0, seed, 3)) for name in ("a", "b", "c")}
        table = verdicts(runs({"random": random, **arms}, noise))
        wrong += bool(table["verdict"].isin(["better", "worse"]).any())
    # At most 5 % for all three together: 20 ± 4.4 of 400.
    assert wrong <= 33


def test_a_difference_of_many_noise_floors_is_found() -> None:
    generator = np.random.Generator(np.random.PCG64(8))
    found = 0
    for _ in range(100):
        random = list(2 + generator.normal(0, 0.02, 6))
        arms = {name: list(1.85 + generator.normal(0, 0.01, 3)) for name in ("a", "b")}
        table = verdicts(runs({"random": random, **arms}))
        found += int((table["verdict"] == "better").sum())
    assert found >= 190


def test_the_noise_floor_tells_seeds_from_subsets() -> None:
    random, noise = [1.60, 1.50, 1.70, 1.65], [1.61, 1.59]
    table = noise_floor(runs({"random": random, "rule": [1.5, 1.5]}, noise)).set_index("source")
    assert table.loc["finetune seed", "sd"] == pytest.approx(np.std([1.60, 1.61, 1.59], ddof=1))
    assert table.loc["finetune seed", "finetunes"] == 3
    assert table.loc["random subset", "sd"] == pytest.approx(np.std(random, ddof=1))
    # The textbook interval: s² (n - 1) / chi² with three degrees of freedom, 0.216 and 9.348.
    s = np.std(random, ddof=1)
    assert table.loc["random subset", "sd_low"] == pytest.approx(s * np.sqrt(3 / 9.348), rel=1e-3)
    assert table.loc["random subset", "sd_high"] == pytest.approx(s * np.sqrt(3 / 0.2158), rel=1e-3)


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


def test_random_gets_twice_the_seeds_and_the_noise_starts_from_its_first() -> None:
    settings = ValidationSettings(
        strategies={
            "rule": StrategySettings(strategy="rule"),
            "random": StrategySettings(strategy="random"),
        },
        sizes=(64, 128),
        seeds=3,
        deciles=5,
        noise_repeats=3,
    )
    arms = arms_of(settings)
    assert [k for k in arms if k.startswith("random-128")] == [
        f"random-128-seed-{i:03d}" for i in range(6)
    ]
    assert [k for k in arms if k.startswith("noise-64")] == [
        "noise-64-seed-001",
        "noise-64-seed-002",
    ]
    assert sum(a.kind == "decile" for a in arms.values()) == 5
    assert len(arms) == 2 * (3 + 6 + 2) + 5


@pytest.mark.parametrize("name", ["noise", "size", "decile-01"])
def test_names_that_the_validation_uses_are_refused(name: str) -> None:
    arms = {"random": StrategySettings(strategy="random"), name: StrategySettings(strategy="rule")}
    with pytest.raises(ValueError, match=name):
        ValidationSettings(strategies=arms)


def test_there_is_one_random_arm() -> None:
    arms = {name: StrategySettings(strategy="random") for name in ("random", "again")}
    with pytest.raises(ValueError, match="one random arm"):
        ValidationSettings(strategies=arms)
