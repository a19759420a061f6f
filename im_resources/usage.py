"""What a step has computed, and what it found in a cache instead.

Counted where the work is done, deep below an asset, by whoever has opened a count: a count in a
process takes what all of its threads do, since a run works on one step at a time.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

_OPEN: "list[Usage]" = []
_LOCK = threading.Lock()


@dataclass
class Usage:
    """Work so far.

    ``tokens``: run through a language model, padding included; ``computed``, ``found``: results
    (scores, trials, sets of losses or answers, verdicts) made anew, or found in a cache;
    ``seconds_saved``: what making the found ones had taken, where that was recorded; ``groups``:
    of work that ``nodes`` of a cluster did; ``retried``: how often one was sent again.
    """

    tokens: int = 0
    computed: int = 0
    found: int = 0
    seconds_saved: float = 0.0
    nodes: set[str] = field(default_factory=set)
    groups: int = 0
    retried: int = 0

    @property
    def any(self) -> bool:
        """Whether anything was counted: most steps have no cache and run no model."""
        return bool(self.tokens or self.computed or self.found)


@contextmanager
def counting() -> Iterator[Usage]:
    """Count what is done until the end of the block."""
    usage = Usage()
    with _LOCK:
        _OPEN.append(usage)
    try:
        yield usage
    finally:
        with _LOCK:  # by identity: equal ones are others
            _OPEN[:] = [other for other in _OPEN if other is not usage]


@contextmanager
def uncounted() -> Iterator[None]:
    """Count nothing in the block: what is measured before the work is no part of it."""
    with _LOCK:
        held, _OPEN[:] = _OPEN[:], []
    try:
        yield
    finally:
        with _LOCK:
            _OPEN.extend(held)


def count(tokens: int = 0, computed: int = 0, found: int = 0, seconds_saved: float = 0.0) -> None:
    """Add to every open count; costs nothing where there is none."""
    with _LOCK:
        for usage in _OPEN:
            usage.tokens += tokens
            usage.computed += computed
            usage.found += found
            usage.seconds_saved += seconds_saved


def placed(node: str | None = None, retried: int = 0) -> None:
    """Add a group that a node of a cluster did, or groups that were sent again."""
    with _LOCK:
        for usage in _OPEN:
            usage.retried += retried
            if node is not None:
                usage.groups += 1
                usage.nodes.add(node)
