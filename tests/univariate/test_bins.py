"""Bins of one indicator: what is drawn from them, whatever the order of the rows."""

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from im_assets.univariate.bins import BinError, draw_bins

scores = st.lists(st.integers(-5, 5), min_size=12, max_size=60)


def pool(values: list[int]) -> pd.Series:
    return pd.Series(values, index=[f"example-{i}" for i in range(len(values))], dtype=float)


@given(values=scores, bins=st.integers(3, 4), order=st.randoms(use_true_random=False))
def test_bins_hold_distinct_examples_from_high_to_low(
    values: list[int], bins: int, order: np.random.Generator
) -> None:
    series = pool(values)
    size = len(values) // bins
    drawn = draw_bins(series, bins, size, "ppl")
    ids = [i for members in drawn for i in members["example_id"]]
    assert len(set(ids)) == len(ids) == bins * size
    for higher, lower in itertools.pairwise(drawn):
        assert higher["value"].min() >= lower["value"].max()
    for members in drawn:
        assert members["value"].tolist() == series[members["example_id"]].tolist()
    shuffled = list(series.index)
    order.shuffle(shuffled)
    again = draw_bins(series[shuffled], bins, size, "ppl")
    for one, other in zip(drawn, again, strict=True):
        pd.testing.assert_frame_equal(one, other)


def test_all_of_the_pool_is_in_some_bin() -> None:
    drawn = draw_bins(pool(list(range(24))), 8, 3, "mtld")
    assert sorted(v for members in drawn for v in members["value"]) == list(range(24))
    assert drawn[0]["value"].min() == 21


def test_bins_too_small_to_draw_from_say_what_would_do() -> None:
    with pytest.raises(BinError, match=r"16 examples.*'ppl', 2 in each of 8.*univariate\.size"):
        draw_bins(pool(list(range(16))), 8, 3, "ppl")
