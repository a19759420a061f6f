"""The net score: one interval for new finetunes and new instructions, and a verdict by it."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from im_assets.judging.net_score import NetScore, net_score

SWAPPED = {"win": "lose", "lose": "win", "tie": "tie", None: None}
TURNED = {"better": "worse", "worse": "better"}


def judged(*pairs: Sequence[str | None]) -> pd.DataFrame:
    """The outcomes of each pair of finetunes, over the same instructions."""
    rows = [
        (seed, f"e{i}", outcome)
        for seed, pair in enumerate(pairs)
        for i, outcome in enumerate(pair)
    ]
    return pd.DataFrame(rows, columns=["seed", "eval_id", "outcome"])


def scored(*pairs: Sequence[str | None]) -> NetScore:
    found = net_score(judged(*pairs))
    assert found is not None
    return found


def test_score_and_interval_by_hand() -> None:
    # Three pairs over four instructions: nets 2/4, 1/4 and 3/4, shrunk 2/6, 1/6 and 3/6.
    pairs = [
        ["win", "win", "tie", "tie"],
        ["win", "win", "lose", "tie"],
        ["win", "win", "win", "tie"],
    ]
    found = scored(*pairs)
    z = np.arctanh([2 / 6, 1 / 6, 3 / 6])
    # Means over pairs of each instruction, with a win and a loss added: 1, 1, 0, 0, 1, -1.
    over_instructions = np.var([1, 1, 0, 0, 1, -1], ddof=1) / 6
    slope = 1 - np.tanh(z.mean()) ** 2
    half = np.sqrt(
        stats.t.ppf(0.975, 2) ** 2 * np.var(z, ddof=1) / 3
        + stats.t.ppf(0.975, 3) ** 2 * over_instructions / slope**2
    )
    assert found.score == pytest.approx(0.5)
    assert found.low == pytest.approx(np.tanh(z.mean() - half))
    assert found.high == pytest.approx(np.tanh(z.mean() + half))
    assert found.instruction_sd == pytest.approx(np.sqrt(over_instructions))
    assert (found.pairs, found.instructions, found.verdict) == (3, 4, "not distinguishable")


def test_one_pair_cannot_tell_however_clear_it_is() -> None:
    found = scored(["win"] * 90 + ["lose"] * 10)
    assert (found.verdict, found.reason) == ("cannot tell", "one pair")
    assert found.low is found.high is found.finetune_sd is None
    assert found.score == pytest.approx(0.8)


def test_pairs_that_agree_over_many_instructions_tell() -> None:
    pair = ["win"] * 40 + ["tie"] * 40 + ["lose"] * 10
    found = scored(pair, pair[1:] + pair[:1], [*pair[5:], *pair[:5]])
    assert found.verdict == "better"
    swapped = scored(*([SWAPPED[o] for o in pair] for _ in range(3)))
    assert swapped.verdict == "worse"


def test_pairs_that_contradict_each_other_do_not() -> None:
    found = scored(["win"] * 60 + ["tie"] * 30, ["lose"] * 20 + ["tie"] * 70)
    assert found.verdict == "not distinguishable"
    assert found.finetune_sd is not None
    assert found.instruction_sd is not None
    assert found.finetune_sd > found.instruction_sd


def test_few_instructions_that_agree_are_no_evidence() -> None:
    assert scored(*[["win", "tie", "win"]] * 5).verdict == "not distinguishable"
    assert scored(["win"], ["win"]).reason == "few instructions"


def test_where_nearly_all_is_won_few_pairs_cannot_tell() -> None:
    assert scored(*[["win"] * 40] * 3).reason == "one-sided"
    assert scored(*[["win"] * 40] * 8).verdict == "better"


def test_what_was_not_judged_is_left_out() -> None:
    pairs = [["win", None, "tie", "win"], ["tie", "win", None, "win"]]
    found = scored(*pairs)
    assert found.score == pytest.approx(4 / 6)
    assert net_score(judged([None, None], [None, None])) is None


OUTCOME = st.sampled_from(["win", "tie", "lose", None])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(OUTCOME, min_size=3, max_size=12), min_size=1, max_size=4))
def test_order_does_not_matter_and_swapping_the_arms_turns_the_sign(
    pairs: list[list[str | None]],
) -> None:
    table = judged(*pairs)
    found = net_score(table)
    mixed = net_score(table.sample(frac=1, random_state=1))
    swapped = net_score(table.assign(outcome=table["outcome"].map(SWAPPED)))
    if found is None:
        assert mixed is swapped is None
        return
    assert mixed is not None
    assert swapped is not None
    assert mixed.score == pytest.approx(found.score)
    assert mixed.verdict == found.verdict == TURNED.get(swapped.verdict, swapped.verdict)
    assert swapped.score == pytest.approx(-found.score)
    assert swapped.reason == found.reason
    if found.low is not None and found.high is not None:
        assert -1 <= found.low <= found.score <= found.high <= 1
        assert swapped.low == pytest.approx(-found.high)


@pytest.mark.parametrize("pairs", [2, 3, 5])
@pytest.mark.parametrize("finetune", [0.0, 0.3, 1.0, 3.0])
def test_between_equal_arms_a_preference_is_rare(pairs: int, finetune: float) -> None:
    """What a finetune adds to its pair, times what instruction and chance add to an answer."""
    generator, rounds, wrong = np.random.Generator(np.random.PCG64(14)), 96, 0
    for i in range(rounds):
        heavy = i % 2

        def noise(*shape: int, heavy: int = heavy) -> np.ndarray:
            if heavy:
                return generator.standard_t(4, shape) / np.sqrt(2)
            return generator.standard_normal(shape)

        instructions, tie = (10, 40)[i // 2 % 2], (0.0, 0.5)[i // 4 % 2]
        quality = finetune * noise(pairs, 1) + 0.7 * noise(1, instructions)
        quality = quality + 0.7 * noise(pairs, instructions)
        outcomes = np.select([quality > tie, quality < -tie], ["win", "lose"], "tie")
        wrong += scored(*outcomes.tolist()).verdict in ("better", "worse")
    assert wrong <= stats.binom.ppf(0.999, rounds, 0.05)


def test_a_clear_preference_is_found() -> None:
    generator, found = np.random.Generator(np.random.PCG64(15)), 0
    for _ in range(30):
        quality = 0.9 + 0.2 * generator.standard_normal((4, 1)) + generator.standard_normal((4, 80))
        outcomes = np.select([quality > 0.3, quality < -0.3], ["win", "lose"], "tie")
        found += scored(*outcomes.tolist()).verdict == "better"
    assert found >= 24
