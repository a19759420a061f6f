"""Rows cut into segments are the same rows, and what they share is there once."""

from hypothesis import given
from hypothesis import strategies as st

from im_resources.language_model.prefixes import segmented

ROW = st.lists(st.integers(0, 2), max_size=9).map(tuple)


def tokens_of(rows: list[tuple[int, ...]], least: int) -> list[tuple[int, ...]]:
    """The segments' tokens, after comparing each row with its own."""
    segments, paths = segmented(rows, least)
    for row, path in zip(rows, paths, strict=True):
        assert tuple(token for k in path for token in segments[k].tokens) == row
        for place, k in enumerate(path):
            assert segments[k].before == path[:place]
    assert all(k < number for number, s in enumerate(segments) for k in s.before)
    return [segment.tokens for segment in segments]


@given(rows=st.lists(ROW, max_size=12), least=st.integers(1, 12))
def test_segments_make_up_the_rows_and_are_worth_their_while(
    rows: list[tuple[int, ...]], least: int
) -> None:
    found = tokens_of(rows, least)
    saved = sum(map(len, rows)) - sum(map(len, found))
    shared = len(found) - sum(bool(row) for row in rows)
    assert saved >= max(0, shared) * least
    if least == 1:  # every prefix once, so each is a node of the tree of all prefixes
        assert sum(map(len, found)) == len({row[: k + 1] for row in rows for k in range(len(row))})


def test_a_template_and_a_prompt_are_shared_at_two_levels() -> None:
    template, prompt = tuple(range(20)), tuple(range(30, 50))
    rows = [template + prompt + (1, 2), (*template, 9), template + prompt + (3,)]
    assert sorted(map(len, tokens_of(rows, 16))) == [1, 1, 2, 20, 20]
    assert sorted(map(len, tokens_of(rows, 30))) == [1, 20, 21, 22]


def test_many_rows_that_each_begin_with_the_last() -> None:
    rows = [(1,) * k for k in range(1, 2000)]
    assert len(tokens_of(rows[::-1], 10**9)) == len(rows)
