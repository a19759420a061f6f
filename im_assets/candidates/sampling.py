"""Some rows of a source instead of all: a sample that depends on contents and a seed alone.

Rows are ranked by a hash of seed and content, and those of lowest rank are taken. So the same rows
are taken on every machine, in whatever order, files or format they stand; a row more displaces at
most one; and a larger sample holds the smaller. Copies of a row have its rank: they are one row
here, and all come along, so that they are told as duplicates.
"""

import heapq
from collections.abc import Mapping
from typing import Any

from im_assets.common.digests import sample_rank
from im_resources.texts import SEPARATOR, normalize
from im_resources.turns import TURNS

_TEXTS = ("instruction", "input", "output")


class Sample:
    """The rows of lowest rank among all that were added; never holds more than these.

    Attributes:
        seen: rows that were added.
    """

    def __init__(self, size: int, seed: int) -> None:
        self._size, self._seed = size, seed
        self._worst: list[int] = []  # the ranks that are held, negated: the highest stands first
        self._held: dict[int, list[tuple[int, dict[str, Any]]]] = {}
        self.seen = 0

    def add(self, row: dict[str, Any]) -> None:
        """Offer a row as the reader gives it."""
        rank = int(sample_rank(self._seed, _content(row)), 16)
        self.seen += 1
        if rank not in self._held:
            if len(self._worst) == self._size:
                if rank > -self._worst[0]:
                    return
                del self._held[-heapq.heappop(self._worst)]
            heapq.heappush(self._worst, -rank)
        self._held.setdefault(rank, []).append((self.seen, row))

    def rows(self) -> list[dict[str, Any]]:
        """What is taken, in the order in which it was added."""
        held = [numbered for copies in self._held.values() for numbered in copies]
        return [row for _, row in sorted(held, key=lambda numbered: numbered[0])]


def _content(row: Mapping[str, Any]) -> str:
    """What an example is known by: its texts as they are stored, and those of its turns."""
    texts = [row[name] for name in _TEXTS if name in row] + list(row.get("outputs", ()))
    return SEPARATOR.join([*map(normalize, texts), str(row.get(TURNS) or "")])
