"""The rows of a pool in shards: Parquet files of some thousand rows, each cleaned by itself.

A shard is what a worker is given, in this process or on another machine. It is a file where it was
written, and travels with its content: a worker shares no disk with whoever sends it.
"""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from im_assets.candidates.tracing import OWN_ID
from im_resources.spooled import write_table
from im_resources.turns import TURNS

NUMBER = "number"  # of a row among all of the pool, from 0
_TEXT = pa.string()
SCHEMA = {
    "source": _TEXT, "file": _TEXT, "line": pa.int64(), OWN_ID: _TEXT,
    "instruction": _TEXT, "input": _TEXT, "output": _TEXT, "category": _TEXT,
}  # fmt: skip
EXTRA = {"number": pa.float64(), "text": _TEXT}  # the types of further columns, by their kind
ROWS = 20_000  # of a shard, at most
CHARACTERS = 1 << 25  # of a shard's texts, from which on it ends


@dataclass(frozen=True)
class Shard:
    """Some rows of a pool, one after the other.

    Attributes:
        first: the number of the first among all rows of the pool.
        rows: how many there are.
        content: the file; where it was sent to, its bytes.
    """

    first: int
    rows: int
    content: Path | bytes

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows, or some of their columns."""
        content = self.content
        source = io.BytesIO(content) if isinstance(content, bytes) else content
        return pq.read_table(source, columns=None if columns is None else list(columns))

    def __reduce__(self) -> tuple[type["Shard"], tuple[int, int, bytes]]:
        content = self.content
        sent = content if isinstance(content, bytes) else content.read_bytes()
        return Shard, (self.first, self.rows, sent)


class Shards:
    """Writes rows into shards in a folder.

    Args:
        extra: the types of further columns.
    """

    def __init__(self, folder: Path, extra: Mapping[str, pa.DataType]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        fields = SCHEMA | dict(extra) | {TURNS: _TEXT}
        self._folder, self._schema = folder, pa.schema(list(fields.items()))
        self._waiting: list[Mapping[str, Any]] = []
        self._characters = 0
        self._written: list[Shard] = []
        self.rows = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row, as the reader gives it."""
        self._waiting.append(row)
        self._characters += len(row["instruction"]) + len(row["input"]) + len(row["output"])
        self._characters += len(row.get(TURNS) or "")
        if len(self._waiting) == ROWS or self._characters >= CHARACTERS:
            self._write()

    def close(self) -> list[Shard]:
        """All shards; of no rows, one without any."""
        if self._waiting or not self._written:
            self._write()
        return self._written

    def _write(self) -> None:
        rows = self._waiting
        arrays = [pa.array([row.get(f.name) for row in rows], f.type) for f in self._schema]
        table = pa.Table.from_arrays(arrays, schema=self._schema)
        self._written.append(_written(table, self._folder, len(self._written), self.rows))
        self.rows += len(rows)
        self._waiting, self._characters = [], 0


def shards_of(rows: pd.DataFrame, folder: Path, sizes: Iterable[int] | None = None) -> list[Shard]:
    """The rows of a frame as shards.

    Args:
        rows: the columns of `ROW_COLUMNS`, and further ones.
        sizes: of the shards, which sum to the rows; default: ``ROWS`` each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    missing = {c: pa.nulls(len(rows), SCHEMA.get(c, _TEXT)) for c in (*SCHEMA, TURNS)}
    # Apart from the texts, a column of a frame that holds nothing has no type.
    whole = pa.Table.from_pandas(rows.reset_index(drop=True), preserve_index=False)
    for place, field in enumerate(whole.schema):
        wanted = missing.pop(field.name, None)
        type_ = _TEXT if pa.types.is_null(field.type) else field.type
        type_ = type_ if wanted is None else wanted.type
        whole = whole.set_column(place, field.name, whole.column(place).cast(type_))
    for name, nulls in missing.items():
        whole = whole.append_column(name, nulls)
    if sizes is None:
        sizes = [min(ROWS, len(rows) - start) for start in range(0, len(rows), ROWS)] or [0]
    found: list[Shard] = []
    first = 0
    for size in sizes:
        found.append(_written(whole.slice(first, size), folder, len(found), first))
        first += size
    return found


def _written(table: pa.Table, folder: Path, place: int, first: int) -> Shard:
    numbers = pa.array(range(first, first + len(table)), pa.int64())
    path = folder / f"{place:06}.parquet"
    write_table(table.add_column(0, NUMBER, numbers), path)
    return Shard(first, len(table), path)


def rows_of(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The rows of a table as dicts of Python's objects, None where there is nothing."""
    columns = [column.to_pylist() for column in table.columns]
    for values in zip(*columns, strict=True):
        yield dict(zip(table.column_names, values, strict=True))
