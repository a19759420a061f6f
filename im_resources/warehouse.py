"""The warehouse: one DuckDB file, safe for several processes, threads and crashes.

Three things that DuckDB and dagster-duckdb leave to their user are settled here, in one place:

* A DuckDB writer locks every other process out, readers included, who then fail
  (https://duckdb.org/docs/stable/connect/concurrency). Connections here are short, and each waits
  for its turn on an advisory lock on ``<file>.lock``. Every turn opens the lock file anew, so the
  lock also keeps threads and several Warehouse objects of one process apart; the kernel frees it
  when its holder dies.
* A write is one transaction: create or evolve the table, delete, insert, commit. A process killed
  on the way leaves the last good rows, and a repeated write leaves the same rows.
* The stock manager of dagster-duckdb commits its delete apart from its insert, so a failure in
  between loses the partition (https://github.com/dagster-io/dagster/issues/14091), inserts by
  position, and retries a locked file ten times over 102 s. WarehouseIOManager is that manager with
  a client and a type handler of ours, which leave the writing to Warehouse.
"""

import fcntl
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
from dagster._core.storage.db_io_manager import DbClient, DbIOManager, DbTypeHandler, TableSlice
from dagster_duckdb import DuckDBIOManager
from pydantic import Field

from im_resources.study import PROJECT_ROOT

SQL = PROJECT_ROOT / "sql"
SCHEMA = "main"
INCOMING = "incoming rows"  # the staged frame; with its blank, no table can have this name


class WarehouseError(ValueError):
    """A table that is not there, or rows that do not belong in it; the message names both."""


class Warehouse:
    """Tables in one DuckDB file. Every method is one short connection and one transaction."""

    def __init__(self, path: str | Path, config: Mapping[str, Any] | None = None) -> None:
        """Args: path: the file, made on first use; config: DuckDB options (memory_limit, …)."""
        self.path = Path(path).resolve()
        if self.path.stem == SCHEMA:
            raise WarehouseError(f"{self.path}: DuckDB cannot tell the file from its schema {SCHEMA!r}")
        # A table name in a query must never be answered by a Python variable of that name.
        self._config = {**(config or {}), "python_enable_replacements": False}

    def query(
        self, statement: str, parameters: Mapping[str, Any] | Sequence[Any] = ()
    ) -> pd.DataFrame:
        """Run SQL, or the file of ``sql/`` when the name ends in ``.sql``, with bound parameters.

        Parameters are ``$name`` (a mapping) or ``?`` (a sequence). Integers and booleans come in a
        nullable dtype where a value is missing, lists as numpy arrays.
        """
        if statement.endswith(".sql"):
            statement = (SQL / statement).read_text(encoding="utf-8")
        bound = (
            {name: _plain(value) for name, value in parameters.items()}
            if isinstance(parameters, Mapping)
            else [_plain(value) for value in parameters]
        )
        with self._transaction() as connection:
            return connection.execute(statement, bound).df()

    def has_table(self, table: str) -> bool:
        """Whether the table exists."""
        with self._transaction() as connection:
            return bool(_column_types(connection, table))

    def read_table(
        self,
        table: str,
        columns: Sequence[str] | None = None,
        where: Mapping[str, Any] | None = None,
    ) -> pd.DataFrame:
        """The rows in which each ``where`` column equals its value (or one of a list of values).

        Raises:
            WarehouseError: no such table.
        """
        selected = "*" if columns is None else ", ".join(map(_quoted, columns))
        condition, values = _condition(where or {})
        with self._transaction() as connection:
            if not _column_types(connection, table):
                raise WarehouseError(f"no table {table!r} in {self.path}")
            statement = f"SELECT {selected} FROM {_qualified(table)} WHERE {condition}"
            return connection.execute(statement, values).df()

    def replace_rows(self, table: str, frame: pd.DataFrame, where: Mapping[str, Any]) -> None:
        """Make ``frame`` the rows for which ``where`` holds; all others stay. Repeatable.

        Creates the table, and adds columns that only the frame has; rows without a value for a
        column hold NULL there. A frame without any column only deletes.

        Raises:
            WarehouseError: a row of the frame is outside ``where`` (a repeated write would double
                it), or a type clashes with the table's. The old rows stay.
        """
        for column, value in where.items() if len(frame.columns) else ():
            if column not in frame:
                raise WarehouseError(f"table {table!r}: the rows have no column {column!r}")
            outside = frame.loc[~frame[column].isin(_values(value)), column]
            if len(outside):
                raise WarehouseError(
                    f"table {table!r}: {len(outside)} rows with a {column!r} that is not being "
                    f"written: found {sorted(map(repr, set(outside)))[:5]}, "
                    f"writing {_values(value)[:5]}"
                )
        condition, values = _condition(where)
        with self._transaction() as connection:
            if len(frame.columns):
                _stage(connection, table, frame, condition, values)
            if _column_types(connection, table):
                connection.execute(f"DELETE FROM {_qualified(table)} WHERE {condition}", values)
            if len(frame.columns):
                _insert(connection, table)

    def replace_table(self, table: str, frame: pd.DataFrame) -> None:
        """Make ``frame`` the whole table, whatever columns and types that had before."""
        with self._transaction() as connection:
            connection.execute(f"DROP TABLE IF EXISTS {_qualified(table)}")
            _stage(connection, table, frame)
            _insert(connection, table)

    def append(self, table: str, frame: pd.DataFrame, key: Sequence[str]) -> int:
        """Insert the rows whose ``key`` is not there yet, the first of each; return how many.

        Creates and evolves the table, and raises, as ``replace_rows`` does.
        """
        missing = [column for column in key if column not in frame]
        if missing or not key:
            raise WarehouseError(f"table {table!r}: the rows have no key column {missing}")
        same = " AND ".join(f"old.{_quoted(k)} IS NOT DISTINCT FROM new.{_quoted(k)}" for k in key)
        with self._transaction() as connection:
            _stage(connection, table, frame.drop_duplicates(subset=list(key)))
            return _insert(
                connection,
                table,
                f"WHERE NOT EXISTS (SELECT 1 FROM {_qualified(table)} AS old WHERE {same})",
            )

    @contextmanager
    def _transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection once it is our turn; commits at the end, closing after an error undoes."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(f"{self.path}.lock", "ab") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            with duckdb.connect(str(self.path), config=self._config) as connection:
                connection.begin()
                yield connection
                connection.commit()


def _stage(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    frame: pd.DataFrame,
    rewritten: str = "false",
    values: Sequence[Any] = (),
) -> None:
    """Register the frame, and make the table able to hold it beside the rows not ``rewritten``."""
    if not len(frame.columns):
        raise WarehouseError(f"table {table!r}: a frame without columns")
    names = {column: _quoted(column) for column in frame.columns}
    incoming = pa.Table.from_pandas(frame, preserve_index=False)
    # Arrow has no type for a column without values; DuckDB would make it INTEGER. Text is likelier.
    fields = [f.with_type(pa.string()) if pa.types.is_null(f.type) else f for f in incoming.schema]
    connection.register(INCOMING, incoming.cast(pa.schema(fields)))
    described = connection.execute(f'DESCRIBE SELECT * FROM "{INCOMING}"').fetchall()
    types = {name: type_ for name, type_, *_ in described}

    present = _column_types(connection, table)
    if not present:
        columns = ", ".join(f"{names[column]} {type_}" for column, type_ in types.items())
        connection.execute(f"CREATE TABLE {_qualified(table)} ({columns})")
        return
    for column, type_ in types.items():
        name, old, alter = names[column], present.get(column), f"ALTER TABLE {_qualified(table)}"
        if old is None:
            connection.execute(f"{alter} ADD COLUMN {name} {type_}")
        elif type_ != old and not _casts(connection, type_, old):
            new_values = f'SELECT count({name}) FROM "{INCOMING}"'
            old_values = f"SELECT count({name}) FROM {_qualified(table)} WHERE NOT ({rewritten})"
            if not _scalar(connection, new_values):
                continue
            if _scalar(connection, old_values, values):
                raise WarehouseError(
                    f"table {table!r}, column {column!r}: the table holds {old}, the new rows "
                    f"{type_}; convert the new ones, or write all rows of the table at once"
                )
            # Nothing that stays has a value here, so the column takes the new type.
            connection.execute(f"{alter} ALTER {name} TYPE {type_} USING CAST(NULL AS {type_})")


def _insert(connection: duckdb.DuckDBPyConnection, table: str, condition: str = "") -> int:
    rows = f'SELECT new.* FROM "{INCOMING}" AS new {condition}'
    return int(_scalar(connection, f"INSERT INTO {_qualified(table)} BY NAME {rows}"))


def _column_types(connection: duckdb.DuckDBPyConnection, table: str) -> dict[str, str]:
    """Column name → DuckDB type; empty when there is no such table."""
    _quoted(table)
    found = connection.execute(
        "SELECT column_name, data_type FROM duckdb_columns() "
        "WHERE database_name = current_database() AND schema_name = ? AND table_name = ?",
        [SCHEMA, table],
    )
    return dict(found.fetchall())


def _casts(connection: duckdb.DuckDBPyConnection, source: str, target: str) -> bool:
    """Whether DuckDB casts on its own: BIGINT to DOUBLE yes, DOUBLE to BIGINT (rounding) no."""
    pair = f"CAST(NULL AS {source}), CAST(NULL AS {target})"
    return bool(_scalar(connection, f"SELECT can_cast_implicitly({pair})"))


def _scalar(connection: duckdb.DuckDBPyConnection, statement: str, values: Any = ()) -> Any:
    row = connection.execute(statement, list(values)).fetchone()
    return row[0] if row else None


def _condition(where: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """SQL for ``column IN values`` over all columns, and the values to bind."""
    parts = [f"{_quoted(column)} IN (SELECT unnest(?))" for column in where]
    return " AND ".join(parts) or "true", [_values(value) for value in where.values()]


def _values(value: Any) -> list[Any]:
    many = isinstance(value, Iterable) and not isinstance(value, (str, bytes))
    return [_plain(item) for item in value] if many else [_plain(value)]


def _plain(value: Any) -> Any:
    """numpy scalars as Python ones: DuckDB does not bind them inside a list."""
    return value.item() if isinstance(value, np.generic) else value


def _quoted(name: Any) -> str:
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", name):
        raise WarehouseError(f"{name!r} cannot name a table or column: use letters, digits, _ and -")
    return f'"{name}"'


def _qualified(table: str) -> str:
    return f"{SCHEMA}.{_quoted(table)}"


class WarehouseResource(dg.ConfigurableResource[Warehouse]):
    """Gives assets the Warehouse, for SQL and for caches written in chunks."""

    path: str = Field(description="The DuckDB file")

    def create_resource(self, context: dg.InitResourceContext) -> Warehouse:
        return Warehouse(self.path)


class _Client(DbClient[Warehouse]):
    """Hands the Warehouse to the type handler; creating and deleting belong to its one write."""

    @staticmethod
    @contextmanager
    def connect(
        context: dg.OutputContext | dg.InputContext, table_slice: TableSlice
    ) -> Iterator[Warehouse]:
        config = context.resource_config or {}
        yield Warehouse(config["database"], config["connection_config"])

    @staticmethod
    def ensure_schema_exists(
        context: dg.OutputContext, table_slice: TableSlice, connection: Warehouse
    ) -> None: ...

    @staticmethod
    def delete_table_slice(
        context: dg.OutputContext, table_slice: TableSlice, connection: Warehouse
    ) -> None: ...

    @staticmethod
    def get_select_statement(table_slice: TableSlice) -> str:
        return f"SELECT * FROM {_qualified(table_slice.table)}"

    @staticmethod
    def get_table_name(table_slice: TableSlice) -> str:
        return f"{Path(table_slice.database or '').stem}.{SCHEMA}.{table_slice.table}"


class _FrameHandler(DbTypeHandler[pd.DataFrame]):
    """pandas frames to and from partitions of a table."""

    @property
    def supported_types(self) -> Sequence[type[object]]:
        return [pd.DataFrame]

    def handle_output(
        self,
        context: dg.OutputContext,
        table_slice: TableSlice,
        obj: pd.DataFrame,
        connection: Warehouse,
    ) -> dict[str, Any]:
        table, column = table_slice.table, _partition_column(table_slice)
        if column is None:
            connection.replace_table(table, obj)
            return {"dagster/row_count": len(obj)}
        if column not in obj:
            raise WarehouseError(f"asset {table!r}: its rows have no partition column {column!r}")
        keys = list(context.asset_partition_keys)
        connection.replace_rows(table, obj, {column: keys})
        total = connection.query(f"SELECT count(*) AS total FROM {_qualified(table)}")
        counts = {"dagster/row_count": int(total["total"].iloc[0])}
        return counts if len(keys) > 1 else {**counts, "dagster/partition_row_count": len(obj)}

    def load_input(
        self, context: dg.InputContext, table_slice: TableSlice, connection: Warehouse
    ) -> pd.DataFrame:
        table, columns = table_slice.table, table_slice.columns
        if not connection.has_table(table):
            raise WarehouseError(
                f"asset {table!r} is not in the warehouse {connection.path}: materialize it first"
            )
        column = _partition_column(table_slice)
        if column is None:
            return connection.read_table(table, columns)
        keys = list(context.asset_partition_keys)
        wanted = None if columns is None else list(dict.fromkeys([*columns, column]))
        frame = connection.read_table(table, wanted, {column: keys})
        missing = sorted(set(keys) - set(frame[column]))
        if missing and not _may_miss(context):
            raise WarehouseError(
                f"asset {table!r} has no rows for the partitions {missing}: materialize them "
                "first, or set allow_missing_partitions in the input's metadata"
            )
        # In the order of the keys, so that a result does not depend on which was written last.
        order = {key: position for position, key in enumerate(keys)}
        frame = frame.sort_values(
            column, key=lambda c: c.map(order), kind="stable", ignore_index=True
        )
        return frame if columns is None else frame[list(columns)]


def _partition_column(table_slice: TableSlice) -> str | None:
    dimensions = table_slice.partition_dimensions or []
    if len(dimensions) > 1:
        raise WarehouseError(f"asset {table_slice.table!r}: only one partition dimension is stored")
    return dimensions[0].partition_expr if dimensions else None


def _may_miss(context: dg.InputContext) -> bool:
    """An input may ask for it; an unpartitioned asset reads the partitions that there are."""
    # The public step_context raises where there is none (loading a value outside a run).
    step = context._step_context
    fan_in = step is not None and step.entity_partitions_def is None
    return bool((context.definition_metadata or {}).get("allow_missing_partitions", fan_in))


class WarehouseIOManager(DuckDBIOManager):
    """Stores assets as tables of a Warehouse, a partition being the rows with its key in a column.

    Partitioned assets name that column, of text, in ``metadata={"partition_expr": …}``; one key or
    many are rewritten together, and an empty frame leaves a partition without rows. Others replace
    their whole table. An input's metadata may set ``columns`` and ``allow_missing_partitions``.

    Raises:
        WarehouseError: rows outside the keys being written, or an input not materialized yet.
    """

    @staticmethod
    def type_handlers() -> Sequence[DbTypeHandler]:
        return [_FrameHandler()]

    def create_io_manager(self, context: dg.InitResourceContext) -> DbIOManager:
        return DbIOManager(
            type_handlers=self.type_handlers(),
            db_client=_Client(),
            database=self.database,
            schema=SCHEMA,
            io_manager_name=type(self).__name__,
        )
