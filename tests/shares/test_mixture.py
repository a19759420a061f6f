"""The proposed mixture as examples: its counts, and which examples it holds how often."""

from collections import Counter
from itertools import pairwise

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from im_assets.shares.mixture import counts_of, draw

shares = st.dictionaries(
    st.sampled_from("abcdef"), st.floats(0, 1, allow_subnormal=False), min_size=1
).filter(lambda found: sum(found.values()) > 1e-6)
held = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 12), min_size=1)


def pool(counts: dict[str, int]) -> pd.DataFrame:
    rows = [(f"{source}{i}", source) for source, count in counts.items() for i in range(count)]
    return pd.DataFrame(rows, columns=["example_id", "source"])


@given(shares, st.integers(1, 5000))
def test_counts_sum_to_the_size_and_are_within_one_of_the_shares(
    found: dict[str, float], size: int
) -> None:
    counts, total = counts_of(found, size), sum(found.values())
    assert sum(counts.values()) == size
    assert set(counts) == {source for source, share in found.items() if share > 0}
    for source, count in counts.items():
        assert abs(count - size * found[source] / total) < 1 + 1e-6


def test_the_largest_remainders_get_what_is_left() -> None:
    assert counts_of({"a": 0.5, "b": 0.26, "c": 0.24}, 10) == {"a": 5, "b": 3, "c": 2}
    assert counts_of({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3, "d": 0.0}, 4) == {"a": 2, "b": 1, "c": 1}
    assert counts_of({"a": 1.0}, 7) == {"a": 7}


@given(held, st.data())
def test_no_example_is_in_it_more_than_once_more_often_than_another(
    counts: dict[str, int], data: st.DataObject
) -> None:
    wanted = {s: data.draw(st.integers(0, 50), label=s) for s in counts}
    candidates = pool(counts)
    rows = draw(candidates, wanted)
    assert Counter(row.source for row in rows) == Counter({s: n for s, n in wanted.items() if n})
    often = Counter(row.example_id for row in rows)
    source_of = dict(zip(candidates["example_id"], candidates["source"], strict=True))
    assert all(source_of[row.example_id] == row.source for row in rows)
    for source in counts:
        times = {often[e] for e, of in source_of.items() if of == source}
        assert max(times) - min(times) <= 1
    # Each is a first, second … time of its example, once.
    assert len({(row.example_id, row.repetition) for row in rows}) == len(rows)
    assert all(row.repetition < often[row.example_id] for row in rows)
    # The order of the candidates decides nothing.
    assert draw(candidates.iloc[::-1], wanted) == rows


@given(held, st.integers(1, 40), st.integers(0, 40))
def test_a_larger_mixture_holds_the_smaller(counts: dict[str, int], few: int, more: int) -> None:
    candidates = pool(counts)
    small = draw(candidates, dict.fromkeys(counts, few))
    large = draw(candidates, dict.fromkeys(counts, few + more))
    assert set(small) <= set(large)


def test_the_sources_are_mixed() -> None:
    rows = draw(pool({"a": 200, "b": 200}), {"a": 200, "b": 200})
    changes = sum(one.source != other.source for one, other in pairwise(rows))
    assert changes == pytest.approx(200, abs=60)
