"""Progress of work that is done far below an asset, told to whoever listens.

A loop that may take long goes over ``tracked(items, …)``. It knows of no asset and no terminal:
where nobody listens, as in a notebook or a test, nothing is told. A listener in a process hears all
of its threads, since a run works on one step at a time (as in ``im_resources/usage.py``).
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")
# Is told how many are done, again and again.
Advance = Callable[[int], object]
# Is told what begins: what is done, how many there are (None: not known), and what they are.
Listener = Callable[[str, int | None, str], Advance]

_OPEN: list[Listener] = []
_LOCK = threading.Lock()


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Tell ``listener`` of all work until the end of the block; the newest listener hears it."""
    with _LOCK:
        _OPEN.append(listener)
    try:
        yield
    finally:
        with _LOCK:  # by identity: equal ones are others
            _OPEN[:] = [other for other in _OPEN if other is not listener]


def work(label: str, total: int | None, unit: str) -> Advance:
    """Say that ``total`` (None: not known) pieces of work begin; returns what to tell of each."""
    with _LOCK:
        listener = _OPEN[-1] if _OPEN else None
    return listener(label, total, unit) if listener is not None else _unheard


def tracked(
    items: Iterable[Item], label: str, unit: str, total: int | None = None
) -> Iterator[Item]:
    """The items one by one, each counted once the next is asked for.

    Args:
        label: what is done, as in "reading alpaca".
        unit: what the items are, in the plural.
        total: how many there are; default: ``len(items)``, where it has one.
    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    advance = work(label, total, unit)
    for done, item in enumerate(items, 1):
        yield item
        advance(done)


def _unheard(_: int) -> None:
    return None
