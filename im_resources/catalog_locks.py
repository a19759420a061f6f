"""CatalogLocks that all machines of a deployment see: advisory locks of the catalog's Postgres.

What a lock file is on one machine. A lock belongs to a connection, so that Postgres frees it when
its holder's process dies, or its machine is cut off
(https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS). The password is
$PGPASSWORD, which libpq reads itself.
"""

import hashlib
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from os import getpid
from typing import Any

WAIT_SECONDS = 0.2
IN_LINE_MILLISECONDS = 2_000  # after which who waits in line is heard, and goes to its end
# A holder whose machine has vanished is noticed within a minute.
OPTIONS = {
    "connect_timeout": 10,
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 3,
}
HOLDER = """SELECT application_name FROM pg_stat_activity JOIN pg_locks USING (pid)
WHERE locktype = 'advisory' AND granted AND objsubid = 1
AND ((classid::bigint << 32) | objid::bigint) = %s::bigint"""


def lock_number(name: str) -> int:
    """The 64-bit number by which Postgres knows the lock ``name``."""
    digest = hashlib.sha256(name.encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


@contextmanager
def catalog_lock(
    catalog: str, name: str, wait: Callable[[Callable[[], str]], object] | None
) -> Iterator[bool]:
    """Hold the lock ``name`` of the database at ``catalog``; True once it is held.

    Args:
        wait: called again and again while another holds it, with a function that tells who does, so
            that it can end the wait by raising; None: do not wait, False at once.

    Raises psycopg2.Error when the database cannot be reached, or is gone meanwhile.
    """
    # Closing the connection frees it.
    with closing(connect(catalog, own_name())) as connection, connection.cursor() as cursor:
        number = lock_number(name)

        def taken() -> bool:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", (number,))
            return bool(cursor.fetchone()[0])

        held = taken()
        while not held and wait is not None:
            wait(lambda: _holder(cursor, number))
            time.sleep(WAIT_SECONDS)
            held = taken()
        yield held


class CatalogLocks:
    """Locks of one connection that is kept, for writers that come again and again.

    The same locks as those of ``catalog_lock``. Who waits here stands in line, so that one frees a
    lock and the next has it, without a pause.
    """

    def __init__(self, catalog: str, name: str) -> None:
        """Connect; ``name``: shown to those who wait. Raises psycopg2.Error."""
        self._connection = connect(catalog, name)
        self._cursor = self._connection.cursor()
        self._cursor.execute(f"SET lock_timeout = {IN_LINE_MILLISECONDS}")

    def take(
        self, name: str, wait: Callable[[Callable[[], str]], object], shared: bool = False
    ) -> None:
        """Hold the lock, beside those that are held; ``shared``: with others who share it.

        Every connection takes locks in one order, so that none wait for each other.

        Args:
            wait: as of ``catalog_lock``.

        Raises psycopg2.Error: the connection is lost, and with it all that was held.
        """
        import psycopg2.errors

        number = lock_number(name)
        kind = "_shared" if shared else ""
        while True:
            try:
                self._cursor.execute(f"SELECT pg_advisory_lock{kind}(%s)", (number,))
                return
            except psycopg2.errors.LockNotAvailable:
                wait(lambda: _holder(self._cursor, number))

    def free(self) -> None:
        """Free all locks. Raises psycopg2.Error."""
        self._cursor.execute("SELECT pg_advisory_unlock_all()")

    def ask(self, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """The rows of a statement on the connection that holds the locks. Raises psycopg2.Error."""
        self._cursor.execute(statement, values)
        return list(self._cursor.fetchall())

    def close(self) -> None:
        """Give up the connection, and with it all locks."""
        self._connection.close()


def own_name() -> str:
    """This process, for those who wait for it."""
    return f"process {getpid()} on {socket.gethostname()}"


def connect(catalog: str, name: str) -> Any:
    """A psycopg2 connection with a ``name``, each statement its own transaction.

    Raises psycopg2.Error when the database cannot be reached.
    """
    import psycopg2

    connection = psycopg2.connect(catalog, application_name=name, **OPTIONS)
    connection.autocommit = True  # a transaction would stay open for as long as the lock is held
    return connection


def _holder(cursor: Any, number: int) -> str:
    cursor.execute(HOLDER, (number,))
    found = cursor.fetchone()
    return str(found[0]) if found else "another"
