"""Win, tie or lose out of two orders, and the shares with their intervals."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from im_assets.common.charts.drawing import MAX_BYTES, png
from im_assets.judging.comparing import Letter
from im_assets.judging.figures import outcome_figure
from im_assets.judging.verdicts import (
    Verdict,
    contradict,
    judged_pairs,
    orders,
    outcome,
    rate,
    tally,
)
from im_resources.turns import Turn, write_turns

LETTERS: list[Letter] = ["A", "B", "tie"]
LETTER = st.sampled_from(LETTERS)
SWAPPED = {"win": "lose", "lose": "win", "tie": "tie"}
OUTCOME = st.sampled_from(["win", "tie", "lose"])


@pytest.mark.parametrize(
    ("order_1", "order_2", "expected"),
    [
        ("A", "B", "win"),  # the first arm's answer wins in both places
        ("A", "tie", "win"),
        ("tie", "B", "win"),
        ("B", "A", "lose"),
        ("B", "tie", "lose"),
        ("tie", "A", "lose"),
        ("tie", "tie", "tie"),
        ("A", "A", "tie"),  # always the first place
        ("B", "B", "tie"),  # always the second
    ],
)
def test_outcomes(order_1: Letter, order_2: Letter, expected: str) -> None:
    assert outcome(order_1, order_2) == expected
    assert contradict(order_1, order_2) == (order_1 == order_2 != "tie")


@given(LETTER, LETTER)
def test_swapping_the_arms_swaps_win_and_lose(order_1: Letter, order_2: Letter) -> None:
    # With the arms swapped, what was asked second is what is asked first.
    assert outcome(order_2, order_1) == SWAPPED[outcome(order_1, order_2)]
    assert contradict(order_2, order_1) == contradict(order_1, order_2)


def pairs(n: int) -> pd.DataFrame:
    names = ["eval_id", "instruction", "input", "first_answer", "second_answer"]
    return pd.DataFrame([[f"{name} {i}" for name in names] for i in range(n)], columns=names)


def test_a_table_names_arms_and_keeps_problems_apart() -> None:
    given_ = list(itertools.product([*LETTERS, None], repeat=2))
    frame = pairs(len(given_))
    verdicts = {}
    for pair, letters in zip(frame.to_dict("records"), given_, strict=True):
        for comparison, letter in zip(orders(pair), letters, strict=True):
            verdicts[comparison] = Verdict(letter, None if letter else "no reply")
    result = judged_pairs(frame, verdicts, "rule", "random")
    assert result[frame.columns].equals(frame)
    for row, (one, two) in zip(result.to_dict("records"), given_, strict=True):
        assert row["order_1"] == {"A": "rule", "B": "random", "tie": "tie", None: None}[one]
        assert row["order_2"] == {"A": "random", "B": "rule", "tie": "tie", None: None}[two]
        if one and two:
            assert row["outcome"] == outcome(one, two)
            assert row["position_bias"] == contradict(one, two)
            assert row["problem"] is None
        else:
            assert row["outcome"] is None
            assert row["position_bias"] is None
            assert ("order 1: no reply" in row["problem"]) == (one is None)
            assert ("order 2: no reply" in row["problem"]) == (two is None)
    counts = tally(result["outcome"].tolist(), result["position_bias"].tolist())
    assert counts.not_judged == 7
    assert [counts.shares[o].count for o in ("win", "tie", "lose")] == [3, 3, 3]
    assert [rate.total for rate in counts.shares.values()] == [9, 9, 9]
    assert (counts.position_bias.count, counts.position_bias.total) == (2, 9)


def test_the_wilson_interval_of_a_textbook() -> None:
    # Newcombe 1998 (doi:10.1002/(SICI)1097-0258(19980430)17:8<857), table I, method 3.
    for count, total, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        found = rate(count, total)
        assert found.share == pytest.approx(count / total)
        assert (found.low, found.high) == pytest.approx((low, high), abs=5e-5)
    assert rate(0, 0).share is None


@given(st.lists(st.one_of(OUTCOME, st.none()), max_size=60))
def test_intervals_hold_their_estimate_and_swapping_turns_the_sign(
    outcomes: list[str | None],
) -> None:
    counts = tally(outcomes, [False] * len(outcomes), resamples=500)
    judged = [o for o in outcomes if o]
    assert counts.not_judged == outcomes.count(None)
    assert sum(r.count for r in counts.shares.values()) == len(judged)
    for share in counts.shares.values():
        if share.share is None or share.low is None or share.high is None:
            assert not judged
        else:
            assert 0 <= share.low <= share.share <= share.high <= 1
    swapped = tally([SWAPPED[o] if o else None for o in outcomes], [False] * len(outcomes), 500)
    assert swapped.p == pytest.approx(counts.p)
    turned = {"better": "worse", "worse": "better"}
    assert swapped.verdict == turned.get(counts.verdict, "not distinguishable")
    if counts.difference is None or swapped.difference is None:
        assert not judged
        return
    assert swapped.difference == pytest.approx(-counts.difference)
    assert counts.difference_low is not None
    assert counts.difference_high is not None
    assert counts.difference_low - 1e-12 <= counts.difference <= counts.difference_high + 1e-12


def test_a_few_wins_are_no_evidence_and_many_are() -> None:
    assert tally(["win"] * 3, [False] * 3).verdict == "not distinguishable"
    many = tally(["win"] * 30 + ["lose"] * 10 + ["tie"] * 60, [False] * 100)
    assert many.verdict == "better"
    assert many.difference == pytest.approx(0.2)
    assert many.p == pytest.approx(0.0022, abs=1e-4)  # exact binomial: 30 of 40 heads
    assert tally(["win"] * 12 + ["lose"] * 10, [False] * 22).verdict == "not distinguishable"


def test_the_interval_of_the_difference_covers_the_truth() -> None:
    generator = np.random.Generator(np.random.PCG64(7))
    truth, hits, trials = 0.2, 0, 300
    for _ in range(trials):
        drawn = generator.choice(["win", "tie", "lose"], size=80, p=[0.45, 0.3, 0.25])
        found = tally(drawn.tolist(), [False] * 80, resamples=500)
        assert found.difference_low is not None
        assert found.difference_high is not None
        hits += found.difference_low <= truth <= found.difference_high
    assert 0.91 <= hits / trials <= 0.98  # nominal 0.95


@pytest.mark.parametrize("outcomes", [["win"] * 4, ["tie"] * 3, ["win", "tie", "lose", "lose"]])
def test_the_figure_shows_every_share_with_its_interval(outcomes: list[str]) -> None:
    counts = tally(outcomes, [False] * len(outcomes))
    chart = outcome_figure(counts, "rule", "random", "judge")
    assert len(png(chart)) < MAX_BYTES
    rows = {row["name"]: row for row in chart["datasets"]["rows"]}
    assert list(rows) == ["rule wins", "tie", "random wins"]
    assert rows["rule wins"]["value"] == outcomes.count("win") / len(outcomes)
    assert rows["tie"]["high"] == counts.shares["tie"].high


def test_a_judge_sees_the_conversation_that_both_answers_follow() -> None:
    pair = {"instruction": "And now?", "input": "", "first_answer": "Yes.", "second_answer": "No."}
    turns = write_turns([Turn("user", "Hi"), Turn("assistant", "Hello."), Turn("user", "And now?")])
    one, two = orders(pair | {"turns": turns})
    assert "user: Hi\n\nassistant: Hello.\n\nuser: And now?" in one.prompt()
    assert (two.a, two.b) == ("No.", "Yes.")
    alone, _ = orders(pair | {"turns": None})
    assert alone == orders(pair)[0]
