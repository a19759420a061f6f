"""What DuckLake, Postgres and an object store say, and what is to be done about it.

Some pass by themselves and are tried again; the others are told in one line that says what to do.
DuckDB gives its errors no codes, so they are told apart by its words; ``tests/resources`` makes
each fault for real and fails when these change.
"""

import re
from dataclasses import dataclass
from typing import Literal

import duckdb

from im_resources.lake_address import LakeAddress
from im_resources.remote.faults import without_secrets

Kind = Literal["conflict", "catalog away", "store away", "final"]

# Others, such as a wrong statement or a broken constraint, quote data, which may hold any words.
ABOUT_THE_LAKE = (
    duckdb.IOException, duckdb.TransactionException, duckdb.FatalException,
    duckdb.InternalException, duckdb.OutOfMemoryException,
)  # fmt: skip

CONFLICT = re.compile(
    r"conflict|Failed to commit DuckLake transaction|maximum retry count|duplicate key value|"
    r"could not serialize"
)
PASSWORD = re.compile(r"password authentication failed|no password supplied|no pg_hba.conf entry")
NO_DATABASE = re.compile(r'database "[^"]*" does not exist|role "[^"]*" does not exist')
RIGHTS = re.compile(r"permission denied for|must be owner of")
STORE_RIGHTS = re.compile(r"HTTP (?:code )?40[13]\b|AccessDenied|InvalidAccessKey|SignatureDoesNot")
NO_BUCKET = re.compile(r"NoSuchBucket")
FULL = re.compile(r"No space left|[Dd]isk quota|File too large|could not extend file")
DENIED = re.compile(r"Permission denied|Read-only file system|Operation not permitted")
NEWER = re.compile(r"DuckLake (?:Extension )?[Vv]ersion|AUTOMATIC_MIGRATION|catalog version")
MOVED = re.compile(r"does not match existing data path")
NO_SNAPSHOT = re.compile(r"No snapshot found at version")
CATALOG = re.compile(
    r"[Pp]ostgres|connection to server|server closed the connection|terminating connection|"
    r"database system is|too many clients|connection slots|SSL connection|ROLLBACK"
)


# The last is DuckLake's, of a question to its catalog that was not answered.
LOST = re.compile(
    r"server closed the connection|terminating connection due to|connection to server .* failed|"
    r"could not (?:receive data from|send data to) server|no connection to the server|"
    r"SSL connection has been closed|the database system is (?:starting|shutting|in recovery|not)|"
    r"fetch from an unsuccessful query result"
)
STORE = re.compile(r"HTTP (?:GET|PUT|POST|HEAD|DELETE|code|error)")


@dataclass(frozen=True)
class Fault:
    """What has gone wrong with a lake.

    ``conflict``: another's write came first; ``… away``: it did not answer, or what it had a moment
    before is gone; ``final``: trying again would not help.
    """

    kind: Kind
    remedy: str


def fault_of(error: Exception, address: LakeAddress) -> Fault | None:
    """What an error says about the lake; None when it says something about the statement."""
    import psycopg2

    text = str(error)
    of_catalog = isinstance(error, psycopg2.Error)
    if isinstance(error, duckdb.Error):
        if MOVED.search(text):
            return Fault("final", (
                f"the lake of {address.schema!r} in {address.catalog} has its files elsewhere than "
                f"in {address.folder}: set warehouse.data of the deployment to where they are"
            ))  # fmt: skip
        if NEWER.search(text) and not isinstance(error, duckdb.TransactionException):
            return Fault("final", (
                f"the lake {address} was written by another version of DuckLake than this one: "
                "bring the environment up to date with `make install`, everywhere alike"
            ))  # fmt: skip
        quotes_data = isinstance(error, (duckdb.ConstraintException, duckdb.ConversionException))
        lost = LOST.search(text) is not None and not quotes_data  # told as any kind of error
        if not lost and not isinstance(error, ABOUT_THE_LAKE):
            return None
        of_catalog = lost or CATALOG.search(text) is not None
        of_store = address.folder.split("://")[-1] in text or STORE.search(text) is not None
        if isinstance(error, duckdb.IOException) and not of_catalog and not of_store:
            return None if not FULL.search(text) else Fault("final", _full(address))
    elif not of_catalog:
        return None
    for words, remedy in _final(address):
        if words.search(text):
            return Fault("final", remedy)
    if CONFLICT.search(text):
        return Fault("conflict", (
            f"others wrote to the lake {address} again and again while this write was made; run "
            "again, with fewer writers at once"
        ))  # fmt: skip
    if isinstance(error, duckdb.OutOfMemoryException):
        return Fault("final", (
            f"not enough memory for a statement on {address}: the write was undone, and what was "
            "stored before is intact; close other programs and run again"
        ))  # fmt: skip
    if of_catalog:
        away = isinstance(error, (duckdb.Error, psycopg2.OperationalError, psycopg2.InterfaceError))
        return Fault("catalog away", (
            f"the catalog {address.catalog} does not answer: see that its Postgres runs and is "
            "reached from this machine, and run again; what was stored is intact, and is not "
            "computed again"
        )) if away else None  # fmt: skip
    if not isinstance(error, duckdb.IOException):  # of a statement that ends the transaction, …
        return None
    return Fault("store away", (
        f"{address.folder} cannot be read or written: see that the store runs and is reached from "
        "this machine, and run again; what was stored is intact, and is not computed again"
    ))  # fmt: skip


def _full(address: LakeAddress) -> str:
    return (
        f"no room for {address}: the write was undone, and what was stored before is intact; free "
        "space there and run again"
    )


def _final(address: LakeAddress) -> list[tuple[re.Pattern[str], str]]:
    catalog, folder = address.catalog, address.folder
    rights = f"give its user the right to make and to use the schema {address.schema!r}"
    keys = "see AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and the rights that these have there"
    return [
        (PASSWORD, f"the catalog {catalog} does not let this user in: set PGPASSWORD in the "
                   "environment of every process of the platform"),
        (NO_DATABASE, f"there is no such database or user: {catalog}; make it (createdb), or mend "
                      "warehouse.catalog of the deployment"),
        (RIGHTS, f"the catalog {catalog} refuses: {rights}"),
        (STORE_RIGHTS, f"the store refuses access to {folder}: {keys}"),
        (NO_BUCKET, f"there is no bucket for {folder}: make it, or mend warehouse.data of the "
                    "deployment"),
        (FULL, _full(address)),
        (DENIED, f"{folder} cannot be written to: give this user the right to write there"),
    ]  # fmt: skip


def said(error: Exception) -> str:
    """An error in one line, without a secret and without how it was attached."""
    text = " ".join(str(error).split()) or type(error).__name__
    text = re.sub(r"\?connect_timeout=[^\s\"']*", "", text)
    found = re.search(r"connection to server .*", text)
    return without_secrets(found[0] if found else text)[:300]
