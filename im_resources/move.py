"""``python -m im_resources.move``: moves a study's tables from a file to a lake, or back.

::

    IM_DEPLOYMENT=ray python -m im_resources.move --to-lake [--replace]
    IM_DEPLOYMENT=ray python -m im_resources.move --to-file [--replace]

The study is that of ``IM_PROFILE``, the lake that of ``IM_DEPLOYMENT``, the file that in the
study's folder. What is moved from stays as it is. Every table is compared when all are there:
columns, types, number of rows, and their content in its order. It can be ended and run again:
tables that are alike already are not copied twice.
"""

import argparse
import sys
from dataclasses import dataclass

import duckdb

from im_resources.deployment.making import warehouse_of
from im_resources.study.environment import environment
from im_resources.tables import WarehouseError, qualified, quoted, storable
from im_resources.warehouse import Warehouse

INCOMING = '"moved rows"'


class MoveError(WarehouseError):
    """Tables that cannot be moved, or that are not alike afterwards; says which and what to do."""


@dataclass(frozen=True)
class Table:
    """What a table holds. ``types``: of its columns, in order; ``digest``: of the rows in order."""

    types: tuple[tuple[str, str], ...]
    rows: int
    digest: str


def move(source: Warehouse, target: Warehouse, replace: bool = False) -> dict[str, int]:
    """Copy all tables, and compare them; the rows of each.

    Args:
        replace: tables of the target that hold something else are replaced, or dropped where the
            source has none such.

    Raises:
        MoveError: the target holds something else; or it differs from the source afterwards, which
            somebody writes to.
        WarehouseError: one of the two cannot be read or written.
    """
    if not source.exists():
        raise MoveError(f"there is nothing to move: there is no {source.name}")
    names = source.tables()
    there = set(target.tables()) if target.exists() else set()
    wanted = {name: described(source, name, target) for name in names}
    alike = {name for name in names if name in there and described(target, name) == wanted[name]}
    other = sorted(there - alike)
    if other and not replace:
        raise MoveError(
            f"{target.name} holds other data than {source.name}, in {', '.join(other)}: with "
            "--replace it is replaced; nothing was moved"
        )
    for name in sorted(there - set(names)):
        target.execute(f"DROP TABLE {qualified(name)}")
    for name in names:
        if name not in alike:
            _copy(source, target, name, dict(wanted[name].types))
    differing = [
        name for name in names if described(source, name, target) != described(target, name)
    ]
    if differing or target.tables() != source.tables():
        raise MoveError(
            f"{', '.join(differing) or 'the list of tables'} differs between {source.name} and "
            f"{target.name}: somebody writes to one of them; end what runs, and run again"
        )
    return {name: wanted[name].rows for name in names}


def described(warehouse: Warehouse, name: str, stored_in: Warehouse | None = None) -> Table:
    """What a table holds, as it would be held by ``stored_in`` (default: by itself)."""
    types = warehouse.column_types(name)
    if stored_in is not None and stored_in.is_lake:
        types = {column: storable(type_) for column, type_ in types.items()}
    values = ", ".join(f"CAST({quoted(column)} AS {type_})" for column, type_ in types.items())
    statement = (
        f"WITH hashed AS (SELECT rowid AS place, hash({values}) AS row FROM {qualified(name)}), "
        "numbered AS (SELECT hash(row_number() OVER (ORDER BY place), row) AS h FROM hashed) "
        "SELECT count(*) AS n, bit_xor(h)::VARCHAR || ' ' || sum(h::HUGEINT)::VARCHAR AS digest "
        "FROM numbered"
    )
    found = warehouse.query(statement).iloc[0]
    return Table(tuple(types.items()), int(found["n"]), str(found["digest"]))


def _copy(source: Warehouse, target: Warehouse, name: str, types: dict[str, str]) -> None:
    """Replace one table, in one transaction, by a stream: it may be larger than memory."""
    columns = ", ".join(f"{quoted(column)} {type_}" for column, type_ in types.items())

    def work(connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute(f"DROP TABLE IF EXISTS {qualified(name)}")
        connection.execute(f"CREATE TABLE {qualified(name)} ({columns})")
        # Opened anew when the transaction is tried again.
        with source.arrow(f"SELECT * FROM {qualified(name)} ORDER BY rowid") as batches:
            connection.register(INCOMING.strip('"'), batches)
            connection.execute(f"INSERT INTO {qualified(name)} SELECT * FROM {INCOMING}")

    target.place.writing(work, name)


def main(arguments: list[str] | None = None) -> int:
    """The command line; 1 with a message when the tables are not moved."""
    parser = argparse.ArgumentParser(
        prog="python -m im_resources.move",
        description="Moves the tables of IM_PROFILE between a file and the lake of IM_DEPLOYMENT",
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--to-lake", action="store_true", help="from the study's file")
    where.add_argument("--to-file", action="store_true", help="into the study's file")
    parser.add_argument(
        "--replace", action="store_true", help="replace what the target holds of other data"
    )
    chosen = parser.parse_args(arguments)
    study = environment()[0]
    try:
        lake, file = warehouse_of(study), Warehouse(study.warehouse)
        if not lake.is_lake:
            raise MoveError(
                "IM_DEPLOYMENT names no lake: choose a deployment whose warehouse.kind is ducklake"
            )
        source, target = (file, lake) if chosen.to_lake else (lake, file)
        moved = move(source, target, chosen.replace)
    except WarehouseError as error:
        print(error, file=sys.stderr)
        return 1
    for name, rows in moved.items():
        print(f"{name}: {rows:,} rows, alike")
    print(f"{len(moved)} tables are in {target.name}; {source.name} is as it was")
    return 0


if __name__ == "__main__":
    sys.exit(main())
