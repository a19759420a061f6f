"""Correlations against scipy's, and the coverage of their bootstrap intervals."""

import numpy as np
import pytest
from scipy import stats

from im_assets.common.correlation import Kind, correlation


@pytest.mark.parametrize("kind", ["pearson", "spearman"])
def test_the_estimate_is_scipys(kind: Kind) -> None:
    generator = np.random.Generator(np.random.PCG64(1))
    for points in (4, 8, 30):
        x = generator.standard_normal(points).round(1)  # rounded: with ties
        y = x + generator.standard_normal(points)
        reference = {"pearson": stats.pearsonr, "spearman": stats.spearmanr}[kind](x, y)
        found = correlation(x, y, kind, resamples=50)
        assert found.value == pytest.approx(reference.statistic, abs=1e-12)


@pytest.mark.parametrize(("kind", "points"), [("pearson", 8), ("spearman", 8), ("pearson", 24)])
def test_the_interval_covers_the_truth_as_often_as_it_says(kind: Kind, points: int) -> None:
    generator = np.random.Generator(np.random.PCG64(2))
    rho = 0.6
    # Spearman's correlation of two normal variables, from Pearson's (Kruskal 1958).
    truth = rho if kind == "pearson" else 6 / np.pi * np.arcsin(rho / 2)
    trials = covered = 0
    while trials < 300:
        x = generator.standard_normal(points)
        y = rho * x + np.sqrt(1 - rho**2) * generator.standard_normal(points)
        found = correlation(x, y, kind, resamples=400)
        if found.low is None or found.high is None:
            continue  # in perfect order: no interval is claimed
        trials += 1
        covered += found.low <= truth <= found.high
    # 300 trials of a 95 % interval cover 285 ± 3.8; an interval of eight points may be off by 4 %.
    assert 0.90 <= covered / trials <= 0.99


def test_what_does_not_vary_has_no_correlation() -> None:
    found = correlation(np.ones(8), np.arange(8.0), "pearson")
    assert (found.value, found.low, found.high) == (None, None, None)


def test_points_in_perfect_order_have_an_estimate_and_no_interval() -> None:
    found = correlation(np.arange(8.0), np.arange(8.0) ** 3, "spearman")
    assert found.value == pytest.approx(1)
    assert found.low is None


def test_the_same_points_give_the_same_interval() -> None:
    generator = np.random.Generator(np.random.PCG64(3))
    x, y = generator.standard_normal((2, 10))
    assert correlation(x, y, "spearman") == correlation(x, y, "spearman")


def test_too_few_points_are_an_error() -> None:
    with pytest.raises(ValueError, match="at least 4 pairs"):
        correlation(np.arange(3.0), np.arange(3.0), "pearson")


def test_four_points_have_an_interval_unless_in_perfect_order() -> None:
    found = correlation(np.arange(4.0), np.array([1.0, 3.0, 2.0, 4.0]), "spearman")
    assert found.value == pytest.approx(0.8)
    assert found.low is not None
    assert found.low < 0
