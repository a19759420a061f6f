"""The noise floor at its three places, and the signal that stands out of it."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from im_assets.validation.noise import noise_floor

RANDOM, RULE = [1.60, 1.50, 1.70, 1.65], [1.41, 1.45]


def runs(arms: dict[str, list[float]], **noise: tuple[str, list[float]]) -> pd.DataFrame:
    """Finetunes of the arms; ``noise`` names a place, what is repeated there, and its losses."""
    rows: list[tuple[object, ...]] = [
        ("strategy", name, None, 64, seed, loss)
        for name, losses in arms.items()
        for seed, loss in enumerate(losses)
    ]
    for place, (name, losses) in noise.items():
        first = 0 if name == "worst" else 1
        rows += [("noise", name, place, 64, seed, x) for seed, x in enumerate(losses, first)]
    return pd.DataFrame(rows, columns=["kind", "strategy", "place", "size", "seed", "loss"])


def test_noise_is_told_by_its_source_and_place() -> None:
    frame = runs(
        {"random": RANDOM, "rule": RULE},
        centre=("random", [1.61, 1.59]),
        selection=("rule", [1.42, 1.47]),
        worst=("worst", [1.80, 1.90, 1.85]),
    )
    table = noise_floor(frame, ["loss"])
    sds = table.set_index(["source", "place"])["sd"]
    assert sds["finetune seed", "centre"] == pytest.approx(np.std([1.60, 1.61, 1.59], ddof=1))
    assert sds["finetune seed", "selection"] == pytest.approx(np.std([1.41, 1.42, 1.47], ddof=1))
    assert sds["finetune seed", "worst"] == pytest.approx(np.std([1.80, 1.90, 1.85], ddof=1))
    assert sds["random subset", "centre"] == pytest.approx(np.std(RANDOM, ddof=1))
    row = table[table["source"] == "random subset"].iloc[0]
    # The textbook interval: s² (n - 1) / chi² with three degrees of freedom, 0.216 and 9.348.
    s = np.std(RANDOM, ddof=1)
    assert row["sd_low"] == pytest.approx(s * np.sqrt(3 / 9.348), rel=1e-3)
    assert row["sd_high"] == pytest.approx(s * np.sqrt(3 / 0.2158), rel=1e-3)
    assert (row["finetunes"], row["mean"]) == (4, pytest.approx(np.mean(RANDOM)))


def test_a_place_that_was_not_measured_is_not_there() -> None:
    table = noise_floor(runs({"random": RANDOM, "long": RULE}), ["loss"])
    assert table["source"].tolist() == ["random subset", "strategies"]


def test_the_signal_is_the_variance_component_of_a_textbook() -> None:
    # Balanced one-way analysis of variance: (MSB - MSW) / n, and its ratio to MSW.
    arms = {"random": [1.0, 1.2, 1.1], "rule": [0.5, 0.6, 0.4], "long": [1.6, 1.4, 1.5]}
    row = noise_floor(runs(arms), ["loss"]).set_index("source").loc["strategies"]
    f = stats.f_oneway(*arms.values()).statistic
    within = np.mean([np.var(x, ddof=1) for x in arms.values()])
    assert row["signal_to_noise"] == pytest.approx(np.sqrt((f - 1) / 3))
    assert row["sd"] == pytest.approx(np.sqrt((f - 1) / 3 * within))
    for end, q in (("low", 0.975), ("high", 0.025)):
        expected = np.sqrt(max(0, (f / stats.f.ppf(q, 2, 6) - 1) / 3))
        assert row[f"signal_to_noise_{end}"] == pytest.approx(expected)


def test_the_interval_of_the_signal_covers_the_truth() -> None:
    generator, hits, rounds = np.random.Generator(np.random.PCG64(3)), 0, 300
    for _ in range(rounds):
        means = generator.normal(0, 2, 4)
        sizes = {"random": 6, "rule": 3, "long": 3, "reward": 3}
        arms = {
            name: list(mean + generator.normal(0, 1, n))
            for mean, (name, n) in zip(means, sizes.items(), strict=True)
        }
        row = noise_floor(runs(arms), ["loss"]).set_index("source").loc["strategies"]
        hits += bool(row["signal_to_noise_low"] <= 2 <= row["signal_to_noise_high"])
    assert stats.binom.ppf(0.001, rounds, 0.95) <= hits <= stats.binom.ppf(0.999, rounds, 0.95)


def test_every_measure_has_its_own_noise() -> None:
    frame = runs({"random": RANDOM, "rule": RULE}, centre=("random", [1.61, 1.59]))
    frame["win_rate"] = 1 - frame["loss"] / 2
    table = noise_floor(frame, ["loss", "win_rate"])
    sds = table.set_index(["measure", "source", "place"])["sd"]
    for key in (("finetune seed", "centre"), ("random subset", "centre")):
        assert sds["win_rate", *key] == pytest.approx(sds["loss", *key] / 2)
    ratios = table[table["source"] == "strategies"].set_index("measure")["signal_to_noise"]
    assert ratios["win_rate"] == pytest.approx(ratios["loss"])
