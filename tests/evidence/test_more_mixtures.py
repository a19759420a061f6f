"""The expected gain of twice as many mixtures, against studies whose true gain is known."""

from collections.abc import Sequence

import numpy as np
from scipy.stats import binom

from im_assets.evidence.kinds import SURE, WORTH
from im_assets.evidence.more_mixtures import Gain, expected_gain
from im_assets.rule.choosing import Points
from im_resources.study import RuleSettings

SETTINGS = RuleSettings()
STUDIES = 30


def points(rows: int, slopes: Sequence[float], noise: float, seed: int) -> Points:
    rng = np.random.default_rng([9, seed])
    x = rng.normal(size=(rows, len(slopes)))
    y = x @ np.array(slopes) + noise * rng.normal(size=rows)
    names = tuple(f"x{i}" for i in range(len(slopes)))
    return Points(tuple(map(str, range(rows))), names, x, y)


def gains(rows: int, slopes: Sequence[float], noise: float) -> list[Gain]:
    found = [expected_gain(points(rows, slopes, noise, i), SETTINGS) for i in range(STUDIES)]
    return [gain for gain in found if gain is not None]


def said_yes(found: list[Gain]) -> int:
    return sum(bool(np.mean(gain.models >= WORTH) >= SURE) for gain in found)


def test_the_interval_holds_the_true_gain_and_yes_is_not_said_of_less() -> None:
    # From 24 to 48 mixtures the Spearman rises from 0.763 to 0.791 (8000 simulated studies).
    found = gains(24, (1.0, -0.7, 0.4, 0.0), 0.9)
    held = sum(gain.low <= 0.028 <= gain.high for gain in found)
    assert held >= binom.ppf(0.001, STUDIES, 0.93)
    assert np.mean([gain.high - gain.low for gain in found]) < 0.2
    assert said_yes(found) <= binom.ppf(0.999, STUDIES, 0.05)


def test_noise_promises_nothing() -> None:
    assert said_yes(gains(20, (0.0, 0.0, 0.0, 0.0), 1.0)) <= binom.ppf(0.999, STUDIES, 0.05)


def test_yes_is_said_where_indicators_wait_for_mixtures_enough_to_enter() -> None:
    # Sixteen mixtures allow three of five equal indicators: from 0.655 to 0.889.
    found = gains(16, (1.0,) * 5, 1.0)
    assert said_yes(found) >= binom.ppf(0.001, STUDIES, 0.35)


def test_without_anything_to_judge_by_there_is_no_gain() -> None:
    table = points(12, (1.0,) * 11, 0.1, 0)
    assert expected_gain(table, SETTINGS) is None  # no degree of freedom is left
    flat = Points(table.seeds, table.names, table.x, np.ones(12))
    assert expected_gain(flat, SETTINGS) is None
