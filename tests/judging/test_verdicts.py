"""Win, tie or lose out of two orders, and the shares with their intervals."""

import itertools

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


@given(st.lists(st.one_of(OUTCOME, st.none()), max_size=60))
def test_every_outcome_is_counted_once(outcomes: list[str | None]) -> None:
    counts = tally(outcomes, [False] * len(outcomes))
    judged = [o for o in outcomes if o]
    assert counts.not_judged == outcomes.count(None)
    assert sum(r.count for r in counts.shares.values()) == len(judged)
    shares = [r.share for r in counts.shares.values()]
    if judged:
        assert sum(s for s in shares if s is not None) == pytest.approx(1)
    else:
        assert shares == [None] * 3


@pytest.mark.parametrize("outcomes", [["win"] * 4, ["tie"] * 3, ["win", "tie", "lose", "lose"]])
def test_the_figure_shows_every_share(outcomes: list[str]) -> None:
    counts = tally(outcomes, [False] * len(outcomes))
    chart = outcome_figure(counts, "rule", "random", "judge")
    assert len(png(chart)) < MAX_BYTES
    rows = {row["name"]: row for row in chart["datasets"]["rows"]}
    assert list(rows) == ["rule wins", "tie", "random wins"]
    assert rows["rule wins"]["value"] == outcomes.count("win") / len(outcomes)
    assert rows["tie"]["value"] == counts.shares["tie"].share
    assert rows["tie"]["low"] is None


def test_a_judge_sees_the_conversation_that_both_answers_follow() -> None:
    pair = {"instruction": "And now?", "input": "", "first_answer": "Yes.", "second_answer": "No."}
    turns = write_turns([Turn("user", "Hi"), Turn("assistant", "Hello."), Turn("user", "And now?")])
    one, two = orders(pair | {"turns": turns})
    assert "user: Hi\n\nassistant: Hello.\n\nuser: And now?" in one.prompt()
    assert (two.a, two.b) == ("No.", "Yes.")
    alone, _ = orders(pair | {"turns": None})
    assert alone == orders(pair)[0]
