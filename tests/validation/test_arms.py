"""The arms: parts of the pool that are disjoint, and what each finetune is on."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from im_assets.selection.pool import Pool
from im_assets.selection.selecting import SelectionError
from im_assets.validation.arms import arms_of, members, parts_of, selection_arm, tokens_arm
from im_resources.study import SelectionSettings, StrategySettings, ValidationSettings
from tests.selection.pools import reordered, small_pool

STRATEGIES = {
    "rule": StrategySettings(strategy="rule"),
    "random": StrategySettings(strategy="random"),
    "long": StrategySettings(strategy="highest", options={"indicator": "len_out"}),
}
SELECTION = SelectionSettings(size=10)


def validation(**changes: object) -> ValidationSettings:
    given = {"strategies": STRATEGIES, "sizes": (5,), "seeds": 3, "deciles": 0, "noise_repeats": 3}
    return ValidationSettings.model_validate(given | changes)


def chosen(pool: Pool, settings: ValidationSettings) -> dict[str, set[str]]:
    """The example_ids of every arm."""
    parts, ids = parts_of(pool, settings), pool.examples["example_id"].to_numpy()
    arms = arms_of(settings, SELECTION)
    return {
        key: set(ids[members(arm, pool, parts, settings, SELECTION)]) for key, arm in arms.items()
    }


@settings(max_examples=20, deadline=None)
@given(count=st.integers(20, 90), seeds=st.integers(2, 4), seed=st.integers(0, 5))
def test_finetunes_of_a_strategy_share_no_example_whatever_the_rows_order(
    count: int, seeds: int, seed: int
) -> None:
    pool, wanted = small_pool(count, seed), validation(seeds=seeds)
    found = chosen(pool, wanted)
    for name in ("rule", "long"):
        sets = [found[f"{name}-5-seed-{s:03d}"] for s in range(seeds)]
        assert all(len(s) == 5 for s in sets)
        assert len(set().union(*sets)) == 5 * seeds
    order = np.random.default_rng(seed).permutation(count)
    assert chosen(reordered(pool, order), wanted) == found


def test_the_parts_hold_the_pool_once_and_are_of_one_size() -> None:
    pool = small_pool(50)
    parts = parts_of(pool, validation(seeds=4))
    assert sorted(np.concatenate([p.positions for p in parts]).tolist()) == list(range(50))
    assert sorted(len(p.pool) for p in parts) == [12, 12, 13, 13]
    for part in parts:
        ids = pool.examples["example_id"].iloc[part.positions].tolist()
        assert part.pool.examples["example_id"].tolist() == ids
        assert part.pool.indicators.index.tolist() == ids
        np.testing.assert_array_equal(part.pool.embeddings(), pool.embeddings()[part.positions])
        some = np.array([3, 0])
        np.testing.assert_array_equal(
            part.pool.vectors(some), pool.embeddings()[part.positions[some]]
        )


def test_each_takes_the_best_of_its_part_and_noise_the_worst_of_the_first() -> None:
    pool, wanted = small_pool(60), validation()
    found, parts = chosen(pool, wanted), parts_of(pool, wanted)
    for seed, part in enumerate(parts):
        values = part.pool.rule.badness(part.pool.indicators)
        ids = part.pool.examples["example_id"].to_numpy()
        mine = np.isin(ids, list(found[f"rule-5-seed-{seed:03d}"]))
        assert values[mine].max() <= values[~mine].min()
        if seed == 0:
            worst = np.isin(ids, list(found["noise-worst-5-seed-000"]))
            assert values[worst].min() >= values[~worst].max()


def test_noise_repeats_a_random_subset_the_selection_and_the_worst() -> None:
    found = chosen(small_pool(60), validation())
    noise = sorted(key for key in found if key.startswith("noise"))
    assert noise == [
        "noise-5-seed-001", "noise-5-seed-002",
        "noise-rule-5-seed-001", "noise-rule-5-seed-002",
        "noise-worst-5-seed-000", "noise-worst-5-seed-001", "noise-worst-5-seed-002",
    ]  # fmt: skip
    assert found["noise-5-seed-001"] == found["random-5-seed-000"] != found["random-5-seed-001"]
    assert found["noise-rule-5-seed-002"] == found["rule-5-seed-000"]
    assert found["noise-worst-5-seed-001"] == found["noise-worst-5-seed-000"]


def test_the_selection_is_the_arm_that_selects_as_the_profile_does() -> None:
    longest = SelectionSettings(strategy="highest", options={"indicator": "len_out"}, size=10)
    assert selection_arm(validation(), longest) == "long"
    assert selection_arm(validation(), SelectionSettings(strategy="random", size=10)) == "rule"
    others = {name: STRATEGIES[name] for name in ("random", "long")}
    without = validation(strategies=others)
    assert selection_arm(without, SELECTION) is None
    assert not any("rule" in key for key in arms_of(without, SELECTION))


def test_random_gets_twice_the_seeds() -> None:
    arms = arms_of(validation(sizes=(64, 128), deciles=5), SELECTION)
    assert [k for k in arms if k.startswith("random-128")] == [
        f"random-128-seed-{i:03d}" for i in range(6)
    ]
    assert sum(a.kind == "decile" for a in arms.values()) == 5
    assert len(arms) == 2 * (3 + 6 + 3 + 2 + 2 + 3) + 5


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 50), size=st.integers(1, 12), spread=st.integers(1, 200))
def test_random_subsets_of_as_many_tokens_come_within_half_an_example(
    seed: int, size: int, spread: int
) -> None:
    rng = np.random.default_rng(seed)
    ids = small_pool(60).examples["example_id"].tolist()
    tokens = dict(zip(ids, rng.integers(5, 5 + spread, 60).tolist(), strict=True))
    pool = small_pool(60, tokens=lambda: np.array([tokens[i] for i in ids]))
    wanted = validation(references=("tokens",), tokens_of="long", sizes=(size,))
    found = chosen(pool, wanted)
    for number, part in enumerate(parts_of(pool, wanted)):
        mine = found[f"tokens-{size}-seed-{number:03d}"]
        assert mine <= set(part.pool.examples["example_id"])
        budget = sum(tokens[i] for i in found[f"long-{size}-seed-{number:03d}"])
        # One example there is in any case.
        error = abs(sum(tokens[i] for i in mine) - budget)
        assert error <= max(tokens.values()) / 2 or len(mine) == 1
    order = rng.permutation(60)
    assert chosen(reordered(pool, order), wanted) == found


def test_the_full_pool_is_finetuned_on_as_often_as_noise_is_repeated() -> None:
    pool, wanted = small_pool(30), validation(references=("full_pool", "base"))
    found = chosen(pool, wanted)
    whole = {key: ids for key, ids in found.items() if key.startswith("full_pool")}
    assert list(whole) == [f"full_pool-0-seed-{i:03d}" for i in range(3)]
    assert all(ids == set(pool.examples["example_id"]) for ids in whole.values())
    assert not any(key.startswith("base") for key in found)


def test_tokens_are_matched_to_what_the_profile_selects_by_or_names() -> None:
    assert tokens_arm(validation(), SELECTION) == "rule"
    assert tokens_arm(validation(tokens_of="long"), SELECTION) == "long"
    others = {name: STRATEGIES[name] for name in ("random", "long")}
    with pytest.raises(SelectionError, match=r"name one in validation\.tokens_of"):
        tokens_arm(validation(strategies=others), SELECTION)
    for wrong in ("random", "ruel"):
        with pytest.raises(ValueError, match=f"tokens_of: '{wrong}' is no strategy"):
            validation(tokens_of=wrong)
    with pytest.raises(ValueError, match=r"strategies\.tokens: a name of `references`"):
        validation(strategies={**STRATEGIES, "tokens": STRATEGIES["long"]}, references=("tokens",))


def test_a_pool_too_small_for_disjoint_parts_says_what_to_lower() -> None:
    said = (
        r"validation\.seeds \(3\) cuts its 14 examples into parts of 4, fewer than "
        r"validation\.sizes asks for \(5\); lower validation\.sizes or validation\.seeds"
    )
    with pytest.raises(SelectionError, match=said):
        parts_of(small_pool(14), validation())
    assert len(parts_of(small_pool(15), validation())) == 3


@pytest.mark.parametrize("name", ["noise", "noise-rule", "worst", "size", "decile-01"])
def test_names_that_the_validation_uses_are_refused(name: str) -> None:
    arms = {"random": StrategySettings(strategy="random"), name: StrategySettings(strategy="rule")}
    with pytest.raises(ValueError, match=name):
        ValidationSettings(strategies=arms)


def test_there_is_one_random_arm() -> None:
    arms = {name: StrategySettings(strategy="random") for name in ("random", "again")}
    with pytest.raises(ValueError, match="one random arm"):
        ValidationSettings(strategies=arms)
