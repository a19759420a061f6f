"""A warehouse in a lake: Parquet files in a folder or an object store, their catalog in Postgres.

DuckLake (https://ducklake.select) keeps every state of the tables as a snapshot, so that nobody who
reads waits for those who write, on whatever machine. It has no unique constraints, and does not see
that two transactions at once add the same rows, or replace the same ones
(https://github.com/duckdb/ducklake/issues/1094). So here

* the writers of one table take turns, by a lock in the catalog (``catalog_locks``); those of
  others go on side by side, and take turns only for the commit, a moment long;
* the locks and a look whether they are still held are one connection's: without it no commit;
* what fails for a reason that passes (another's commit, a catalog that restarts, a store that does
  not answer) is tried again as a whole, for as long as the wait of the warehouse;
* every commit carries a mark, so that one whose answer was lost is not repeated if it was made.
"""

import random
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, TypeVar

import duckdb

from im_resources.catalog_locks import CatalogLocks, catalog_lock, own_name
from im_resources.lake_address import NAME, LakeAddress
from im_resources.lake_engines import BROKEN, Engine, Mode, NoLakeError, engine
from im_resources.lake_faults import NO_SNAPSHOT, fault_of, said
from im_resources.lake_usage import count
from im_resources.tables import WarehouseError
from im_resources.warehouse_turns import LOG, PATIENCE, REMINDER, WAIT
from im_resources.warehouse_versions import is_current, migrate

T = TypeVar("T")
CONFLICTS = 25  # of one write, after which it is given up
VERSION_SECONDS = 60.0  # after which it is asked again whether the schema is of this code
BROKEN_ENGINES = 5  # of one read or write
# Locks beside those of the tables. No table has these names, for the blank in them.
EVERY_TABLE, COMMIT = "every table", "a commit"

# Ends what the catalog still has of a session, and its locks with it: one that was lost on the way
# could commit after it was given up here.
SIGN_OFF = """SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE application_name = %s AND pid <> pg_backend_pid()"""


class Lake:
    """Opens a lake for `Warehouse`."""

    # Rows that were deleted, flushed or merged leave files in another order than the rows' own.
    ordered = False

    def __init__(
        self, address: LakeAddress, config: Mapping[str, Any], wait: float, past: int | None = None
    ) -> None:
        """The lake at ``address``, made by the first write; ``past``: the snapshot to read."""
        self.address = address
        self.written: int | None = None
        self._config, self._wait, self._past = dict(config), wait, past
        self._mode: Mode = "read" if past is None else past

    def __str__(self) -> str:
        at = "" if self._past is None else f" as of snapshot {self._past}"
        return f"{self.address}{at}"

    def exists(self) -> bool:
        """Whether there is a lake."""
        for attempt in self._attempts("look for"):
            with attempt:
                try:
                    with engine(self.address, self._config, self._mode):
                        return True
                except NoLakeError:
                    return False
        raise AssertionError

    def snapshot(self) -> int | None:
        """The number of the lake's last snapshot; None where there is no lake."""
        if not self.exists():
            return None
        with self.reading(_snapshot) as found:
            return found

    def as_of(self, snapshot: int) -> "Lake":
        """Raises WarehouseError: there is no such snapshot (any more), or no lake."""
        now = Lake(self.address, self._config, self._wait)
        if not now.exists():
            raise WarehouseError(f"there is no lake at {self.address} yet, and so no snapshot")
        asked = f"FROM ducklake_snapshots('{NAME}') WHERE snapshot_id = ?"
        with now.reading(lambda open_: open_.execute(asked, [snapshot]).fetchall()) as found:
            if not found:
                raise WarehouseError(self._no_snapshot(snapshot))
        return Lake(self.address, self._config, self._wait, snapshot)

    @contextmanager
    def reading(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> Iterator[T]:
        """What ``work`` gives, of one snapshot; repeated when catalog or store are away."""
        with ExitStack() as opened:
            for attempt in self._attempts("read"):
                with attempt, ExitStack() as opening:
                    try:
                        mine = opening.enter_context(engine(self.address, self._config, self._mode))
                    except NoLakeError:  # without tables, as a file that is not there
                        nothing = duckdb.connect(config=self._config)
                        connection = opening.enter_context(nothing)
                    else:
                        connection = opening.enter_context(mine.connection())
                        self._bring_up_to_date(mine, connection)
                    found = work(connection)
                    opened.enter_context(opening.pop_all())
                    break
            yield found

    def writing(self, work: Callable[[duckdb.DuckDBPyConnection], T], table: str | None) -> T:
        """Do ``work`` in one transaction, which is tried again; only what it gives last counts.

        Args:
            table: the only one that it writes to; None: not known, so that all others wait.
        """
        if self._past is not None:
            raise WarehouseError(f"the warehouse {self} is the past, and cannot be written to")
        mark = uuid.uuid4().hex
        done: list[T] = []  # by a commit that may have been made
        for attempt in self._attempts("write to"):
            with attempt, self._made() as mine:
                attempt.session = mine.session
                with mine.claims() as claims:
                    for session in attempt.lost:
                        claims.ask(SIGN_OFF, (session,))
                    self._claim(claims, table, attempt.in_line)
                    if done and (found := self._marked(claims, mark)) is not None:
                        self.written = found
                        break
                    done.clear()
                    with mine.connection() as connection:
                        self._commit(mine, connection, claims, work, done, mark, attempt)
                break
        return done[0]

    def compact(self) -> None:
        """Leave nothing of what was deleted, in the data or in the catalog."""
        from im_resources.lake_upkeep import tidy

        tidy(self, keep_days=0)

    def alone(self, work: Callable[[duckdb.DuckDBPyConnection], T], table: str | None) -> T:
        """Do ``work``, which makes its own transactions and can be repeated, while nobody else
        writes to ``table`` (None: to any)."""
        for attempt in self._attempts("tidy"):
            with attempt, engine(self.address, self._config, "write") as mine:
                attempt.session = mine.session
                with mine.claims() as claims, mine.connection() as connection:
                    self._claim(claims, table, attempt.in_line)
                    return work(connection)
        raise AssertionError

    def _commit(
        self,
        mine: Engine,
        connection: duckdb.DuckDBPyConnection,
        claims: CatalogLocks,
        work: Callable[[duckdb.DuckDBPyConnection], T],
        done: list[T],
        mark: str,
        attempt: "_Attempt",
    ) -> None:
        connection.begin()
        try:
            if asked := time.monotonic() >= mine.current_until:
                migrate(connection, str(self.address))
            before = _snapshot(connection)
            result = work(connection)
            connection.execute(f"CALL {NAME}.set_commit_message(?, '', extra_info => ?)",
                               [own_name(), mark])  # fmt: skip
            # It also tells that this connection, and so every lock, is still ours.
            claims.take(self._lock(COMMIT), attempt.in_line)
        except BROKEN:
            raise
        except BaseException:
            with suppress(duckdb.Error):
                connection.rollback()
            raise
        done.append(result)
        connection.commit()
        if asked:
            mine.current_until = time.monotonic() + VERSION_SECONDS
        self.written = self._marked(claims, mark)
        if self.written is not None:
            count(writes=1, conflicts=int(self.written > before + 1))

    def _claim(
        self, claims: CatalogLocks, table: str | None, wait: Callable[[Callable[[], str]], object]
    ) -> None:
        """Everybody who writes shares one lock, which who may write to all has alone."""
        claims.take(self._lock(EVERY_TABLE), wait, shared=table is not None)
        if table is not None:
            claims.take(self._lock(table), wait)

    def _no_snapshot(self, snapshot: int | None) -> str:
        return (
            f"the lake {self.address} has no snapshot {snapshot}: it is not made yet, or was given "
            "up by the upkeep; `python -m im_resources.lake_upkeep --list` lists those that there "
            "are"
        )

    def _lock(self, name: str) -> str:
        return f"{self.address.schema}/{name}"

    def _marked(self, claims: CatalogLocks, mark: str) -> int | None:
        """The snapshot of the commit with this mark; None when there is none."""
        schema = self.address.schema.replace('"', '""')
        rows = claims.ask(
            f'SELECT max(snapshot_id) FROM "{schema}".ducklake_snapshot_changes '
            "WHERE commit_extra_info = %s",
            (mark,),
        )
        return None if rows[0][0] is None else int(rows[0][0])

    def _bring_up_to_date(self, mine: Engine, connection: duckdb.DuckDBPyConnection) -> None:
        """Migrate an older lake, or raise WarehouseError for a newer one; now and then, since the
        version is in a file of the store."""
        if time.monotonic() < mine.current_until:
            return
        if not is_current(connection, str(self.address)) and self._past is None:
            self.writing(lambda connection: None, None)
        mine.current_until = time.monotonic() + VERSION_SECONDS

    @contextmanager
    def _made(self) -> Iterator[Engine]:
        """An engine to write with; the lake is made where there is none."""
        with ExitStack() as opened:
            try:
                mine = opened.enter_context(engine(self.address, self._config, "write"))
            except NoLakeError:
                in_line = _Patience(self._wait, str(self)).in_line
                with catalog_lock(self.address.catalog, self._lock(COMMIT), in_line):
                    making = engine(self.address, self._config, "write", make=True)
                    mine = opened.enter_context(making)
            yield mine

    def _attempts(self, what: str) -> Iterator["_Attempt"]:
        patience = _Patience(self._wait, str(self))
        while True:
            attempt = _Attempt(self, what, patience)
            yield attempt
            attempt.pause()


class _Patience:
    """How long a read or a write waits, for whatever, and when it has something to say."""

    def __init__(self, seconds: float, where: str) -> None:
        self.seconds, self.where = seconds, where
        self.start = time.monotonic()
        self.conflicts = self.tries = self.broken = 0
        self.lost: list[str] = []  # sessions that may still be known to the catalog
        self._next_word = PATIENCE

    @property
    def waited(self) -> float:
        return time.monotonic() - self.start

    def in_line(self, holder: Callable[[], str]) -> None:
        """Heard while others write to the same table. Raises WarehouseError after the wait."""
        if self.waited >= self.seconds:
            raise WarehouseError(
                f"the warehouse {self.where} has been written to for {self.waited:.0f} s by "
                f"{holder()}; wait until it has ended, or end it, and run again: what is stored is "
                f"not computed again. {WAIT} sets how long to wait"
            )
        self.say(f"the warehouse {self.where} is written to by {holder()}; waiting")

    def say(self, words: str) -> None:
        """Log ``words`` now and then, once the wait is no longer a short one."""
        if self.waited >= self._next_word:
            LOG.warning(f"{words}, for {max(0.0, self.seconds - self.waited):.0f} s more at most")
            self._next_word = self.waited + REMINDER


class _Attempt:
    """One try, as a block: an error that may pass is kept, and any other raised, explained."""

    def __init__(self, lake: Lake, what: str, patience: _Patience) -> None:
        self.session: str | None = None  # of the engine that writes
        self.in_line, self.lost = patience.in_line, patience.lost
        self._lake, self._what, self._patience = lake, what, patience
        self._nap = 0.0

    def __enter__(self) -> "_Attempt":
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if not isinstance(error, Exception) or isinstance(error, WarehouseError):
            return False
        address, patience = self._lake.address, self._patience
        if NO_SNAPSHOT.search(str(error)):
            raise WarehouseError(self._lake._no_snapshot(self._lake._past)) from None
        fault = fault_of(error, address)
        if isinstance(error, BROKEN):
            patience.broken += 1
            if patience.broken <= BROKEN_ENGINES:
                # DuckLake does not expect that its catalog goes away between two questions.
                self._lose()
                return True
        if fault is None:
            return False
        patience.tries += 1
        if fault.kind == "conflict":
            patience.conflicts += 1
            count(conflicts=1)
        elif fault.kind == "catalog away":
            self._lose()
        over = patience.waited >= patience.seconds or patience.conflicts >= CONFLICTS
        if fault.kind == "final" or over:
            tried = f" (tried for {patience.waited:.0f} s)" if patience.tries > 1 else ""
            raise WarehouseError(f"{fault.remedy}{tried} ({said(error)})") from None
        count(retries=1)
        patience.say(f"cannot {self._what} the warehouse {address} ({said(error)}); trying again")
        least = 0.02 if fault.kind == "conflict" else 0.2
        self._nap = min(least * 2 ** min(patience.tries, 5), 5.0) * random.uniform(0.5, 1.0)
        return True

    def _lose(self) -> None:
        if self.session is not None:
            self._patience.lost.append(self.session)

    def pause(self) -> None:
        """Wait before the next try; writers at once wait differently long."""
        time.sleep(self._nap)


def _snapshot(connection: duckdb.DuckDBPyConnection) -> int:
    found = connection.execute(f"FROM ducklake_current_snapshot('{NAME}')").fetchone()
    assert found is not None
    return int(found[0])
