"""What rows begin with in common, computed once: a template's words, a prompt of two outputs.

Under causal attention a token's state depends on what stands before it and on nothing else, so the
states, keys and values of a common beginning are the same for all rows that have it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

# Tokens that a common beginning has to save: one is a call of attention more in every layer.
LEAST = 16


@dataclass(frozen=True)
class Segment:
    """Tokens that lie together; ``before``: the segments, by number, that they continue."""

    tokens: tuple[int, ...]
    before: tuple[int, ...] = ()


def segmented(
    rows: Sequence[tuple[int, ...]], least: int = LEAST
) -> tuple[list[Segment], list[tuple[int, ...]]]:
    """Cut rows into segments, so that what several begin with is there once.

    Returns the segments, each behind those it continues, and of each row the numbers of those that
    it is made of, in order.
    """
    order = sorted(range(len(rows)), key=rows.__getitem__)
    segments: list[Segment] = []
    paths: list[tuple[int, ...]] = [()] * len(rows)

    # Groups ``order[first:end]`` of rows whose tokens up to ``start`` are those of ``before``.
    groups: list[tuple[int, int, int, tuple[int, ...]]] = []
    if rows:
        groups.append((0, len(rows), 0, ()))
    while groups:
        first, end, start, before = groups.pop()
        row, alone = rows[order[first]], end - first == 1
        shared = _common(row, rows[order[end - 1]], start)
        if shared > start and (alone or (shared - start) * (end - first - 1) >= least):
            segments.append(Segment(row[start:shared], before))
            before, start = (*before, len(segments) - 1), shared
        if alone:
            paths[order[first]] = before
            continue
        while first < end:
            row, stop = rows[order[first]], first + 1
            if len(row) > shared:  # else it ends here; sorted, such rows come first
                while stop < end and rows[order[stop]][shared] == row[shared]:
                    stop += 1
            groups.append((first, stop, start, before))
            first = stop
    return segments, paths


def _common(one: tuple[int, ...], other: tuple[int, ...], start: int) -> int:
    """How many first tokens two rows share, knowing that they share ``start``."""
    for place in range(start, min(len(one), len(other))):
        if one[place] != other[place]:
            return place
    return min(len(one), len(other))
