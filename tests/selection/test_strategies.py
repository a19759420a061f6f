"""Every strategy: what it ranks first, what holds for all of them, and what it refuses."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from im_assets.selection.choosing import choose, resolve_size
from im_assets.selection.pool import Pool
from im_assets.selection.registry import STRATEGIES, check_strategies, strategy
from im_assets.selection.selecting import SelectionError
from im_resources.study import SelectionSettings, StrategySettings, Study, load_study
from tests.registries import isolate
from tests.selection.pools import INDICATORS, linear_rule, reordered, small_pool

OPTIONS: dict[str, dict[str, Any]] = {
    "highest": {"indicator": "len_out"},
    "lowest": {"indicator": "ppl"},
    "similar_to": {"path": "sample_data/targets.jsonl"},
}
ALL = sorted(STRATEGIES.all())


def select(name: str, pool: Pool, size: int, seed: int = 0, **options: Any) -> np.ndarray:
    chosen = StrategySettings(strategy=name, options=OPTIONS.get(name, {}) | options)
    return choose(chosen, pool, size, seed)


def ids(pool: Pool, positions: np.ndarray) -> list[str]:
    return pool.examples["example_id"].iloc[positions].tolist()


# -- what holds for all --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=15, deadline=None)
@given(count=st.integers(1, 60), share=st.floats(0.01, 1), seed=st.integers(0, 3))
def test_a_selection_is_of_the_size_without_doubles_whatever_the_rows_order(
    name: str, count: int, share: float, seed: int
) -> None:
    pool, size = small_pool(count, seed), max(1, round(share * count))
    chosen = select(name, pool, size, seed)
    assert chosen.shape == (size,)
    assert len(set(chosen.tolist())) == size
    assert set(chosen.tolist()) <= set(range(count))
    order = np.random.default_rng(seed).permutation(count)
    other = reordered(pool, order)
    assert ids(other, select(name, other, size, seed)) == ids(pool, chosen)


@pytest.mark.parametrize("name", ALL)
def test_more_than_the_pool_cannot_be_selected(name: str) -> None:
    with pytest.raises(SelectionError, match=r"size is 6, but .* only 5 examples"):
        select(name, small_pool(5), 6)


# -- what each ranks first -----------------------------------------------------------------------


def test_the_rule_ranks_the_lowest_predicted_log_loss_first() -> None:
    pool = small_pool(50, rule=linear_rule(reward=-0.5, len_out=0.01))
    values = 1 - 0.5 * pool.indicators["reward"] + 0.01 * pool.indicators["len_out"]
    names = pool.examples["example_id"].tolist()
    expected = sorted(range(50), key=lambda i: (round(values.iloc[i], 9), names[i]))
    assert select("rule", pool, 20).tolist() == expected[:20]


def test_the_published_rules_are_the_papers() -> None:
    pool = small_pool(40)
    v = pool.indicators
    one = 1.0684 - 0.1498 * v["reward"] + 8.257e-5 * v["len_out"] - 0.9350 * v["knn_6"]
    two = 0.0274 - 0.0078 * v["reward"] + 0.4421 * v["und"] - 0.3212 * v["nat"] - 0.1520 * v["coh"]
    for name, values in (("published_v1", one), ("published_v2", two)):
        chosen = values.iloc[select(name, pool, 40)].to_numpy()
        assert (np.diff(chosen) >= -1e-12).all()
        assert chosen[0] == values.min()


@pytest.mark.parametrize(("name", "sign"), [("highest", -1), ("lowest", 1)])
def test_one_indicator_alone(name: str, sign: int) -> None:
    pool = small_pool(30)
    chosen = pool.indicators["ppl"].iloc[select(name, pool, 30, indicator="ppl")].to_numpy()
    assert (np.diff(sign * chosen) >= 0).all()


def test_ifd_takes_the_hardest_that_still_follow_and_the_others_last() -> None:
    pool = small_pool(4)
    pool.indicators["ifd"] = [0.5, 1.2, 0.9, 1.01]
    assert select("ifd", pool, 4).tolist() == [2, 0, 3, 1]
    assert select("ifd", pool, 4, below=2.0).tolist() == [1, 3, 2, 0]


def test_random_subsets_differ_by_seed_and_favour_nobody() -> None:
    pool = small_pool(20)
    draws = [select("random", pool, 5, seed) for seed in range(800)]
    np.testing.assert_array_equal(draws[3], select("random", pool, 5, 3))
    counts = np.bincount(np.concatenate(draws), minlength=20)
    # 800 draws of probability 1/4: 200 ± 12 (one standard deviation).
    assert counts.min() > 200 - 5 * 12.3
    assert counts.max() < 200 + 5 * 12.3


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 60), share=st.floats(0.01, 1), seed=st.integers(0, 3))
def test_each_stratum_has_its_share_to_within_one_example(
    count: int, share: float, seed: int
) -> None:
    pool, size = small_pool(count, seed, clusters=5), max(1, round(share * count))
    pool.examples.loc[pool.examples["category"] == "c1", "category"] = None
    chosen = pool.examples.iloc[select("stratified", pool, size, seed, by="category")]
    held = pool.examples["category"].fillna("none").value_counts()
    taken = chosen["category"].fillna("none").value_counts().reindex(held.index, fill_value=0)
    assert (abs(taken - held * size / count) < 1).all()


def test_within_a_stratum_chance_decides_and_favours_nobody() -> None:
    pool = small_pool(24, clusters=2)
    pool.examples["source"] = ["large"] * 16 + ["small"] * 8
    draws = [select("stratified", pool, 6, seed) for seed in range(800)]
    counts = np.bincount(np.concatenate(draws), minlength=24)
    # 800 draws of probability 1/4: 200 ± 12 (one standard deviation).
    assert abs(counts - 200).max() < 5 * 12.3


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rule", "set_aware"])
def test_a_rule_without_indicators_selects_nothing(name: str) -> None:
    with pytest.raises(SelectionError, match=r"no indicator.*more mixtures.*published_v1"):
        select(name, small_pool(5, rule=linear_rule()), 2)


@pytest.mark.parametrize(
    ("name", "lacking"),
    [("published_v1", "knn_6"), ("published_v2", "und"), ("highest", "len_out"), ("ifd", "ifd")],
)
def test_an_indicator_that_the_pool_lacks_is_named(name: str, lacking: str) -> None:
    known = [name for name in INDICATORS if name != lacking]
    with pytest.raises(SelectionError, match=f"no indicator '{lacking}'.*it has: .*reward"):
        select(name, small_pool(9, columns=known), 2)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (
            {"strategy": "rul"},
            r"strategy: unknown selection strategy 'rul'; did you mean 'rule'\?; known: hi",
        ),
        ({"strategy": "rule", "options": {"x": 1}}, r"options\.x: rule has no such option; it has"),
        (
            {"strategy": "set_aware", "options": {"wieght": 1}},
            r"options\.wieght: set_aware has no such option; did you mean 'weight'\?; known: wei",
        ),
        (
            {"strategy": "set_aware", "options": {"weight": 2}},
            r"options\.weight: .*less than or equal to 1 \(found 2\)",
        ),
        ({"strategy": "highest"}, r"options\.indicator: highest needs this option"),
        (
            {"strategy": "highest", "options": {"indicator": "len_ou"}},
            r"options\.indicator: highest reads the indicator 'len_ou', which .*'len_out'",
        ),
        ({"strategy": "ifd"}, r"strategy: ifd reads the indicator 'ifd', which the profile does"),
    ],
)
def test_a_strategy_is_checked_before_anything_runs(chosen: dict[str, Any], message: str) -> None:
    study = load_study("demo")
    check_strategies(study)
    wrong = study.model_copy(update={"selection": SelectionSettings(**chosen)})
    with pytest.raises(SelectionError, match=r"selection\." + message):
        check_strategies(wrong)


@pytest.mark.parametrize("name", ["set_aware", "similar_to"])
def test_a_strategy_of_embeddings_needs_that_the_profile_makes_them(name: str) -> None:
    content = load_study("demo").model_dump()
    content["selection"] |= {"strategy": name, "options": OPTIONS.get(name, {})}
    check_strategies(Study.model_validate(content))
    del content["scoring"]["indicators"]["knn_6"]
    with pytest.raises(SelectionError, match=rf"{name} reads the examples' embeddings.*knn_6"):
        check_strategies(Study.model_validate(content))


def test_the_arms_of_the_validation_are_checked_too() -> None:
    block = {"strategies": {"random": "random", "best": "rul"}}
    content = load_study("demo").model_dump() | {"validation": block}
    with pytest.raises(SelectionError, match=r"validation\.strategies\.best\.strategy: unknown"):
        check_strategies(Study.model_validate(content))


@pytest.fixture
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(STRATEGIES, monkeypatch)


@pytest.mark.usefixtures("own_registry")
def test_a_strategy_of_ones_own_is_one_decorator() -> None:
    @strategy("every_other")
    def every_other(pool: Pool, size: int, seed: int, start: int = 0) -> np.ndarray:
        order = pool.ranked(np.zeros(len(pool)))
        return np.concatenate([order[start::2], order[1 - start :: 2]])[:size]

    pool = small_pool(6)
    assert ids(pool, select("every_other", pool, 3)) == ["id-0000", "id-0002", "id-0004"]
    assert ids(pool, select("every_other", pool, 1, start=1)) == ["id-0001"]
    with pytest.raises(SelectionError, match="two entries are called 'every_other'"):

        @strategy("every_other")
        def other(pool: Pool, size: int, seed: int) -> np.ndarray:
            return every_other(pool, size, seed)


@pytest.mark.usefixtures("own_registry")
@pytest.mark.parametrize(
    "wrong",
    [
        lambda size: np.zeros(size, dtype=int),
        lambda size: np.arange(size - 1),
        lambda size: np.arange(size) - 1,
        lambda size: np.arange(size) + 8,
        lambda size: np.arange(size, dtype=float),
    ],
    ids=["doubles", "too few", "negative", "outside", "no integers"],
)
def test_a_strategy_that_gives_something_else_is_caught(wrong: Callable[[int], Any]) -> None:
    @strategy("wrong")
    def chosen(pool: Pool, size: int, seed: int) -> np.ndarray:
        return np.asarray(wrong(size))

    with pytest.raises(SelectionError, match=r"'wrong' has to give 3 different positions"):
        select("wrong", small_pool(10), 3)


# -- sizes ---------------------------------------------------------------------------------------


def test_a_size_is_a_number_or_a_fraction_of_the_pool() -> None:
    assert resolve_size(7, 100) == 7
    assert resolve_size(0.25, 100) == 25
    assert resolve_size(0.001, 100) == 1
    assert resolve_size(100, 100) == 100
    with pytest.raises(SelectionError, match=r"selection\.size is 101, but .* only 100 examples"):
        resolve_size(101, 100)
