"""A selection of one kind is told, with numbers; a random one seldom is."""

from collections.abc import Callable
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from im_assets.selection.checks import composition_check
from im_assets.selection.composition import (
    DRAWS,
    FALSE_ALARMS,
    NOTABLE,
    composition_table,
    compositions,
    concentration,
)
from im_resources.warehouse import Warehouse


def a_pool(count: int, seed: int = 0, categories: int = 8) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "example_id": [f"id-{i:05d}" for i in range(count)],
            "source": "mine",
            "language": rng.choice(["en", "zh", "und"], count, p=[0.8, 0.18, 0.02]),
            "category": [f"c{i}" for i in rng.zipf(1.6, count).clip(max=categories)],
            "length": rng.lognormal(5, 1, count).round(),
        }
    )


def found(pool: pd.DataFrame, chosen: pd.DataFrame) -> str:
    return concentration(compositions(pool, chosen["example_id"]))


def test_a_selection_of_one_language_is_told_with_both_shares() -> None:
    pool = a_pool(1000)
    chinese, english = (pool[pool["language"] == code] for code in ("zh", "en"))
    said = found(pool, pd.concat([chinese.head(47), english.head(3)]))
    share = (pool["language"] == "zh").mean()
    assert said == f"94% of the selection is zh (language), and {share:.0%} of the pool"


def test_a_selection_of_the_longest_is_told_and_one_group_is_no_question() -> None:
    pool = a_pool(400)
    longest = pool.nlargest(50, "length")
    said = found(pool, longest)
    assert "100% of the selection is longest quarter (length of the response)" in said
    assert "source" not in [one.column for one in compositions(pool, longest["example_id"])]


def test_a_preference_without_collapse_is_not_told() -> None:
    pool = a_pool(2000)
    order = pool.sort_values("length", ascending=False)
    half = pd.concat([order.head(1000).sample(120, random_state=0), order.tail(1000).sample(80)])
    assert found(pool, half) == ""


@pytest.mark.parametrize(
    ("count", "size", "categories"),
    [(60, 8, 20), (200, 20, 8), (1000, 50, 200), (3000, 1000, 16)],
)
def test_random_selections_are_called_concentrated_in_one_of_twenty_at_most(
    count: int, size: int, categories: int
) -> None:
    """Also where chance alone is far from the pool: 20 categories among 8 examples."""
    pool, trials = a_pool(count, categories=categories), 150
    alarms = sum(bool(found(pool, pool.sample(size, random_state=k))) for k in range(trials))
    # Two standard errors above the rate that is promised.
    rate = FALSE_ALARMS
    assert alarms / trials <= rate + 2 * np.sqrt(rate * (1 - rate) / trials)


def test_the_bound_is_a_quarter_unless_chance_goes_further() -> None:
    assert DRAWS * FALSE_ALARMS / 4 > 20  # the quantile is not an extreme of the draws
    large, small = a_pool(3000), a_pool(60, categories=20)
    bounds = [one.bound for one in compositions(large, large["example_id"].head(1000))]
    assert set(bounds) == {NOTABLE}
    few = compositions(small, small["example_id"].head(8))
    assert {one.column for one in few if one.bound > NOTABLE} >= {"category"}


def test_shares_are_of_all_examples_and_the_table_names_the_largest_differences() -> None:
    pool = a_pool(500, categories=30)
    composed = compositions(pool, pool["example_id"].head(40))
    for one in composed:
        assert one.shares.sum().tolist() == pytest.approx([1, 1])
        assert one.distance == pytest.approx(
            one.shares.diff(axis=1)["selected"].clip(lower=0).sum()
        )
    table = composition_table(composed, most=3)
    assert table.groupby("column").size().max() == 3
    assert compositions(pool, pd.Series([], dtype=str)) == []
    assert composition_table([]).empty


@pytest.fixture
def judge(tmp_path: Path) -> Callable[[pd.DataFrame, pd.DataFrame], dg.AssetCheckResult]:
    check, warehouse = composition_check("mine"), Warehouse(tmp_path / "warehouse.duckdb")

    def judged(selection: pd.DataFrame, examples: pd.DataFrame) -> dg.AssetCheckResult:
        warehouse.replace_table("mine_dataset", examples)
        result = check(selection, warehouse=warehouse)
        assert isinstance(result, dg.AssetCheckResult)
        return result

    return judged


def test_the_check_warns_and_does_not_block(
    judge: Callable[[pd.DataFrame, pd.DataFrame], dg.AssetCheckResult],
) -> None:
    pool = a_pool(300)
    pool = pool.assign(output=["x" * int(n) for n in pool.pop("length")])
    chinese = pool[pool["language"] == "zh"].head(30)
    warned = judge(chinese, pool)
    assert not warned.passed
    assert warned.severity == dg.AssetCheckSeverity.WARN
    assert "100% of the selection is zh" in str(warned.description)
    assert "zh" in str(warned.metadata["shares"].value)
    assert judge(pool.sample(100, random_state=1), pool).passed
    [spec] = composition_check("mine").check_specs
    assert not spec.blocking
