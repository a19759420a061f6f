"""Versions of the candidate pool: which examples it held when.

A measured mixture is a fact about its examples, and new data does not undo it. So the pool is never
edited in place: whenever its content differs from before, it has a next version, to which rows were
added, or which rows were withdrawn from. A mixture seed belongs to the version that it was drawn
from and can be drawn from it again, since a draw needs nothing but ids and sources.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from im_resources.spooled import Spooled
from im_resources.study import fingerprint
from im_resources.tables import text_literal
from im_resources.warehouse import memory_limit, sql

HISTORY = "candidate_history"  # a table that candidate_datasets writes beside itself
SINCE, UNTIL = "since_version", "until_version"
KEY = ["example_id", "source"]
NO_HISTORY = pd.DataFrame(columns=[*KEY, SINCE, UNTIL])


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
    with _connection() as connection:
        before = _typed(NO_HISTORY if history is None else history)
        connection.register("history", _table(before))
        now = pool[KEY].astype("string").assign(number=range(len(pool)))
        connection.register("pool", _table(now))
        return _typed(connection.execute(sql("next_history.sql")).df())


@dataclass(frozen=True)
class Grown:
    """A pool's history after its content has changed, of a pool too large for a frame.

    Attributes:
        history: as from `next_history`.
        version: the newest version of the pool.
        added, withdrawn: how many rows it has that the one before had not, and the other way round.
        since: of each row of the pool, the first version that holds it, int64 [rows].
    """

    history: Spooled
    version: int
    added: int
    withdrawn: int
    since: np.ndarray


def grown(history: Spooled | None, pool: Spooled, folder: Path) -> Grown:
    """What `next_history` gives, from files into a folder.

    Args:
        pool: number (from 0, rising), example_id and source.
    """
    path = folder / "history.parquet"
    with _connection(folder) as connection:
        _view(connection, "pool", pool)
        if history is None:
            connection.register("history", _table(_typed(NO_HISTORY)))
        else:
            _view(connection, "history", history)
        place = text_literal(str(path))
        connection.execute(f"COPY ({sql('next_history.sql')}) TO {place} (FORMAT parquet)")
    made = Spooled((path,), pq.read_metadata(path).num_rows, pool.scratch)
    with _connection(folder) as connection:
        _view(connection, "pool", pool)
        _view(connection, "history", made)
        counts = connection.execute(sql("history_counts.sql")).fetchone()
        since = connection.execute(sql("since_versions.sql")).fetchnumpy()[SINCE]
    assert counts is not None
    version, added, withdrawn = map(int, counts)
    return Grown(made, version, added, withdrawn, np.asarray(since))


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


def _table(frame: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(frame, preserve_index=False)


def _view(connection: duckdb.DuckDBPyConnection, name: str, rows: Spooled) -> None:
    connection.read_parquet([str(file) for file in rows.files]).create_view(name)


def _connection(folder: Path | None = None) -> duckdb.DuckDBPyConnection:
    """A DuckDB of its own; what it cannot hold goes into the folder."""
    config: dict[str, Any] = {"memory_limit": f"{memory_limit() >> 20}MiB"}
    if folder is not None:
        config["temp_directory"] = str(folder)
    return duckdb.connect(config=config)
