"""What DuckDB and the system say about a file, in one line that says what to do.

DuckDB gives its errors no codes, so they are told apart by its words;
``tests/resources/test_warehouse_faults.py`` makes each fault for real and fails when these change.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import duckdb

from im_resources.tables import WarehouseError

FULL = re.compile(r"No space left|File too large|[Dd]isk quota|max_temp_directory_size")
DENIED = re.compile(r"Permission denied|Read-only file system|Operation not permitted")
NEWER = re.compile(r"newer version of DuckDB|with version number|storage version")
LOG_DAMAGED = re.compile(r"WAL file")
DAMAGED = re.compile(
    r"Corrupt database file|not a valid DuckDB database|Could not read enough bytes|"
    r"Failed to load metadata|Serialization Error"
)
# Others, such as a broken constraint, quote the data, which may hold any words.
ABOUT_THE_FILE = (
    OSError, duckdb.IOException, duckdb.TransactionException, duckdb.FatalException,
    duckdb.SerializationException, duckdb.OutOfMemoryException,
)  # fmt: skip


def snapshot_path(warehouse: Path) -> Path:
    """Where the snapshot of a warehouse lies; the same name, so that queries fit both."""
    return warehouse.parent / "snapshot" / warehouse.name


def write_ahead_log(path: Path) -> Path:
    """Where DuckDB keeps what it has committed to a file and not yet folded into it."""
    return path.with_name(f"{path.name}.wal")


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Raises WarehouseError with the remedy in the place of an error about the file ``path``."""
    try:
        yield
    except ABOUT_THE_FILE as error:
        remedy = _remedy(error, path)
        if remedy is None:
            raise
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise WarehouseError(f"{remedy} ({said})") from error


def _remedy(error: Exception, path: Path) -> str | None:
    text = str(error)
    if FULL.search(text):
        return (
            f"no room on the disk for {path}: the write was undone, and what was stored before is "
            f"intact; free space in {path.parent} and run again"
        )
    if DENIED.search(text):
        return (
            f"{path} cannot be written: give this user the right to write to the file and to its "
            f"folder {path.parent}, or set IM_HOME to a folder that can be written"
        )
    if isinstance(error, duckdb.OutOfMemoryException):
        return (
            f"not enough memory for a statement on {path}: the write was undone, and what was "
            "stored before is intact; close other programs and run again"
        )
    if NEWER.search(text):
        return (
            f"{path} was written by another version of DuckDB than {duckdb.__version__}: bring the "
            "environment up to date with `make install`"
        )
    if LOG_DAMAGED.search(text):
        return (
            f"the write-ahead log {path}.wal is damaged: move it away to go back to the last write "
            f"that had been closed, and run again; {path} itself is not known to be damaged"
        )
    if DAMAGED.search(text):
        return f"the warehouse {path} is damaged: {_way_back(path)}"
    return None


def _way_back(path: Path) -> str:
    kept = (
        "adapters lie beside it and are kept, so that nothing is trained again, while scores, "
        "losses, answers and verdicts are computed anew"
    )
    copy = snapshot_path(path)
    if copy.is_file():
        at = datetime.fromtimestamp(copy.stat().st_mtime).strftime("%Y-%m-%d %H:%M")
        return (
            f"bring back the snapshot of {at} with `python -m im_resources.snapshot --restore`, "
            f"or move the file and its .wal away and run again ({kept})"
        )
    return (
        f"there is no snapshot of it (`make snapshot` makes one): put back a copy of your own, or "
        f"move the file and its .wal away and run again; {kept}"
    )
