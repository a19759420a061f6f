"""The win rate: ties are half a win, and what was not judged is no tie."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from im_assets.experiments.measures import MeasureError
from im_assets.experiments.measures.win_rate import judged, win_rate

OUTCOMES = st.lists(st.sampled_from(["win", "tie", "lose", None]), min_size=1)


def _rows(outcomes: list[str | None]) -> pd.DataFrame:
    return pd.DataFrame({"outcome": pd.Series(outcomes, dtype=object)})


def test_by_hand() -> None:
    rows = _rows(["win", "win", "tie", "lose", None])
    assert win_rate(rows) == pytest.approx(2.5 / 4)
    assert judged(rows) == 4


@given(OUTCOMES.filter(any))
def test_it_is_a_share_and_the_base_sees_it_mirrored(outcomes: list[str | None]) -> None:
    turned = {"win": "lose", "lose": "win"}
    mirrored = [turned.get(o, o) if o else None for o in outcomes]
    assert 0 <= win_rate(_rows(outcomes)) <= 1
    assert win_rate(_rows(outcomes)) + win_rate(_rows(mirrored)) == pytest.approx(1)


@given(OUTCOMES.filter(any))
def test_what_was_not_judged_changes_nothing(outcomes: list[str | None]) -> None:
    assert win_rate(_rows([*outcomes, None])) == pytest.approx(win_rate(_rows(outcomes)))


def test_without_any_verdict_there_is_no_rate() -> None:
    with pytest.raises(MeasureError, match="none of the 2 pairs was judged"):
        win_rate(_rows([None, None]))
