"""What a set's property is for one example, where the backend itself does not say."""

import numpy as np
import pytest

from im_assets.scoring.indicators.nearest_neighbour import expected_distance, nearest_neighbour
from im_assets.scoring.random_sets import mean_over_random_sets


def unit_vectors(count: int) -> np.ndarray:
    vectors = np.random.default_rng(0).normal(size=(count, 4))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_a_number_of_each_member_is_its_mean_over_random_sets() -> None:
    """Against KNN-i, which has an estimate of its own, over sets that do not part the pool."""
    vectors = unit_vectors(50)
    ours = mean_over_random_sets(lambda v: nearest_neighbour(v, 3), vectors, 12, draws=1500)
    np.testing.assert_allclose(ours, expected_distance(vectors, 12, 3), rtol=0.02)


def test_every_set_has_the_size_asked_for_and_different_members() -> None:
    pool, sizes = np.arange(50.0)[:, None], set()

    def score(rows: np.ndarray) -> np.ndarray:
        assert len(set(rows[:, 0])) == len(rows)
        sizes.add(len(rows))
        return rows[:, 0]

    assert mean_over_random_sets(score, pool, 12).tolist() == list(range(50))
    assert sizes == {12}


def test_a_number_of_the_whole_set_counts_for_each_member() -> None:
    values = mean_over_random_sets(lambda v: v.sum(), np.arange(6.0), size=3, draws=2000)
    # 0 with two of 1…5 (mean 3): 6; 5 with two of 0…4 (mean 2): 9.
    assert values[0] == pytest.approx(6, abs=0.15)
    assert values[5] == pytest.approx(9, abs=0.15)


def test_a_pool_smaller_than_the_sets_is_one_set() -> None:
    assert mean_over_random_sets(lambda v: v.sum(), np.arange(4.0), size=10).tolist() == [6.0] * 4


def test_the_same_pool_has_the_same_values() -> None:
    vectors = unit_vectors(30)
    one, two = (mean_over_random_sets(lambda v: v.std(axis=1), vectors, 7) for _ in "ab")
    np.testing.assert_array_equal(one, two)
