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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pandas as pd
from dagster._core.storage.db_io_manager import DbClient, DbIOManager, DbTypeHandler, TableSlice
from dagster_duckdb import DuckDBIOManager
from pydantic import Field

from im_resources.study import PROJECT_ROOT
from im_resources.tables import (
    SCHEMA,
    WarehouseError,
    bindable,
    column_types,
    condition,
    insert,
    listed,
    qualified,
    quoted,
    stage,
)

SQL = PROJECT_ROOT / "sql"
__all__ = ["Warehouse", "WarehouseError", "WarehouseIOManager", "WarehouseResource"]


class Warehouse:
    """Tables in one DuckDB file. Every method is one short connection and one transaction."""

    def __init__(self, path: str | Path, config: Mapping[str, Any] | None = None) -> None:
        """Args: path: the file, made on first use; config: DuckDB options (memory_limit, …)."""
        self.path = Path(path).resolve()
        if self.path.stem == SCHEMA:
            raise WarehouseError(f"{self.path}: DuckDB confuses this name with the schema's")
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
            {name: bindable(value) for name, value in parameters.items()}
            if isinstance(parameters, Mapping)
            else [bindable(value) for value in parameters]
        )
        with self._transaction() as connection:
            return connection.execute(statement, bound).df()

    def has_table(self, table: str) -> bool:
        """Whether the table exists."""
        with self._transaction() as connection:
            return bool(column_types(connection, table))

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
        selected = "*" if columns is None else ", ".join(map(quoted, columns))
        rows, values = condition(where or {})
        with self._transaction() as connection:
            if not column_types(connection, table):
                raise WarehouseError(f"no table {table!r} in {self.path}")
            statement = f"SELECT {selected} FROM {qualified(table)} WHERE {rows}"
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
            outside = frame.loc[~frame[column].isin(listed(value)), column]
            if len(outside):
                raise WarehouseError(
                    f"table {table!r}: {len(outside)} rows with a {column!r} that is not being "
                    f"written: found {sorted(map(repr, set(outside)))[:5]}, "
                    f"writing {listed(value)[:5]}"
                )
        rows, values = condition(where)
        if frame.empty and len(frame.columns):  # whose dtypes say little; these are known
            frame = frame.astype({c: pd.Series(listed(value)).dtype for c, value in where.items()})
        with self._transaction() as connection:
            if len(frame.columns):
                stage(connection, table, frame, rows, values)
            if column_types(connection, table):
                connection.execute(f"DELETE FROM {qualified(table)} WHERE {rows}", values)
            if len(frame.columns):
                insert(connection, table)

    def replace_table(self, table: str, frame: pd.DataFrame) -> None:
        """Make ``frame`` the whole table, whatever columns and types that had before."""
        with self._transaction() as connection:
            connection.execute(f"DROP TABLE IF EXISTS {qualified(table)}")
            stage(connection, table, frame)
            insert(connection, table)

    def append(self, table: str, frame: pd.DataFrame, key: Sequence[str]) -> int:
        """Insert the rows whose ``key`` is not there yet, the first of each; return how many.

        Creates and evolves the table, and raises, as ``replace_rows`` does.
        """
        missing = [column for column in key if column not in frame]
        if missing or not key:
            raise WarehouseError(f"table {table!r}: the rows have no key column {missing}")
        same = " AND ".join(f"old.{quoted(k)} IS NOT DISTINCT FROM new.{quoted(k)}" for k in key)
        with self._transaction() as connection:
            stage(connection, table, frame.drop_duplicates(subset=list(key)))
            return insert(
                connection,
                table,
                f"WHERE NOT EXISTS (SELECT 1 FROM {qualified(table)} AS old WHERE {same})",
            )

    @contextmanager
    def _transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection once it is our turn; commits at the end, closing after an error undoes."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(f"{self.path}.lock", "ab") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            try:
                with duckdb.connect(str(self.path), config=self._config) as connection:
                    connection.begin()
                    yield connection
                    connection.commit()
            finally:
                # Closing would not do if a thread of ours has forked a process meanwhile.
                fcntl.flock(turn, fcntl.LOCK_UN)


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
        config: Any = context.resource_config
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
        return f"SELECT * FROM {qualified(table_slice.table)}"

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
        total = connection.query(f"SELECT count(*) AS total FROM {qualified(table)}")
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
        # By key, so that no result depends on which was written last; Dagster's order is a set's.
        frame = frame.sort_values(column, kind="stable", ignore_index=True)
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
