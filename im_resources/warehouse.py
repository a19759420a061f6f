"""The warehouse: the tables of a study, safe for several processes, threads and crashes.

* In one DuckDB file (``warehouse_file``), or in a lake: Parquet files with a catalog in Postgres
  (``lake``). What is done with the tables is the same, and is here; how they are opened differs.
* A write is one transaction: create or evolve the table, delete, insert, commit. A process killed
  on the way leaves the last good rows, and a repeated write leaves the same rows.
* The tables' schema has a version, and an older one is migrated (``warehouse_versions``).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from itertools import count, takewhile
from pathlib import Path
from typing import Any, Protocol, TypeVar

import dagster as dg
import duckdb
import pandas as pd
import pyarrow as pa
from pydantic import Field

from im_resources.lake_address import LakeAddress
from im_resources.spooled import Spooled, write_table
from im_resources.study import PROJECT_ROOT
from im_resources.tables import (
    MissingTableError,
    WarehouseError,
    bindable,
    column_types,
    condition,
    insert,
    insert_files,
    listed,
    outside,
    qualified,
    quoted,
    stage,
    text_literal,
)
from im_resources.warehouse_file import WarehouseFile
from im_resources.warehouse_turns import bound

SQL = PROJECT_ROOT / "sql"
SPOOLED_ROWS = 20_000
CHUNKS = 10  # of 2048 rows each
T = TypeVar("T")
Work = Callable[[duckdb.DuckDBPyConnection], T]
__all__ = ["Warehouse", "WarehouseError", "WarehouseResource"]


class Place(Protocol):
    """How the tables are opened."""

    ordered: bool  # whether a table's rows come in the order in which they were written
    written: int | None  # the snapshot that the last write of this object made; None of a file

    def exists(self) -> bool: ...

    def reading(self, work: Work[T]) -> AbstractContextManager[T]: ...

    def writing(self, work: Work[T], table: str | None) -> T: ...

    def compact(self) -> None: ...

    def snapshot(self) -> int | None: ...

    def as_of(self, snapshot: int) -> "Place": ...


class Warehouse:
    """Tables in one DuckDB file, or in a lake. Every method is one transaction.

    Every method raises WarehouseError when the tables stay in use by somebody else, or out of
    reach, for longer than ``wait``, are damaged, cannot be written, or are of a newer version.
    """

    def __init__(
        self,
        path: str | Path | LakeAddress,
        config: Mapping[str, Any] | None = None,
        wait: float | None = None,
    ) -> None:
        """A warehouse in a file, or in a lake.

        Args:
            path: the file, or the address of a lake, also as text; made by the first write.
            config: DuckDB options (memory_limit, …).
            wait: seconds to wait for others at most; default: ``$IM_WAREHOUSE_WAIT``, else 600.
        """
        wait = bound() if wait is None else wait
        # A table name in a query must never be answered by a Python variable of that name.
        kept = {"memory_limit": f"{memory_limit() >> 20}MiB", **(config or {})}
        options = {**kept, "python_enable_replacements": False}
        lake = path if isinstance(path, LakeAddress) else LakeAddress.parse(str(path))
        self.place: Place
        if lake is None:
            assert not isinstance(path, LakeAddress)
            self.place = WarehouseFile(Path(path), options, wait)
        else:
            from im_resources.lake import Lake  # whose packages are an extra

            self.place = Lake(lake, options, wait)

    @property
    def name(self) -> str:
        """Where the tables are, for people: a path, or a lake's address; no secret is in it."""
        return str(self.place)

    @property
    def path(self) -> Path:
        """The file. Raises WarehouseError: the tables are in a lake."""
        if not isinstance(self.place, WarehouseFile):
            raise WarehouseError(f"the warehouse {self.name} is a lake, not a file")
        return self.place.path

    @property
    def is_lake(self) -> bool:
        """Whether the tables are in a lake."""
        return not isinstance(self.place, WarehouseFile)

    def exists(self) -> bool:
        """Whether anything was ever written. Makes nothing."""
        return self.place.exists()

    def snapshot(self) -> int | None:
        """The number of the tables' state now, for ``as_of``; None of a file, or of no lake yet."""
        return self.place.snapshot()

    @property
    def written(self) -> int | None:
        """The snapshot of this object's last write; None of a file, or where nothing changed."""
        return self.place.written

    def as_of(self, snapshot: int) -> "Warehouse":
        """The tables as they were at a snapshot, to read only.

        Raises:
            WarehouseError: the warehouse is a file, or has no such snapshot (any more).
        """
        past = object.__new__(Warehouse)
        past.place = self.place.as_of(snapshot)
        return past

    def tables(self) -> list[str]:
        """The names of all tables, in order, but for the one that holds the schema's version."""
        with self.place.reading(lambda connection: connection.execute(TABLES).fetchall()) as found:
            return [name for (name,) in found]

    def column_types(self, table: str) -> dict[str, str]:
        """Column name → DuckDB type, in order; empty when there is no such table."""
        with self.place.reading(lambda connection: column_types(connection, table)) as found:
            return found

    def query(
        self,
        statement: str,
        parameters: Mapping[str, Any] | Sequence[Any] = (),
        tables: Mapping[str, pa.Table] | None = None,
        categories: bool = False,
    ) -> pd.DataFrame:
        """Read by SQL, or by the file of ``sql/`` when the name ends in ``.sql``.

        Parameters are ``$name`` (a mapping) or ``?`` (a sequence). Integers and booleans come in a
        nullable dtype where a value is missing, lists as numpy arrays.

        Args:
            tables: further tables that the statement may name.
            categories: texts come as categories, each held once.

        Raises:
            duckdb.Error: the statement is wrong, or would write.
        """

        def work(connection: duckdb.DuckDBPyConnection) -> pd.DataFrame:
            found = _executed(connection, statement, parameters, tables)
            return _categorized(found.to_arrow_table()) if categories else found.df()

        with self.place.reading(work) as found:
            return found

    @contextmanager
    def frames(self, table: str) -> Iterator[Iterator[pd.DataFrame]]:
        """The rows as ``read_table`` gives them, some at a time. Nobody can write to a file until
        the block ends."""
        order = "" if self.place.ordered else " ORDER BY rowid"

        def work(connection: duckdb.DuckDBPyConnection) -> Iterator[pd.DataFrame]:
            found = connection.execute(f"SELECT * FROM {qualified(table)}{order}")
            return takewhile(len, (found.fetch_df_chunk(CHUNKS) for _ in count()))

        with self.place.reading(work) as frames:
            yield frames

    @contextmanager
    def arrow(
        self,
        statement: str,
        parameters: Mapping[str, Any] | Sequence[Any] = (),
        tables: Mapping[str, pa.Table] | None = None,
        rows: int = 1 << 16,
    ) -> Iterator[pa.RecordBatchReader]:
        """Read by SQL as ``query`` does, as a stream of Arrow batches: for what a frame of Python's
        objects would be too large for. Nobody can write to a file until the block ends.

        Args:
            rows: of a batch, about.
        """

        def work(connection: duckdb.DuckDBPyConnection) -> pa.RecordBatchReader:
            return _executed(connection, statement, parameters, tables).to_arrow_reader(rows)

        with self.place.reading(work) as batches:
            yield batches

    def execute(self, statement: str, parameters: Mapping[str, Any] | Sequence[Any] = ()) -> None:
        """Run SQL that writes, or the file of ``sql/``, as ``query`` does, in one transaction."""
        self.place.writing(lambda connection: _executed(connection, statement, parameters), None)

    def has_table(self, table: str) -> bool:
        """Whether the table exists."""
        return bool(self.column_types(table))

    def read_table(
        self,
        table: str,
        columns: Sequence[str] | None = None,
        where: Mapping[str, Any] | None = None,
        categories: bool | Sequence[str] = False,
        without: Sequence[str] = (),
    ) -> pd.DataFrame:
        """The rows in which each ``where`` column equals its value (or one of a list of values), in
        the order in which they were written.

        Args:
            columns: those that are read; None: all.
            categories: texts come as categories, each held once: for a long table of few. All
                texts, or those of these columns.
            without: columns that are not read, where there are such.

        Raises:
            MissingTableError: no such table.
        """
        # As literals: a lambda takes no bound parameter.
        left_out = ", ".join(map(text_literal, without))
        every = f"COLUMNS(lambda name: name NOT IN ({left_out}))" if without else "*"
        selected = every if columns is None else ", ".join(map(quoted, columns))
        rows, values = condition(where or {})
        statement = f"SELECT {selected} FROM {qualified(table)} WHERE {rows}"
        if not self.place.ordered:
            statement += " ORDER BY rowid"

        def work(connection: duckdb.DuckDBPyConnection) -> pd.DataFrame:
            try:
                found = connection.execute(statement, values)
                if not categories:
                    return found.df()
                named = None if isinstance(categories, bool) else categories
                return _categorized(found.to_arrow_table(), named)
            except duckdb.CatalogException:
                raise MissingTableError(f"no table {table!r} in {self.name}") from None

        with self.place.reading(work) as frame:
            return frame

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

        def work(connection: duckdb.DuckDBPyConnection) -> None:
            if len(frame.columns):
                stage(connection, table, frame, rows, values)
            if column_types(connection, table):
                connection.execute(f"DELETE FROM {qualified(table)} WHERE {rows}", values)
            if len(frame.columns):
                insert(connection, table)

        self.place.writing(work, table)

    def replace_table(self, table: str, frame: pd.DataFrame) -> None:
        """Make ``frame`` the whole table, whatever columns and types that had before."""

        def work(connection: duckdb.DuckDBPyConnection) -> None:
            connection.execute(f"DROP TABLE IF EXISTS {qualified(table)}")
            stage(connection, table, frame)
            insert(connection, table)

        self.place.writing(work, table)

    def replace_from(
        self, table: str, rows: Spooled, where: Mapping[str, Any] | None = None
    ) -> None:
        """Make rows in files the whole table (``replace_table``), or with ``where`` the rows for
        which it holds (``replace_rows``), in one transaction. They are never in memory together.

        Raises WarehouseError as ``replace_rows`` does.
        """
        deleted, values = condition(where or {})

        def work(connection: duckdb.DuckDBPyConnection) -> None:
            outside(connection, table, rows, where or {})
            if where is None:
                connection.execute(f"DROP TABLE IF EXISTS {qualified(table)}")
            stage(connection, table, rows, deleted, values)
            if where is not None:
                connection.execute(f"DELETE FROM {qualified(table)} WHERE {deleted}", values)
            insert_files(connection, table, rows)

        self.place.writing(work, table)

    def spooled(
        self,
        folder: Path,
        statement: str,
        parameters: Mapping[str, Any] | Sequence[Any] = (),
        tables: Mapping[str, pa.Table] | None = None,
        rows: int = SPOOLED_ROWS,
    ) -> Spooled:
        """Read by SQL as ``query`` does, into Parquet files in a folder: for what is gone through
        for longer than others should wait for the tables.

        Args:
            rows: of a file, about.
        """
        files: list[Path] = []
        total = 0
        folder.mkdir(parents=True, exist_ok=True)
        with self.arrow(statement, parameters, tables, rows) as batches:
            for batch in batches:
                table = pa.Table.from_batches([batch])
                files.append(write_table(table, folder / f"{len(files):06}.parquet"))
                total += len(table)
            if not files:  # one without rows tells the columns
                files.append(write_table(batches.schema.empty_table(), folder / "000000.parquet"))
        return Spooled(tuple(files), total)

    def append(self, table: str, frame: pd.DataFrame, key: Sequence[str]) -> int:
        """Insert the rows whose ``key`` is not there yet, the first of each; return how many.

        Creates and evolves the table, and raises, as ``replace_rows`` does.
        """
        missing = [column for column in key if column not in frame]
        if missing or not key:
            raise WarehouseError(f"table {table!r}: the rows have no key column {missing}")
        same = " AND ".join(f"old.{quoted(k)} IS NOT DISTINCT FROM new.{quoted(k)}" for k in key)
        new = frame.drop_duplicates(subset=list(key))

        def work(connection: duckdb.DuckDBPyConnection) -> int:
            stage(connection, table, new)
            return insert(
                connection,
                table,
                f"WHERE NOT EXISTS (SELECT 1 FROM {qualified(table)} AS old WHERE {same})",
            )

        return self.place.writing(work, table)

    def compact(self) -> None:
        """Give back the room of what was deleted, whose bytes stay in the files otherwise.

        Of a lake the history goes too: what a table held before cannot be read any more.
        """
        self.place.compact()


TABLES = """SELECT table_name FROM duckdb_tables()
WHERE database_name = current_database() AND schema_name = 'main'
AND table_name <> 'warehouse_version' ORDER BY table_name"""


def _executed(
    connection: duckdb.DuckDBPyConnection,
    statement: str,
    parameters: Mapping[str, Any] | Sequence[Any],
    tables: Mapping[str, pa.Table] | None = None,
) -> duckdb.DuckDBPyConnection:
    for name, table in (tables or {}).items():
        connection.register(name, table)
    return connection.execute(
        sql(statement) if statement.endswith(".sql") else statement, _bound(parameters)
    )


def _categorized(table: pa.Table, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """A frame with texts as categories: all, or those of some columns."""
    for number, field in enumerate(table.schema):
        if pa.types.is_string(field.type) and (columns is None or field.name in columns):
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


def sql(file: str) -> str:
    """The statement in a file of ``sql/``."""
    return (SQL / file).read_text(encoding="utf-8")


def _bound(parameters: Mapping[str, Any] | Sequence[Any]) -> dict[str, Any] | list[Any]:
    if isinstance(parameters, Mapping):
        return {name: bindable(value) for name, value in parameters.items()}
    return [bindable(value) for value in parameters]


class WarehouseResource(dg.ConfigurableResource[Warehouse]):
    """Gives assets the Warehouse, for SQL and for caches written in chunks."""

    path: str = Field(description="The DuckDB file, or the address of a lake")

    def create_resource(self, context: dg.InitResourceContext) -> Warehouse:
        return Warehouse(self.path)
