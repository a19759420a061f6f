"""Versions of the candidate pool: which examples it held when.

A measured mixture is a fact about its examples, and new data does not undo it. So the pool is never
edited in place: whenever its content differs from before, it has a next version, to which rows were
added, or which rows were withdrawn from. A mixture seed belongs to the version that it was drawn
from and can be drawn from it again, since a draw needs nothing but ids and sources.
"""

import pandas as pd

from im_resources.study import fingerprint

HISTORY = "candidate_history"  # a table that candidate_datasets writes beside itself
SINCE, UNTIL = "since_version", "until_version"
KEY = ["example_id", "source"]


def next_history(history: pd.DataFrame | None, pool: pd.DataFrame) -> pd.DataFrame:
    """The history of the pool after its content has become ``pool``.

    Args:
        history: as returned before; None: there was no pool.
        pool: columns example_id and source; each example_id once.

    Returns:
        example_id, source, since_version (the first version that holds the row, from 1) and
        until_version (the first that no longer does; <NA> while it is held). Equal to ``history``
        when the pool is what it was. An example that moves to another source is withdrawn from the
        one and added to the other.
    """
    now = pool[KEY].astype("string").reset_index(drop=True)
    if history is None:
        return _typed(now.assign(since_version=1, until_version=None))
    held = pd.MultiIndex.from_frame(held_in(history, current_version(history))[KEY])
    wanted = pd.MultiIndex.from_frame(now)
    added = now[~wanted.isin(held)]
    rows = pd.MultiIndex.from_frame(history[KEY].astype("string"))
    gone = history[UNTIL].isna().to_numpy() & ~rows.isin(wanted)
    if added.empty and not gone.any():
        return _typed(history)
    version = current_version(history) + 1
    closed = history.assign(until_version=history[UNTIL].astype("Int64").mask(gone, version))
    opened = added.assign(since_version=version, until_version=None)
    return _typed(pd.concat([_typed(closed), _typed(opened)], ignore_index=True))


def current_version(history: pd.DataFrame) -> int:
    """The newest version of the pool."""
    last = history[[SINCE, UNTIL]].astype("Int64").max().max()
    return int(last)


def held_in(history: pd.DataFrame, version: int) -> pd.DataFrame:
    """The rows that a version of the pool held: columns example_id, source, since_version."""
    until = history[UNTIL].astype("Int64")
    held = (history[SINCE] <= version) & (until.isna() | (until > version)).fillna(True)
    return history.loc[held, [*KEY, SINCE]].astype(dict.fromkeys(KEY, "string"))


def changes(history: pd.DataFrame, after: int) -> tuple[int, int]:
    """How many rows versions later than ``after`` have (added, withdrawn)."""
    until = history[UNTIL].astype("Int64")
    return int((history[SINCE] > after).sum()), int((until > after).fillna(False).sum())


def origin(history: pd.DataFrame) -> str:
    """The fingerprint of the pool's first version: what all its versions go back to."""
    first = history[history[SINCE] == 1]
    return fingerprint("pool", sorted(map(list, first[KEY].astype(str).to_numpy())))


def _typed(history: pd.DataFrame) -> pd.DataFrame:
    kinds = {**dict.fromkeys(KEY, "string"), SINCE: "int64", UNTIL: "Int64"}
    return history[[*KEY, SINCE, UNTIL]].astype(kinds)
