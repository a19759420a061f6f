"""The warehouse's file: whether it can be read, and who has it open."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import duckdb
import psutil

from im_assets.doctor.findings import Finding

AREA = "warehouse"
RESTORE = (
    "restore a backup; without one, move the file away and run again: adapters are found and not "
    "trained again, scores and losses are computed anew"
)
MIB = 2**20


def warehouse(path: Path) -> Iterator[Finding]:
    """Findings on the file; the file is opened to read only, and nobody is waited for."""
    if not path.exists():
        yield Finding("note", AREA, f"{path} is not there yet: nothing has been materialized")
        return
    held = "; ".join(holders(path)) or "a process that cannot be seen from here"
    with _turn(path) as free:
        if not free:
            yield _in_use(path, held)
            return
        try:
            with duckdb.connect(str(path), read_only=True) as connection:
                tables = connection.execute("SELECT count(*) FROM duckdb_tables()").fetchone()
        except duckdb.IOException as error:
            said = str(error).splitlines()[0]
            if "Could not set lock" in said:
                yield _in_use(path, held)
            elif not os.access(path, os.R_OK):
                yield Finding("error", AREA, f"{path} cannot be read", "change its permissions")
            else:
                yield Finding("error", AREA, f"{path} is damaged: {said}", RESTORE)
            return
        except duckdb.Error as error:
            said = str(error).splitlines()[0]
            yield Finding("error", AREA, f"{path} is damaged: {said}", RESTORE)
            return
    size = path.stat().st_size / MIB
    yield Finding("ok", AREA, f"{path}: {tables[0] if tables else 0} tables, {size:.1f} MiB")
    if not os.access(path, os.W_OK):
        yield Finding("error", AREA, f"{path} cannot be written to", "change its permissions")


def holders(path: Path) -> list[str]:
    """The processes that have the file open, as far as this user may see them."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.uids().real != os.getuid():
                continue
            if any(file.path == str(path) for file in process.open_files()):
                since = datetime.fromtimestamp(process.create_time()).strftime("%d %B %H:%M")
                command = " ".join(process.cmdline())[:80]
                found.append(f"process {process.pid}, running since {since} ({command})")
        except psutil.Error:  # it has ended, or belongs to someone else
            continue
    return found


def _in_use(path: Path, held: str) -> Finding:
    remedy = "a run goes on by itself; close a notebook's connection (or restart its kernel)"
    return Finding("note", AREA, f"{path} is in use by {held}", remedy)


@contextlib.contextmanager
def _turn(path: Path) -> Iterator[bool]:
    """Whether it is nobody's turn at the file; if so it is ours for a moment, without waiting."""
    try:
        lock = open(f"{path}.lock", "rb")  # noqa: SIM115  closed below
    except OSError:  # none has been made, or may be read
        yield True
        return
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)
