"""Words are rare where nothing is there to be said: verdicts over simulated finetunes.

Quality is simulated as a strategy's (none here), a subset's, a finetune's and, crossed with them,
what an instruction likes; ratios of finetune to subset noise from 0.3 to 3, normal and with heavy
tails (t with 4 degrees of freedom).
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from im_assets.common.components import Component, detectable, half_width, jackknife
from im_assets.validation.verdicts import verdicts

NORMAL, HEAVY = "normal", "t4"
RATIOS = (0.3, 1.0, 3.0)
GROUPS = 10


def noise(generator: np.random.Generator, kind: str, *shape: int) -> np.ndarray:
    """Noise of standard deviation one."""
    if kind == NORMAL:
        return generator.standard_normal(shape)
    return generator.standard_t(4, shape) / np.sqrt(2)


def at_most(share: float, rounds: int) -> int:
    """What that share of the rounds exceeds in one test of a thousand."""
    return int(stats.binom.ppf(0.999, rounds, share))


def table(arms: dict[str, np.ndarray], without: dict[str, np.ndarray]) -> pd.DataFrame:
    rows = [
        ("strategy", name, 64, seed, loss, without[name][seed])
        for name, losses in arms.items()
        for seed, loss in enumerate(losses)
    ]
    columns = ["kind", "strategy", "size", "seed", "loss", "loss_without"]
    return pd.DataFrame(rows, columns=columns)


def without_effect(losses: np.ndarray) -> np.ndarray:
    return np.repeat(losses[:, None], GROUPS, axis=1)


def test_random_subsets_entered_as_strategies_are_hardly_ever_called() -> None:
    generator, rounds, wrong = np.random.Generator(np.random.PCG64(5)), 150, 0
    for i in range(rounds):
        kind, ratio = (NORMAL, HEAVY)[i % 2], RATIOS[i // 2 % 3]
        losses = {
            name: 2 + 0.02 * subsets(generator, kind, ratio, n)
            for name, n in {"random": 6, "a": 3, "b": 3, "c": 3}.items()
        }
        kept = {name: without_effect(values) for name, values in losses.items()}
        wrong += bool(verdicts(table(losses, kept))["verdict"].isin(["better", "worse"]).any())
    assert wrong <= at_most(0.05, rounds)


def test_strategies_like_every_reference_are_hardly_ever_called() -> None:
    """The full pool's finetunes vary by their seed alone, and the base does not vary."""
    generator, rounds, wrong = np.random.Generator(np.random.PCG64(7)), 200, 0
    for i in range(rounds):
        kind, ratio = (NORMAL, HEAVY)[i % 2], RATIOS[i // 2 % 3]
        likes = noise(generator, kind, 5, 40)  # what the instructions like of each arm
        arms = {
            ("strategy", "random", 64): subsets(generator, kind, ratio, 6),
            ("strategy", "rule", 64): subsets(generator, kind, ratio, 3),
            ("reference", "tokens", 64): subsets(generator, kind, ratio, 3),
            ("reference", "full_pool", 0): ratio * noise(generator, kind, 3),
            ("reference", "base", 0): np.zeros(1),
        }
        rows = []
        for (arm, losses), liked in zip(arms.items(), likes, strict=True):
            groups = liked.reshape(GROUPS, -1).mean(axis=1)
            without = (groups.sum() - groups) / (GROUPS - 1)
            rows += [
                (*arm, seed, loss + liked.mean(), loss + without)
                for seed, loss in enumerate(losses)
            ]
        columns = ["kind", "strategy", "size", "seed", "loss", "loss_without"]
        found = verdicts(pd.DataFrame(rows, columns=columns), tokens_of="rule")
        assert (found["verdict"] != "baseline").sum() == 4
        wrong += bool(found["verdict"].isin(["better", "worse"]).any())
    assert wrong <= at_most(0.05, rounds)


def subsets(generator: np.random.Generator, kind: str, ratio: float, count: int) -> np.ndarray:
    """Losses of finetunes on a subset each: what the subset adds, and the finetune."""
    return noise(generator, kind, count) + ratio * noise(generator, kind, count)


@pytest.mark.parametrize("finetunes", [2, 3, 5])
@pytest.mark.parametrize("random", [3, 6, 10])
@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("spreads", [(1, 1, 1), (3, 1, 1), (0.3, 1, 3)])
def test_also_where_strategies_differ_in_their_spread(
    finetunes: int, random: int, ratio: float, spreads: Sequence[float]
) -> None:
    generator, rounds, wrong = np.random.Generator(np.random.PCG64(6)), 200, 0
    for i in range(rounds):
        kind, called = (NORMAL, HEAVY)[i % 2], False
        base = subsets(generator, kind, ratio, random)
        for spread in spreads:
            arm = spread * subsets(generator, kind, ratio, finetunes)
            parts = [Component.of_mean(arm), Component.of_mean(base)]
            called |= abs(arm.mean() - base.mean()) > half_width(parts, 1 - 0.05 / len(spreads))
        wrong += called
    assert wrong <= at_most(0.05, rounds)


# Standard deviations of a finetune, of what an instruction likes of an arm, and of both together.
CROSSED = [(1.0, 0.0, 0.0), (0.0, 3.0, 0.0), (0.3, 3.0, 3.0), (1.0, 3.0, 0.0), (0.0, 0.0, 3.0)]


def crossed(
    generator: np.random.Generator, kind: str, finetunes: int, of: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """Losses of an arm's finetunes [finetunes], and without each group of 40 instructions
    [finetunes, groups]: crossed random effects."""
    cells = of[0] * noise(generator, kind, finetunes, 1) + of[1] * noise(generator, kind, 1, 40)
    cells = cells + of[2] * noise(generator, kind, finetunes, 40)
    groups = cells.reshape(finetunes, GROUPS, -1).mean(axis=2)
    return cells.mean(axis=1), (groups.sum(axis=1, keepdims=True) - groups) / (GROUPS - 1)


@pytest.mark.parametrize("of", CROSSED)
@pytest.mark.parametrize("finetunes", [2, 5])
def test_a_verdict_holds_for_new_instructions_too(finetunes: int, of: Sequence[float]) -> None:
    generator, rounds, wrong = np.random.Generator(np.random.PCG64(8)), 600, 0
    for i in range(rounds):
        kind = (NORMAL, HEAVY)[i % 2]
        (arm, arm_kept), (base, base_kept) = (
            crossed(generator, kind, n, of) for n in (finetunes, 2 * finetunes)
        )
        kept = jackknife(arm_kept.mean(axis=0) - base_kept.mean(axis=0))
        parts = [Component.of_mean(arm), Component.of_mean(base), kept]
        wrong += abs(arm.mean() - base.mean()) > half_width(parts)
    assert wrong <= at_most(0.05, rounds)


def test_the_parts_add_up_to_the_spread_of_the_difference() -> None:
    # Without noise of finetune and instruction together, which is counted more than once.
    generator, rounds, of = np.random.Generator(np.random.PCG64(9)), 4000, (0.3, 3.0, 0.0)
    gaps, totals = [], []
    for _ in range(rounds):
        arm, arm_kept = crossed(generator, NORMAL, 3, of)
        base, base_kept = crossed(generator, NORMAL, 6, of)
        gaps.append(arm.mean() - base.mean())
        kept = jackknife(arm_kept.mean(axis=0) - base_kept.mean(axis=0))
        parts = [Component.of_mean(arm), Component.of_mean(base), kept]
        totals.append(sum(p.variance for p in parts))
    # 0.3² (1/3 + 1/6) + 2 · 3² / 40
    assert np.mean(totals) == pytest.approx(0.495, rel=0.03)
    assert np.var(gaps) == pytest.approx(0.495, rel=0.08)


@pytest.mark.parametrize(("finetunes", "random"), [(2, 4), (3, 6), (5, 10)])
def test_what_could_have_been_seen_is_seen_in_four_of_five_tables(
    finetunes: int, random: int
) -> None:
    generator, rounds, found = np.random.Generator(np.random.PCG64(10)), 1500, 0
    truth = [Component(1 / finetunes, finetunes - 1), Component(1 / random, random - 1)]
    difference, level = detectable(truth, 1 - 0.05 / 3), 1 - 0.05 / 3
    for _ in range(rounds):
        arm = difference + noise(generator, NORMAL, finetunes)
        base = noise(generator, NORMAL, random)
        half = half_width([Component.of_mean(arm), Component.of_mean(base)], level)
        found += abs(arm.mean() - base.mean()) > half
    assert found / rounds == pytest.approx(0.8, abs=0.035)


def test_a_large_difference_is_found_by_the_table() -> None:
    generator, found = np.random.Generator(np.random.PCG64(12)), 0
    for _ in range(40):
        losses = {"random": 2 + 0.02 * noise(generator, NORMAL, 10)}
        losses |= {name: 1.85 + 0.02 * noise(generator, NORMAL, 5) for name in ("a", "b")}
        kept = {name: without_effect(values) for name, values in losses.items()}
        found += int((verdicts(table(losses, kept))["verdict"] == "better").sum())
    assert found >= 76
