"""DuckDB without a file, kept to attach files to.

To open a file with ``duckdb.connect`` builds a whole DuckDB, with its functions and threads: 13 ms
of processor time, hundreds of times a run. To attach it to one that is there takes 1.5 ms, with the
same locks, checkpoints and words of errors.
"""

import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

KEPT = 2  # a process has one warehouse; a second engine is for a thread that reads it meanwhile


class Engine:
    """One DuckDB that has at most one file attached, used by one thread at a time."""

    def __init__(self, path: Path, config: Mapping[str, Any]) -> None:
        """An engine for this file; ``config``: DuckDB options (memory_limit, …)."""
        # Beside the file, as DuckDB does itself: what does not fit into memory has its room there.
        options = {"temp_directory": f"{path}.tmp", **config}
        self._path, self._config = path, dict(config)
        self._duckdb = duckdb.connect(config=options)
        self._name = '"' + path.stem.replace('"', '""') + '"'

    def suits(self, path: Path, config: Mapping[str, Any]) -> bool:
        """Whether it was made for this file and these options."""
        return self._path == path and self._config == dict(config)

    def attach(self, read_only: bool) -> None:
        """Open the file. Raises duckdb.Error when it cannot be, and can be tried again then."""
        how = " (READ_ONLY)" if read_only else ""
        file = str(self._path).replace("'", "''")
        self._duckdb.execute(f"ATTACH '{file}' AS {self._name}{how}")

    @contextmanager
    def connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection to the attached file; what is not committed at its end is undone."""
        with self._duckdb.cursor() as connection:
            # Of a long query DuckDB would draw a bar between the lines of what a command prints.
            connection.execute(f"SET enable_progress_bar = false; USE {self._name}")
            yield connection

    def detach(self) -> None:
        """Close the file, after folding its log into it."""
        self._duckdb.execute(f"DETACH {self._name}")

    def close(self) -> None:
        """Close the file too, if it is attached."""
        self._duckdb.close()


_idle: list[Engine] = []  # the one used last comes first
_inherited: list[Engine] = []
_lock = threading.Lock()


@contextmanager
def engine(path: Path, config: Mapping[str, Any]) -> Iterator[Engine]:
    """An engine for this file; kept for the next use, unless this one ends in an error."""
    mine = _taken(path, config) or Engine(path, config)
    try:
        yield mine
    except BaseException:
        mine.close()
        raise
    try:
        mine.detach()
    except duckdb.Error:  # e.g. a full disk: what is committed stays in the file's log
        mine.close()
        return
    with _lock:
        _idle.insert(0, mine)
        superfluous, _idle[KEPT:] = _idle[KEPT:], []
    for other in superfluous:
        other.close()


def _taken(path: Path, config: Mapping[str, Any]) -> Engine | None:
    with _lock:
        found = next((one for one in _idle if one.suits(path, config)), None)
        if found is not None:
            _idle.remove(found)
        return found


def _forked() -> None:
    """A child leaves alone what it inherits: the threads of an engine do not survive a fork."""
    _inherited.extend(_idle)
    _idle.clear()
    _lock.release()


os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_forked)
