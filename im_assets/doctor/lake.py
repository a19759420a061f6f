"""A lake: whether its catalog answers, whether its store can be used, whether the clocks agree."""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import duckdb

from im_assets.doctor.findings import Finding
from im_resources.catalog_locks import connect, own_name
from im_resources.lake import Lake
from im_resources.lake_address import LakeAddress
from im_resources.lake_engines import opened
from im_resources.lake_faults import fault_of, said
from im_resources.tables import WarehouseError, text_literal

AREA = "warehouse"
POSTGRES = 14  # the first whose pg_terminate_backend waits
CLOCKS_APART = 5.0  # seconds
CATALOG_SQL = """SELECT current_setting('server_version'),
    current_setting('server_version_num')::int, current_setting('max_connections')::int,
    extract(epoch FROM clock_timestamp())::float8,
    to_regnamespace(quote_ident(%(schema)s)) IS NOT NULL,
    CASE WHEN to_regnamespace(quote_ident(%(schema)s)) IS NULL
        THEN has_database_privilege(current_database(), 'CREATE')
        ELSE has_schema_privilege(%(schema)s, 'CREATE') END"""


def lake(address: LakeAddress) -> Iterator[Finding]:
    """Findings on the study's lake; nothing stays of what is tried, and nobody is waited for."""
    try:
        catalog = list(_catalog(address))
    except ImportError as error:
        what = f"a lake needs the package {error.name}"
        yield Finding("error", AREA, what, "pip install -e '.[cluster]', on every node")
        return
    yield from catalog
    reached = all(finding.level != "error" for finding in catalog)
    found = [_tables(address)] if reached else []
    store = _store(address)
    yield from found
    if store not in found:  # what keeps both from being opened is told once
        yield store


def _catalog(address: LakeAddress) -> Iterator[Finding]:
    import psycopg2

    try:
        with closing(connect(address.catalog, own_name())) as connection:
            cursor = connection.cursor()
            before = time.time()
            cursor.execute(CATALOG_SQL, {"schema": address.schema})
            version, number, connections, clock, made, may = cursor.fetchone()
            after = time.time()
    except psycopg2.Error as error:
        yield _fault(error, address, f"{address.catalog} cannot be used")
        return
    what = f"{address.catalog}: Postgres {version}, {connections} connections at most"
    if number // 10_000 < POSTGRES:
        yield Finding("error", AREA, what, f"use Postgres {POSTGRES} or later")
    elif not may:
        right = f"SCHEMA {address.schema!r}" if made else "DATABASE"
        what = f"{address.catalog}: its user may make no tables in the {right.lower()}"
        yield Finding("error", AREA, what, "grant it CREATE there (Postgres: GRANT CREATE ON …)")
    else:
        yield Finding("ok", AREA, what)
    # Between the two moments there was the answer.
    apart = max(clock - after, before - clock, 0.0)
    if apart > CLOCKS_APART:
        what = f"the clocks of {address.catalog} and of this machine are {apart:.0f} s apart"
        remedy = "set both by NTP: the age of snapshots, and signatures for the store, go by them"
        yield Finding("warning", AREA, what, remedy)


def _tables(address: LakeAddress) -> Finding:
    place = Lake(address, {}, wait=0.0)
    try:
        if not place.exists():
            return Finding("note", AREA, f"{address} is not there yet: nothing has been written")
        with place.reading(_looked_at) as (count, snapshot, version):
            what = f"{address}: {count} tables, snapshot {snapshot}, DuckLake {version}"
            return Finding("ok", AREA, what)
    except WarehouseError as error:
        return Finding("error", AREA, str(error), "as it says")


def _looked_at(connection: duckdb.DuckDBPyConnection) -> tuple[Any, ...]:
    found = connection.execute(
        "SELECT (SELECT count(*) FROM duckdb_tables() WHERE database_name = 'warehouse'), "
        "(SELECT COLUMNS(*) FROM ducklake_current_snapshot('warehouse')), "
        "(SELECT value FROM ducklake_options('warehouse') WHERE option_name = 'version')"
    ).fetchone()
    assert found is not None
    return found


def _store(address: LakeAddress) -> Finding:
    """Whether a file can be written, read and deleted there."""
    place = f"{address.folder}.doctor-{socket.gethostname()}-{os.getpid()}.parquet"
    try:
        with _without_waiting(address) as connection, _deleted(place):
            if "://" not in place:
                os.makedirs(address.folder, exist_ok=True)
            connection.execute(f"COPY (SELECT 1 AS a) TO {text_literal(place)} (FORMAT parquet)")
            connection.execute(f"FROM read_parquet({text_literal(place)})").fetchall()
    except (duckdb.Error, OSError, WarehouseError) as error:
        if isinstance(error, WarehouseError):
            return Finding("error", AREA, str(error), "as it says")
        return _fault(error, address, f"{address.folder} cannot be written, read and deleted")
    return Finding("ok", AREA, f"{address.folder}: can be written, read and deleted")


@contextmanager
def _without_waiting(address: LakeAddress) -> Iterator[duckdb.DuckDBPyConnection]:
    with closing(opened({}, address.data)) as connection:
        if "://" in address.data:
            connection.execute("SET http_retries = 1; SET http_timeout = 10")
        yield connection


@contextmanager
def _deleted(place: str) -> Iterator[None]:
    """Delete the file at the end; DuckDB has no statement for it."""
    try:
        yield
    finally:
        import fsspec

        files, path = fsspec.url_to_fs(place)
        if files.exists(path):
            files.rm_file(path)


def _fault(error: Exception, address: LakeAddress, otherwise: str) -> Finding:
    fault = fault_of(error, address)
    if fault is None:
        what = f"{otherwise}: {said(error)}"
        return Finding("error", AREA, what, "give this user the right to it")
    what, _, remedy = fault.remedy.partition(": ")
    return Finding("error", AREA, f"{what} ({said(error)})", remedy)
