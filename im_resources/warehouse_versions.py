"""The version of a warehouse's schema, and how an older file is brought up to date.

What assets write changes by itself: a table gets the columns that come, and is made anew when all
of it is written. Caches are only ever added to, so a change of what they hold needs a migration:
append a function to ``MIGRATIONS``, with a test that starts from a file as it was before.
"""

from collections.abc import Callable
from pathlib import Path

from duckdb import CatalogException, DuckDBPyConnection, IOException, TransactionException

from im_resources.tables import SCHEMA, WarehouseError

TABLE = "warehouse_version"


def stamp(connection: DuckDBPyConnection) -> None:
    """To version 1: before it, files had the same tables and no version."""
    connection.execute(f"CREATE TABLE {SCHEMA}.{TABLE} (version INTEGER NOT NULL)")
    connection.execute(f"INSERT INTO {SCHEMA}.{TABLE} VALUES (1)")


# The i-th of them brings a file from version i to i + 1, within the transaction of the first write.
MIGRATIONS: tuple[Callable[[DuckDBPyConnection], None], ...] = (stamp,)


def version(connection: DuckDBPyConnection) -> int:
    """The version of the file; 0 when it has none."""
    try:
        found = connection.execute(f"SELECT max(version) FROM {SCHEMA}.{TABLE}").fetchone()
    except CatalogException:
        return 0
    return int(found[0]) if found and found[0] is not None else 0


def is_current(connection: DuckDBPyConnection, path: Path | str) -> bool:
    """Whether the file has today's version. Raises WarehouseError when it is from the future."""
    found = version(connection)
    if found > len(MIGRATIONS):
        raise WarehouseError(
            f"the warehouse {path} has schema version {found}, and this code knows versions up to "
            f"{len(MIGRATIONS)}: update the code (git pull, make install), or set IM_HOME to "
            "another folder"
        )
    return found == len(MIGRATIONS)


def migrate(connection: DuckDBPyConnection, path: Path | str) -> None:
    """Bring the file to today's version, within a transaction of the caller's.

    Raises:
        WarehouseError: the file is of a newer version, or a migration fails; the caller's
            transaction then leaves it as it was.
    """
    if is_current(connection, path):
        return
    for number in range(version(connection), len(MIGRATIONS)):
        try:
            MIGRATIONS[number](connection)
        except (IOException, TransactionException):  # of the place, which knows what to do
            raise
        except Exception as error:
            raise WarehouseError(
                f"the warehouse {path} could not be brought from schema version {number} to "
                f"{number + 1}, and is as it was; go on with the code that wrote it, or move the "
                f"file away and run again: {error}"
            ) from error
        connection.execute(f"UPDATE {SCHEMA}.{TABLE} SET version = ?", [number + 1])
