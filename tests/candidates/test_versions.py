"""Versions of the pool: every row knows which hold it, and no version is ever edited."""

import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from im_assets.candidates.versions import (
    KEY,
    changes,
    current_version,
    held_in,
    next_history,
    origin,
)

Pool = dict[str, str]
POOLS = st.lists(
    st.dictionaries(st.sampled_from("abcdef"), st.sampled_from("xy"), min_size=1),
    min_size=1,
    max_size=6,
)


def frame(pool: Pool) -> pd.DataFrame:
    return pd.DataFrame(sorted(pool.items()), columns=KEY)


def held(history: pd.DataFrame, version: int) -> Pool:
    rows = held_in(history, version)
    assert rows["example_id"].is_unique
    return dict(zip(rows["example_id"], rows["source"], strict=True))


@given(POOLS)
def test_every_version_stays_what_it_was(pools: list[Pool]) -> None:
    history, versions = None, {}
    for pool in pools:
        history = next_history(history, frame(pool))
        versions[current_version(history)] = pool
        for version, was in versions.items():
            assert held(history, version) == was
    assert history is not None
    distinct = [pool for i, pool in enumerate(pools) if i == 0 or pool != pools[i - 1]]
    assert current_version(history) == len(distinct)
    assert origin(history) == origin(next_history(None, frame(pools[0])))


def test_the_same_content_makes_no_version() -> None:
    history = next_history(None, frame({"a": "x", "b": "y"}))
    again = next_history(history, frame({"b": "y", "a": "x"}))
    pd.testing.assert_frame_equal(history, again)
    assert changes(again, 1) == (0, 0)


def test_what_was_added_and_withdrawn_is_counted() -> None:
    history = next_history(None, frame({"a": "x", "b": "y", "c": "y"}))
    history = next_history(history, frame({"a": "x", "c": "y", "d": "y", "e": "x"}))
    assert changes(history, 1) == (2, 1)
    history = next_history(history, frame({"a": "x", "c": "y", "d": "y"}))
    assert current_version(history) == 3
    assert changes(history, 2) == (0, 1)
    assert changes(history, 1) == (2, 2)
    assert held(history, 2) == {"a": "x", "c": "y", "d": "y", "e": "x"}
