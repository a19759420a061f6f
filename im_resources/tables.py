"""Writing a frame into one table of DuckDB, inside a transaction that the caller holds.

Kept apart from the warehouse, which decides when: here is only how. A table takes new columns as
they come, its rows are matched by column name, and no value is bent to fit a column (DuckDB itself
would round 0.7 into a BIGINT column without a word).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from duckdb import CatalogException, DuckDBPyConnection

from im_resources.spooled import Spooled

SCHEMA = "main"
INCOMING = '"incoming rows"'  # the staged frame; for its blank, no table can have this name
KEPT = '"kept rows"'
PART_BYTES = 1 << 27  # of rows in files that go into a lake at once
FIXED = re.compile(r"\[\d+\]")
POSITION = "incoming position"  # its column of row numbers, which is not stored


class WarehouseError(ValueError):
    """What keeps the warehouse from being read or written; the message says what to do."""


class MissingTableError(WarehouseError):
    """A table that is asked for was never written."""


def stage(
    connection: DuckDBPyConnection,
    table: str,
    frame: pd.DataFrame | Spooled,
    rewritten: str = "false",
    values: Sequence[Any] = (),
) -> None:
    """Register ``frame`` as INCOMING, and make the table able to hold it.

    Args:
        connection: within a transaction.
        table: created from the frame if it is not there; else it gets the columns that it lacks.
        frame: the new rows; text of any kind, numbers, times, lists, arrays. In files, they are
            read from there.
        rewritten: the condition of rows that are about to be deleted, with its bound ``values``: a
            column that holds no other value may change its type.

    Raises:
        WarehouseError: a name that cannot be used, a column of mixed types, or one whose type
            clashes with the table's.
    """
    if isinstance(frame, Spooled):
        _view(connection, frame)
    else:
        _register(connection, table, frame)
    described = connection.execute(f"DESCRIBE {_rows_of(INCOMING)}").fetchall()
    types = {name: type_ for name, type_, *_ in described}
    if is_lake(connection):
        types = {name: storable(type_) for name, type_ in types.items()}
    names = {column: quoted(column) for column in types}

    present = column_types(connection, table)
    if not present:
        columns = ", ".join(f"{names[column]} {type_}" for column, type_ in types.items())
        connection.execute(f"CREATE TABLE {qualified(table)} ({columns})")
        return
    for column, type_ in types.items():
        name, old, alter = names[column], present.get(column), f"ALTER TABLE {qualified(table)}"
        if old is None:
            connection.execute(f"{alter} ADD COLUMN {name} {type_}")
        elif type_ != old and not _casts(connection, type_, old):
            # Without a value in the new rows, or in those that stay, nothing has to be converted.
            if not _scalar(connection, f"SELECT count({name}) FROM {INCOMING}"):
                continue
            staying = f"FROM {qualified(table)} WHERE ({rewritten}) IS NOT TRUE"
            if _scalar(connection, f"SELECT count({name}) {staying}", values):
                raise WarehouseError(
                    f"table {table!r}, column {column!r}: the table holds {old}, the new rows "
                    f"{type_}. If {old} is right, convert the column; if {type_} is, materialize "
                    f"all partitions of {table!r} in one run, which may change a column's type, or "
                    f"drop the table, with what it holds: Warehouse(…).execute('DROP TABLE "
                    f"{qualified(table)}')"
                )
            if is_lake(connection):
                _empty_column(connection, table, name, type_)
            else:
                connection.execute(f"{alter} ALTER {name} TYPE {type_} USING CAST(NULL AS {type_})")


def _register(connection: DuckDBPyConnection, table: str, frame: pd.DataFrame) -> None:
    """Register the rows of a frame as INCOMING. Raises WarehouseError as `stage` does."""
    if not len(frame.columns):
        raise WarehouseError(f"table {table!r}: a frame without columns")
    for column in frame.columns:
        quoted(column)
    try:
        incoming = pa.Table.from_pandas(frame, preserve_index=False)
    except pa.ArrowException as error:  # names the column
        said = ": ".join(map(str, reversed(error.args)))
        raise WarehouseError(f"table {table!r}: one column, one type of values. {said}") from error
    # Arrow has no type for a column without values; DuckDB would make it INTEGER. Text is likelier.
    fields = [f.with_type(pa.string()) if pa.types.is_null(f.type) else f for f in incoming.schema]
    staged = incoming.cast(pa.schema(fields))
    numbers = pa.array(np.arange(len(staged)))
    connection.register(INCOMING.strip('"'), staged.append_column(POSITION, numbers))


def _view(connection: DuckDBPyConnection, rows: Spooled) -> None:
    """Register rows in files as INCOMING, in their order; without numbers, which only a condition
    of `insert` needs."""
    files = ", ".join(text_literal(str(file)) for file in rows.files)
    connection.execute(
        f"CREATE OR REPLACE TEMP VIEW {INCOMING} AS "
        f'SELECT *, NULL::BIGINT AS "{POSITION}" FROM read_parquet([{files}])'
    )


def outside(
    connection: DuckDBPyConnection, table: str, rows: Spooled, where: Mapping[str, Any]
) -> None:
    """Raises WarehouseError when a row in files has another value in a column of ``where``."""
    _view(connection, rows)
    for column, value in where.items():
        statement = (
            f"SELECT count(*) FROM {INCOMING} WHERE {quoted(column)} NOT IN (SELECT unnest(?)) "
            f"OR {quoted(column)} IS NULL"
        )
        if count := _scalar(connection, statement, [listed(value)]):
            raise WarehouseError(
                f"table {table!r}: {count} rows with a {column!r} that is not being written: "
                f"writing {listed(value)[:5]}"
            )


def insert(connection: DuckDBPyConnection, table: str, condition: str = "") -> int:
    """Insert the staged rows (``new`` in the condition) by column name; returns how many.

    They keep their order, which a condition that joins would not.
    """
    rows = f"{_rows_of(f'{INCOMING} AS new')} {condition}"
    if condition:
        rows += f' ORDER BY new."{POSITION}"'
    return int(_scalar(connection, f"INSERT INTO {qualified(table)} BY NAME {rows}"))


def insert_files(connection: DuckDBPyConnection, table: str, rows: Spooled) -> None:
    """Insert rows in files, which are staged, in their order."""
    if not is_lake(connection):
        insert(connection, table)
        return
    # Several threads write into a lake, each a file of its own, so that the rows of a scan or of a
    # sort are mixed. A batch of Arrow's is the work of one.
    connection.execute(f"DROP VIEW {INCOMING}")
    for part in rows.parts(PART_BYTES):
        numbered = part.append_column(POSITION, pa.nulls(len(part), pa.int64()))
        connection.register(INCOMING.strip('"'), numbered.combine_chunks())
        insert(connection, table)


def is_lake(connection: DuckDBPyConnection) -> bool:
    """Whether the connection's tables are in a lake, and not in a file."""
    statement = "SELECT type FROM duckdb_databases() WHERE database_name = current_database()"
    return bool(_scalar(connection, statement) == "ducklake")


def storable(type_: str) -> str:
    """The type that a column of a lake has for values of a type.

    A lake has no categories and no lists of fixed length (https://ducklake.select/docs/stable/
    specification/data_types): text and lists hold the same.
    """
    return "VARCHAR" if type_.startswith("ENUM(") else FIXED.sub("[]", type_)


def column_types(connection: DuckDBPyConnection, table: str) -> dict[str, str]:
    """Column name → DuckDB type; empty when there is no such table."""
    try:  # duckdb_columns() goes through the columns of all tables
        described = connection.execute(f"DESCRIBE {qualified(table)}").fetchall()
    except CatalogException:
        return {}
    return {name: type_ for name, type_, *_ in described}


def condition(where: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """SQL for: each column is (one of) its values; and the values to bind."""
    parts = [f"{quoted(column)} IN (SELECT unnest(?))" for column in where]
    return " AND ".join(parts) or "true", [listed(value) for value in where.values()]


def listed(value: Any) -> list[Any]:
    """A list for binding, of one value or of many."""
    many = isinstance(value, Iterable) and not isinstance(value, (str, bytes))
    return [bindable(item) for item in value] if many else [bindable(value)]


def bindable(value: Any) -> Any:
    """``value`` with Python's own scalars: DuckDB does not bind those of numpy inside a list."""
    if isinstance(value, np.generic):
        return value.item()
    return [bindable(item) for item in value] if isinstance(value, (list, tuple)) else value


def quoted(name: Any) -> str:
    """A table's or column's name for use in SQL. Raises WarehouseError when it cannot be one."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_-]*", name):
        raise WarehouseError(f"{name!r} cannot name a table or column: only letters, digits, _, -")
    return f'"{name}"'


def text_literal(value: str) -> str:
    """A text as SQL, for what takes no bound parameter, such as ATTACH."""
    return "'" + value.replace("'", "''") + "'"


def qualified(table: str) -> str:
    """The table's name with its schema, for use in SQL."""
    return f"{SCHEMA}.{quoted(table)}"


def _rows_of(staged: str) -> str:
    return f'SELECT * EXCLUDE ("{POSITION}") FROM {staged}'


def _empty_column(connection: DuckDBPyConnection, table: str, name: str, type_: str) -> None:
    """Give a column another type, and no value; by making the table anew, as a lake needs it.

    Rows and columns keep their order.
    """
    types = column_types(connection, table)
    columns = ", ".join(
        f"{quoted(n)} {type_ if quoted(n) == name else t}" for n, t in types.items()
    )
    kept = f"SELECT * REPLACE (CAST(NULL AS {type_}) AS {name}) FROM {qualified(table)}"
    connection.execute(f"CREATE OR REPLACE TEMP TABLE {KEPT} AS {kept} ORDER BY rowid")
    connection.execute(f"DROP TABLE {qualified(table)}")
    connection.execute(f"CREATE TABLE {qualified(table)} ({columns})")
    connection.execute(f"INSERT INTO {qualified(table)} SELECT * FROM temp.{KEPT}")
    connection.execute(f"DROP TABLE temp.{KEPT}")


def _casts(connection: DuckDBPyConnection, source: str, target: str) -> bool:
    """Whether DuckDB casts on its own: BIGINT to DOUBLE yes, DOUBLE to BIGINT (rounding) no."""
    pair = f"CAST(NULL AS {source}), CAST(NULL AS {target})"
    return bool(_scalar(connection, f"SELECT can_cast_implicitly({pair})"))


def _scalar(connection: DuckDBPyConnection, statement: str, values: Sequence[Any] = ()) -> Any:
    row = connection.execute(statement, list(values)).fetchone()
    return row[0] if row else None
