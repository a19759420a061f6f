"""The set-aware strategy against brute force, against the plain rule, and at its random steps."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from im_assets.selection import coverage
from im_assets.selection.choosing import choose
from im_assets.selection.coverage import greedy_cover
from im_resources.study import StrategySettings
from tests.selection.pools import linear_rule, small_pool

ALWAYS = 1 - 1 / math.e


def unit(count: int, seed: int, dimensions: int = 6) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, dimensions))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def objective(
    members: tuple[int, ...],
    quality: np.ndarray,
    vectors: np.ndarray,
    reference: np.ndarray,
    size: int,
    weight: float,
) -> float:
    """F of the module's docstring, from pairwise cosines."""
    rows = list(members)
    nearest = np.maximum(0, 1 - cdist(reference, vectors[rows], "cosine")).max(axis=1)
    return float((1 - weight) * quality[rows].sum() / size + weight * nearest.mean())


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(4, 9),
    size=st.integers(1, 4),
    weight=st.floats(0, 1),
    seed=st.integers(0, 10_000),
)
def test_the_greedy_set_is_within_its_guarantee_of_the_best(
    count: int, size: int, weight: float, seed: int
) -> None:
    vectors, reference = unit(count, seed), unit(20, seed + 1)
    quality = np.random.default_rng(seed).uniform(size=count)
    # So small an epsilon that every step looks at all candidates: the guarantee is then certain.
    chosen = greedy_cover(quality, vectors, reference, size, weight, 1e-9, seed)
    assert len(set(chosen.tolist())) == size

    def value(members: tuple[int, ...]) -> float:
        return objective(members, quality, vectors, reference, size, weight)

    best = max(map(value, combinations(range(count), size)))
    assert value(tuple(chosen)) >= ALWAYS * best - 1e-6


def test_the_first_choice_is_the_best_single_candidate() -> None:
    vectors, reference = unit(30, 1), unit(50, 2)
    quality = np.random.default_rng(3).uniform(size=30)
    chosen = greedy_cover(quality, vectors, reference, 5, 0.5, 1e-9, 0)
    values = [objective((i,), quality, vectors, reference, 5, 0.5) for i in range(30)]
    assert chosen[0] == np.argmax(values)


@pytest.mark.parametrize("block", [1, 10_000, 1 << 24])
def test_random_steps_keep_the_guarantee_on_average(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    """Against the full greedy set, which no set beats by more than 1 / (1 - 1/e)."""
    monkeypatch.setattr(coverage, "BLOCK", block)
    vectors, reference, size, epsilon = unit(400, 1), unit(60, 2), 40, 0.1
    quality = np.random.default_rng(3).uniform(size=400)

    def value(tolerance: float, seed: int) -> float:
        chosen = greedy_cover(quality, vectors, reference, size, 0.5, tolerance, seed)
        assert len(set(chosen.tolist())) == size
        return objective(tuple(chosen), quality, vectors, reference, size, 0.5)

    full = value(1e-30, 0)
    mean = np.mean([value(epsilon, seed) for seed in range(5)])
    assert (ALWAYS - epsilon) * full < mean <= full * 1.02
    chance = np.random.default_rng(0).choice(400, size, replace=False)
    assert mean > 1.1 * objective(tuple(chance), quality, vectors, reference, size, 0.5)


def test_all_candidates_can_be_put_in_order() -> None:
    vectors = unit(50, 0)
    quality = np.linspace(0, 1, 50)
    chosen = greedy_cover(quality, vectors, vectors, 50, 0.5, 0.2, 0)
    assert sorted(chosen.tolist()) == list(range(50))


def test_it_covers_more_than_the_rule_and_is_nearly_as_good() -> None:
    """One of four clusters has all of the best examples: the rule takes nothing else."""
    pool = small_pool(400, rule=linear_rule(reward=-1.0, knn_6=-0.5))
    first = (pool.examples["category"] == "c0").to_numpy()
    pool.indicators["reward"] = np.where(first, 2.0, 1.9) + np.linspace(0, 0.05, 400)
    vectors = pool.embeddings()

    def uncovered(chosen: np.ndarray) -> float:
        return float(cdist(vectors, vectors[chosen], "cosine").min(axis=1).mean())

    pool.indicators["knn_6"] = 1.0  # the same for all: the rule ranks by reward alone
    plain = choose(StrategySettings(strategy="rule"), pool, 20, 0)
    options = {"weight": 0.7, "candidates": 20}
    aware = choose(StrategySettings(strategy="set_aware", options=options), pool, 20, 0)
    categories = pool.examples["category"]
    assert set(categories.iloc[plain]) == {"c0"}
    assert set(categories.iloc[aware]) == {"c0", "c1", "c2", "c3"}
    assert uncovered(aware) < 0.7 * uncovered(plain)
    reward = pool.indicators["reward"].to_numpy()
    assert reward[aware].mean() > reward[plain].mean() - 0.15


def test_the_examples_own_knn_plays_no_part() -> None:
    """KNN-i is counted as the set's spread; its value for single examples is not looked at."""
    pool = small_pool(80)
    before = choose(StrategySettings(strategy="set_aware"), pool, 10, 0)
    pool.indicators["knn_6"] = np.random.default_rng(1).normal(size=80)
    np.testing.assert_array_equal(
        choose(StrategySettings(strategy="set_aware"), pool, 10, 0), before
    )
    plain = choose(StrategySettings(strategy="rule"), pool, 10, 0)
    pool.indicators["knn_6"] = np.random.default_rng(2).normal(size=80)
    assert choose(StrategySettings(strategy="rule"), pool, 10, 0).tolist() != plain.tolist()
