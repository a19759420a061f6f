"""The warehouse's file: whether it can be read, and who has it open."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import duckdb

from im_assets.doctor.findings import Finding
from im_resources.tables import WarehouseError
from im_resources.warehouse_faults import explained
from im_resources.warehouse_turns import Wait, connect, written
from im_resources.warehouse_versions import is_current

AREA = "warehouse"
MIB = 2**20


def warehouse(path: Path) -> Iterator[Finding]:
    """Findings on the file; the file is opened to read only, and nobody is waited for."""
    if not path.exists():
        yield Finding("note", AREA, f"{path} is not there yet: nothing has been materialized")
        return
    try:
        with _turn(path) as holder:
            if holder is None:
                yield from _read(path)
            else:
                yield Finding(
                    "note", AREA, f"{path} is in use by {holder}", "it will end by itself"
                )
    except WarehouseError as error:
        yield Finding("error", AREA, str(error), "as it says")
    except duckdb.Error as error:
        what = f"{path} cannot be read: {str(error).splitlines()[0]}"
        yield Finding("error", AREA, what, "put back a snapshot or a copy of your own")
    if not os.access(path, os.W_OK):
        yield Finding("error", AREA, f"{path} cannot be written to", "change its permissions")


def _read(path: Path) -> Iterator[Finding]:
    with explained(path), ExitStack() as open_file:
        try:
            connection = open_file.enter_context(connect(Wait(path, 0.0), {}, read_only=True))
        except WarehouseError as error:  # others have it; of a fault DuckDB tells
            yield Finding("note", AREA, str(error), "a run goes on by itself, or waits")
            return
        tables = connection.execute("SELECT count(*) FROM duckdb_tables()").fetchone()
        current = is_current(connection, path)
    size = path.stat().st_size / MIB
    what = f"{path}: {tables[0] if tables else 0} tables, {size:.1f} MiB"
    yield Finding("ok", AREA, what if current else f"{what}; of an older schema, which is migrated")


@contextmanager
def _turn(path: Path) -> Iterator[str | None]:
    """Who has a turn at the file; if nobody has, it is ours for a moment, without waiting."""
    try:
        lock = open(f"{path}.lock", "rb")  # noqa: SIM115  closed below
    except OSError:  # none has been made, or it is not ours to read
        yield None
        return
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield written(lock.fileno())
            return
        try:
            yield None
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)
