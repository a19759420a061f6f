"""Claims that all machines of a deployment see: advisory locks of the catalog's Postgres.

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
    with closing(_connect(catalog)) as connection, connection.cursor() as cursor:
        number = lock_number(name)

        def taken() -> bool:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", (number,))
            return bool(cursor.fetchone()[0])

        def holder() -> str:
            cursor.execute(HOLDER, (number,))
            found = cursor.fetchone()
            return str(found[0]) if found else "another"

        held = taken()
        while not held and wait is not None:
            wait(holder)
            time.sleep(WAIT_SECONDS)
            held = taken()
        yield held  # closing the connection frees it


def _connect(catalog: str) -> Any:
    import psycopg2

    name = f"process {getpid()} on {socket.gethostname()}"
    connection = psycopg2.connect(catalog, application_name=name, **OPTIONS)
    connection.autocommit = True  # a transaction would stay open for as long as the lock is held
    return connection
