"""A warehouse in one DuckDB file, safe for several processes, threads and crashes.

* Connections are short, one statement or one write, and wait for those of others
  (``warehouse_turns``). Reading is read-only, so several processes read side by side, and never
  makes a file.
* A new file appears whole, by a rename: DuckDB itself leaves one that it cannot open when it is
  killed, or the disk is full, while it makes it.
* A damaged file, a full disk and a folder that cannot be written to are told in one line with what
  to do (``warehouse_faults``).
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import duckdb

from im_resources.tables import SCHEMA, WarehouseError, quoted, text_literal
from im_resources.warehouse_faults import explained, write_ahead_log
from im_resources.warehouse_turns import Wait, connect, turn
from im_resources.warehouse_versions import is_current, migrate

T = TypeVar("T")


class WarehouseFile:
    """Opens a DuckDB file for `Warehouse`."""

    # The rows of a table come in the order in which they were written.
    ordered = True
    written: int | None = None

    def __init__(self, path: Path, config: Mapping[str, Any], wait: float) -> None:
        """The file ``path``, made by the first write; ``wait``: seconds for others, at most."""
        self.path = path.resolve()
        self._config, self._wait = dict(config), wait
        if self.path.stem == SCHEMA:
            raise WarehouseError(f"{self.path}: DuckDB confuses this name with the schema's")

    def __str__(self) -> str:
        return str(self.path)

    def exists(self) -> bool:
        """Whether there is a file, so that something was written."""
        return self.path.is_file()

    @contextmanager
    def reading(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> Iterator[T]:
        """What ``work`` gives; the file stays open to read, and closed to writers, meanwhile."""
        with self._reading() as connection:
            yield work(connection)

    def writing(self, work: Callable[[duckdb.DuckDBPyConnection], T], table: str | None) -> T:
        """Do ``work`` in one transaction; the file has one writer, whatever the ``table``."""
        with self._transaction() as connection:
            return work(connection)

    def snapshot(self) -> None:
        """None: a file has no history."""

    def as_of(self, snapshot: int) -> NoReturn:
        """Raises WarehouseError: a file has no history."""
        raise WarehouseError(
            f"the warehouse {self.path} is a file, which has no snapshot {snapshot}: it holds what "
            "was written last. Tables as of a run are kept in a lake (docs/warehouse.md); of a "
            "file there is the copy of `make snapshot`"
        )

    def compact(self) -> None:
        """Write the file anew: what was deleted leaves its bytes in it otherwise.

        The old file stays until the new one is whole.
        """
        wait = Wait(self.path, self._wait)
        new = self.path.with_name(f".{self.path.name}.new")
        with explained(self.path), turn(wait):
            for leftover in (new, write_ahead_log(new)):
                leftover.unlink(missing_ok=True)
            with connect(wait, self._config) as connection:
                connection.execute("CHECKPOINT")
                connection.execute(f"ATTACH {text_literal(str(new))} AS compacted")
                connection.execute(f"COPY FROM DATABASE {quoted(self.path.stem)} TO compacted")
                connection.execute("DETACH compacted")
            new.rename(self.path)

    @contextmanager
    def _reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A read-only connection; nobody writes while it is open. Of no file: without tables."""
        if not self.path.is_file():
            with duckdb.connect(config=self._config) as connection:
                yield connection
            return
        with explained(self.path):
            with self._read_only() as connection:
                current = is_current(connection, self.path)
                if current:
                    yield connection
            if not current:
                with self._transaction():  # which migrates
                    pass
                with self._read_only() as connection:
                    yield connection

    @contextmanager
    def _read_only(self) -> Iterator[duckdb.DuckDBPyConnection]:
        wait = Wait(self.path, self._wait)
        with ExitStack() as open_file:
            with turn(wait, reading=True):
                opening = connect(wait, self._config, read_only=True)
                connection = open_file.enter_context(opening)
            yield connection  # DuckDB's own lock keeps writers out, and nobody else

    @contextmanager
    def _transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection once it is our turn; commits at the end, closing after an error undoes."""
        wait = Wait(self.path, self._wait)
        with explained(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with turn(wait):
                if not self.path.exists():
                    self._make()
                with connect(wait, self._config) as connection:
                    connection.begin()
                    migrate(connection, self.path)
                    yield connection
                    connection.commit()

    def _make(self) -> None:
        """Make the file, whole or not at all."""
        new = self.path.with_name(f".{self.path.name}.new")
        for leftover in (new, write_ahead_log(new), write_ahead_log(self.path)):
            leftover.unlink(missing_ok=True)
        with duckdb.connect(str(new), config=self._config) as connection:
            connection.begin()
            migrate(connection, self.path)
            connection.commit()
            connection.execute("CHECKPOINT")
        new.rename(self.path)
