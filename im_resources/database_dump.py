"""Dagster's Postgres as a file, by Postgres' own pg_dump and pg_restore.

The database is the one in ``DAGSTER_POSTGRES_URL``, as Dagster's configuration names it. The
programs get it as libpq's environment variables, so that no password is ever an argument.
"""

import os
import subprocess
from pathlib import Path

import sqlalchemy
from sqlalchemy.engine import make_url

URL = "DAGSTER_POSTGRES_URL"


class BackupError(RuntimeError):
    """A backup that cannot be made, or restored; says why, and what would help."""


def dump(file: Path) -> None:
    """Write the database as of one moment to ``file``; others may go on writing."""
    _run("pg_dump", "--format=custom", "--no-owner", f"--file={file}")


def restore(file: Path) -> None:
    """Replace the database's content by the dump's, all or nothing."""
    options = ("--clean", "--if-exists", "--no-owner", "--single-transaction", "--exit-on-error")
    _run("pg_restore", *options, f"--dbname={_url().database}", str(file))


def users() -> list[str]:
    """Who else is connected to the database, as addresses."""
    engine = sqlalchemy.create_engine(_url())
    try:
        with engine.connect() as connection:
            rows = connection.exec_driver_sql(
                "SELECT DISTINCT coalesce(host(client_addr), 'this machine') FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid() "
                "AND backend_type = 'client backend' ORDER BY 1"
            )
            return [str(row[0]) for row in rows]
    except sqlalchemy.exc.OperationalError as error:
        raise BackupError(f"no connection to the database in {URL}: {error.orig}") from error
    finally:
        engine.dispose()


def _url() -> sqlalchemy.URL:
    if not os.environ.get(URL):
        raise BackupError(f"{URL} is not set; it names Dagster's database (deploy/compose)")
    return make_url(os.environ[URL])


def _run(program: str, *arguments: str) -> None:
    url = _url()
    named = {
        "PGHOST": url.host, "PGPORT": url.port, "PGUSER": url.username, "PGDATABASE": url.database,
        "PGPASSWORD": url.password,
    }  # fmt: skip
    variables = {name: str(value) for name, value in named.items() if value is not None}
    try:
        done = subprocess.run(
            [program, *arguments],
            env=os.environ | variables, check=False, capture_output=True, text=True,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise BackupError(f"{program} is not installed (Debian: postgresql-client)") from error
    if done.returncode != 0:
        raise BackupError(f"{program} failed: {done.stderr.strip()}")
