"""Variances of several parts: textbook cases, and what is said against simulation."""

import numpy as np
import pytest
from scipy import stats

from im_assets.common.components import Component, detectable, half_width, jackknife


def test_one_part_is_students_interval() -> None:
    values = np.array([1.50, 1.47, 1.52, 1.61])
    low, high = stats.t.interval(0.95, 3, values.mean(), stats.sem(values))
    assert half_width([Component.of_mean(values)]) == pytest.approx((high - low) / 2)


def test_parts_add_up_each_with_its_own_t() -> None:
    # Banerjee 1960: t² with 2 and 9 degrees of freedom are 4.3027² and 2.2622².
    parts = [Component(0.01, 2), Component(0.04, 9)]
    expected = np.sqrt(4.30265**2 * 0.01 + 2.26216**2 * 0.04)
    assert half_width(parts) == pytest.approx(expected, rel=1e-5)


def test_what_is_not_known_has_no_end() -> None:
    alone = Component.of_mean(np.array([1.0]))
    assert half_width([Component(0.01, 3), alone]) == np.inf
    assert detectable([Component(0.01, 3), alone]) == np.inf
    assert half_width([jackknife(np.array([1.0]))]) == np.inf
    assert half_width([jackknife(np.array([]))]) == np.inf


def test_the_jackknife_of_a_mean_is_its_variance() -> None:
    values = np.array([2.0, 3.0, 5.0, 10.0])
    without = (values.sum() - values) / 3
    # By hand: the mean is 5, squares around it 9 + 4 + 0 + 25 = 38; 38 / 3 / 4.
    found = jackknife(without)
    assert found.variance == pytest.approx(38 / 12)
    assert found.df == 3


def test_the_jackknife_of_a_ratio_of_sums_by_hand() -> None:
    # Nats 2, 6, 4 over tokens 1, 2, 3: 12 / 6 = 2; without each 10/5, 6/4, 8/3.
    without = np.array([10 / 5, 6 / 4, 8 / 3])
    middle = (2 + 1.5 + 8 / 3) / 3
    squares = (2 - middle) ** 2 + (1.5 - middle) ** 2 + (8 / 3 - middle) ** 2
    assert jackknife(without).variance == pytest.approx(2 / 3 * squares)


@pytest.mark.parametrize("dfs", [(1, 5, 19), (2, 5, 19), (4, 9, 19)])
@pytest.mark.parametrize("shares", [(1.0, 1.0, 0.1), (1.0, 0.3, 3.0)])
def test_a_detectable_difference_is_found_in_four_of_five(
    dfs: tuple[int, ...], shares: tuple[float, ...]
) -> None:
    generator, rounds = np.random.Generator(np.random.PCG64(11)), 40_000
    truth = [Component(share, df) for share, df in zip(shares, dfs, strict=True)]
    difference = detectable(truth)
    estimate = difference + generator.normal(0, np.sqrt(sum(shares)), rounds)
    squares = sum(
        stats.t.ppf(0.975, df) ** 2 * share * generator.chisquare(df, rounds) / df
        for share, df in zip(shares, dfs, strict=True)
    )
    assert np.mean(np.abs(estimate) > np.sqrt(squares)) == pytest.approx(0.8, abs=0.03)
