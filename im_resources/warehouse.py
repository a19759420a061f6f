"""The warehouse: one DuckDB file, safe for several processes, threads and crashes.

* Connections are short, one statement or one write, and wait for those of others
  (``warehouse_turns``). Reading is read-only, so several processes read side by side, and never
  makes a file.
* A write is one transaction: create or evolve the table, delete, insert, commit. A process killed
  on the way leaves the last good rows, and a repeated write leaves the same rows.
* A new file appears whole, by a rename: DuckDB itself leaves one that it cannot open when it is
  killed, or the disk is full, while it makes it.
* The file's schema has a version, and an older file is migrated (``warehouse_versions``).
* A damaged file, a full disk and a folder that cannot be written to are told in one line with what
  to do (``warehouse_faults``).
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pandas as pd
import pyarrow as pa
from pydantic import Field

from im_resources.study import PROJECT_ROOT
from im_resources.tables import (
    SCHEMA,
    MissingTableError,
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
from im_resources.warehouse_faults import explained, write_ahead_log
from im_resources.warehouse_turns import Wait, bound, connect, turn
from im_resources.warehouse_versions import is_current, migrate

SQL = PROJECT_ROOT / "sql"
__all__ = ["Warehouse", "WarehouseError", "WarehouseResource"]


class Warehouse:
    """Tables in one DuckDB file. Every method is one short connection and one transaction.

    Every method raises WarehouseError when the file stays in use by somebody else for longer than
    ``wait``, is damaged, cannot be written, or is of a newer version.
    """

    def __init__(
        self,
        path: str | Path,
        config: Mapping[str, Any] | None = None,
        wait: float | None = None,
    ) -> None:
        """A warehouse in a file.

        Args:
            path: the file, made by the first write.
            config: DuckDB options (memory_limit, …).
            wait: seconds to wait for others at most; default: ``$IM_WAREHOUSE_WAIT``, else 600.
        """
        self._wait = bound() if wait is None else wait
        self.path = Path(path).resolve()
        if self.path.stem == SCHEMA:
            raise WarehouseError(f"{self.path}: DuckDB confuses this name with the schema's")
        # A table name in a query must never be answered by a Python variable of that name.
        kept = {"memory_limit": f"{memory_limit() >> 20}MiB", **(config or {})}
        self._config = {**kept, "python_enable_replacements": False}

    def query(
        self,
        statement: str,
        parameters: Mapping[str, Any] | Sequence[Any] = (),
        tables: Mapping[str, pa.Table] | None = None,
    ) -> pd.DataFrame:
        """Read by SQL, or by the file of ``sql/`` when the name ends in ``.sql``.

        Parameters are ``$name`` (a mapping) or ``?`` (a sequence). Integers and booleans come in a
        nullable dtype where a value is missing, lists as numpy arrays.

        Args:
            tables: further tables that the statement may name.

        Raises:
            duckdb.Error: the statement is wrong, or would write.
        """
        with self._reading() as connection:
            for name, table in (tables or {}).items():
                connection.register(name, table)
            return connection.execute(_text(statement), _bound(parameters)).df()

    @contextmanager
    def arrow(
        self,
        statement: str,
        parameters: Mapping[str, Any] | Sequence[Any] = (),
        tables: Mapping[str, pa.Table] | None = None,
        rows: int = 1 << 16,
    ) -> Iterator[pa.RecordBatchReader]:
        """Read by SQL as ``query`` does, as a stream of Arrow batches: for what a frame of Python's
        objects would be too large for. Nobody can write until the block ends.

        Args:
            rows: of a batch, about.
        """
        with self._reading() as connection:
            for name, table in (tables or {}).items():
                connection.register(name, table)
            yield connection.execute(_text(statement), _bound(parameters)).to_arrow_reader(rows)

    def execute(self, statement: str, parameters: Mapping[str, Any] | Sequence[Any] = ()) -> None:
        """Run SQL that writes, or the file of ``sql/``, as ``query`` does, in one transaction."""
        with self._transaction() as connection:
            connection.execute(_text(statement), _bound(parameters))

    def has_table(self, table: str) -> bool:
        """Whether the table exists."""
        with self._reading() as connection:
            return bool(column_types(connection, table))

    def read_table(
        self,
        table: str,
        columns: Sequence[str] | None = None,
        where: Mapping[str, Any] | None = None,
        categories: bool = False,
        without: Sequence[str] = (),
    ) -> pd.DataFrame:
        """The rows in which each ``where`` column equals its value (or one of a list of values).

        Args:
            columns: those that are read; None: all.
            categories: texts come as categories, each held once: for a long table of few.
            without: columns that are not read, where there are such.

        Raises:
            MissingTableError: no such table.
        """
        # As literals: a lambda takes no bound parameter.
        left_out = ", ".join(map(_text_literal, without))
        every = f"COLUMNS(lambda name: name NOT IN ({left_out}))" if without else "*"
        selected = every if columns is None else ", ".join(map(quoted, columns))
        rows, values = condition(where or {})
        with self._reading() as connection:
            statement = f"SELECT {selected} FROM {qualified(table)} WHERE {rows}"
            try:
                found = connection.execute(statement, values)
                return _categorized(found.to_arrow_table()) if categories else found.df()
            except duckdb.CatalogException:
                raise MissingTableError(f"no table {table!r} in {self.path}") from None

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

    def compact(self) -> None:
        """Write the file anew: what was deleted leaves its bytes in it otherwise.

        The old file stays until the new one is whole.
        """
        wait = Wait(self.path, self._wait)
        new = self.path.with_name(f".{self.path.name}.new")
        with explained(self.path), turn(wait):
            for leftover in (new, write_ahead_log(new)):
                leftover.unlink(missing_ok=True)
            with connect(wait, self._config) as connection:
                connection.execute("CHECKPOINT")
                connection.execute(f"ATTACH {_text_literal(str(new))} AS compacted")
                connection.execute(f"COPY FROM DATABASE {quoted(self.path.stem)} TO compacted")
                connection.execute("DETACH compacted")
            new.rename(self.path)

    @contextmanager
    def _reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A read-only connection; nobody writes while it is open. Of no file: without tables."""
        if not self.path.is_file():
            with duckdb.connect(config=self._config) as connection:
                yield connection
            return
        with explained(self.path):
            with self._read_only() as connection:
                current = is_current(connection, self.path)
                if current:
                    yield connection
            if not current:
                with self._transaction():  # which migrates
                    pass
                with self._read_only() as connection:
                    yield connection

    @contextmanager
    def _read_only(self) -> Iterator[duckdb.DuckDBPyConnection]:
        wait = Wait(self.path, self._wait)
        with ExitStack() as open_file:
            with turn(wait, reading=True):
                opening = connect(wait, self._config, read_only=True)
                connection = open_file.enter_context(opening)
            yield connection  # DuckDB's own lock keeps writers out, and nobody else

    @contextmanager
    def _transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection once it is our turn; commits at the end, closing after an error undoes."""
        wait = Wait(self.path, self._wait)
        with explained(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with turn(wait):
                if not self.path.exists():
                    self._make()
                with connect(wait, self._config) as connection:
                    connection.begin()
                    migrate(connection, self.path)
                    yield connection
                    connection.commit()

    def _make(self) -> None:
        """Make the file, whole or not at all."""
        new = self.path.with_name(f".{self.path.name}.new")
        for leftover in (new, write_ahead_log(new), write_ahead_log(self.path)):
            leftover.unlink(missing_ok=True)
        with duckdb.connect(str(new), config=self._config) as connection:
            connection.begin()
            migrate(connection, self.path)
            connection.commit()
            connection.execute("CHECKPOINT")
        new.rename(self.path)


def _categorized(table: pa.Table) -> pd.DataFrame:
    for number, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            encoded = table.column(number).dictionary_encode()
            table = table.set_column(number, field.name, encoded)
    frame: pd.DataFrame = table.to_pandas()
    return frame


@cache
def memory_limit() -> int:
    """Bytes that DuckDB may hold, beside what a step itself holds; more goes through a file.

    By itself it takes 80% of the machine, and gives nothing back that it has read.
    """
    import psutil

    return max(2 << 30, psutil.virtual_memory().total // 12)


def _text_literal(value: str) -> str:
    """A text as SQL: ATTACH takes no bound parameter."""
    return "'" + value.replace("'", "''") + "'"


def _text(statement: str) -> str:
    return (
        (SQL / statement).read_text(encoding="utf-8") if statement.endswith(".sql") else statement
    )


def _bound(parameters: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any] | list[Any]:
    if isinstance(parameters, Mapping):
        return {name: bindable(value) for name, value in parameters.items()}
    return [bindable(value) for value in parameters]


class WarehouseResource(dg.ConfigurableResource[Warehouse]):
    """Gives assets the Warehouse, for SQL and for caches written in chunks."""

    path: str = Field(description="The DuckDB file")

    def create_resource(self, context: dg.InitResourceContext) -> Warehouse:
        return Warehouse(self.path)
