"""Who may open the warehouse's file, how long the others wait, and whom they wait for.

DuckDB locks its file: for one process that writes, or for several that only read
(https://duckdb.org/docs/stable/connect/concurrency). It does not wait for that lock but fails at
once. Here everybody waits, for a bounded time, and is told for whom:

* ``turn`` is an advisory lock on ``<file>.lock``, held while the file is being opened, and by a
  writer until it has closed it. It is what our own processes wait for, one after the other, so that
  readers who come one after the other cannot keep a writer out. Every turn opens the lock file
  anew, so it also keeps the threads of one process apart; the kernel frees it when its holder dies.
* ``connect`` waits for DuckDB's own lock, which a reader of ours holds for a statement, and a
  notebook for as long as it likes.
"""

import errno
import fcntl
import os
import re
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import psutil

from im_resources.duckdb_engines import engine
from im_resources.tables import WarehouseError
from im_resources.texts import printable

WAIT = "IM_WAREHOUSE_WAIT"
DEFAULT_WAIT = 600.0
# Nothing is said about a shorter wait: on a busy machine, several writers make each other wait for
# some seconds.
PATIENCE = 10.0
REMINDER = 30.0
# DuckDB has no codes for these: another process has the file open; this process has, differently.
ELSEWHERE = re.compile(r"Could not set lock on file(?:.*\(PID (\d+)\))?", re.DOTALL)
HERE = re.compile(r"different configuration than existing|Unique file handle conflict")
# Goes into the log of a run from wherever it is called, and to the terminal.
LOG = dg.get_dagster_logger("warehouse")


def bound() -> float:
    """Seconds to wait at most: ``$IM_WAREHOUSE_WAIT``, default 600. Raises WarehouseError."""
    text = os.environ.get(WAIT) or str(DEFAULT_WAIT)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise WarehouseError(f"{WAIT} is {text!r}; it must be a number of seconds, such as 600")
    return seconds


class Wait:
    """One wait for the file ``path``, for both locks together, at most ``seconds`` long."""

    def __init__(self, path: Path, seconds: float) -> None:
        self.path, self.seconds = path, seconds
        self.start = time.monotonic()
        self.next_word = PATIENCE

    def pause(self, holder: Callable[[], str], most: float) -> None:
        """Sleep for up to ``most`` seconds, after having said from time to time who is in the way.

        Raises:
            WarehouseError: the wait has been long enough; says who holds the file and what to do.
        """
        waited = time.monotonic() - self.start
        if waited >= self.seconds:
            raise WarehouseError(
                f"the warehouse {self.path} has been in use for {waited:.0f} s by {holder()}; "
                "close its connection there (in a notebook: restart the kernel) and run again: "
                "scores, adapters and losses that are stored are not computed again. "
                f"{WAIT} sets how long to wait; for reading there is the copy of `make snapshot`"
            )
        if waited >= self.next_word:
            LOG.warning(
                f"the warehouse {self.path} is in use by {holder()}; waiting until it is closed "
                f"there, for {self.seconds - waited:.0f} s more at most"
            )
            self.next_word = waited + REMINDER
        time.sleep(min(most, max(0.002, waited / 20), self.seconds - waited + 0.001))

    def over(self) -> None:
        """Say that it goes on, if anything was said before."""
        if self.next_word > PATIENCE:
            LOG.warning(
                f"the warehouse is free again after {time.monotonic() - self.start:.0f} s; going on"
            )
            self.next_word = PATIENCE


@contextmanager
def turn(wait: Wait, reading: bool = False) -> Iterator[None]:
    """Hold ``<file>.lock``, whose text names the holder.

    A reader without the right to write takes a lock file that is there, and else does without.

    Raises:
        WarehouseError: others have had it for the whole wait.
        OSError: the lock file cannot be made.
    """
    try:
        descriptor = os.open(f"{wait.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if not reading or error.errno not in (errno.EACCES, errno.EROFS):
            raise
        if not os.access(f"{wait.path}.lock", os.R_OK):
            yield
            return
        descriptor = os.open(f"{wait.path}.lock", os.O_RDONLY | os.O_CLOEXEC)
    with open(descriptor, "rb") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                wait.pause(lambda: written(descriptor), most=0.01)
        try:
            _write(descriptor, f"{_process(os.getpid())}; it has the file since {_clock()}")
            yield
        finally:
            # Closing would not do if a thread of ours has forked a process meanwhile.
            fcntl.flock(lock, fcntl.LOCK_UN)


@contextmanager
def connect(
    wait: Wait, config: Mapping[str, Any], read_only: bool = False
) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open the file within a turn, once nobody else has it open in a way that excludes this.

    Raises:
        WarehouseError: somebody still has it after the wait.
        duckdb.Error: whatever else keeps it from being opened.
    """
    with engine(wait.path, config) as opening:
        while True:
            try:
                opening.attach(read_only)
            except duckdb.Error as error:
                holder = _in_the_way(error)
                if holder is None:
                    raise
            else:
                wait.over()
                break
            wait.pause(holder, most=0.5)
        with opening.connection() as connection:
            yield connection


def _in_the_way(error: duckdb.Error) -> Callable[[], str] | None:
    """Who keeps the file from being opened; None if the error says something else."""
    if HERE.search(str(error)):
        return lambda: "another connection of this process"
    if found := ELSEWHERE.search(str(error)):
        pid = found[1]
        return lambda: _process(int(pid)) if pid else "another process"
    return None


def _process(pid: int) -> str:
    """The process with its command and its start, as far as the system tells."""
    try:
        process = psutil.Process(pid)
        command = printable(shlex.join(process.cmdline()))
        started = _clock(process.create_time())
    except psutil.Error:  # it has ended, is not ours, or lives in another container
        return f"process {pid}"
    command = command if len(command) <= 160 else command[:159] + "…"
    return f"process {pid} ({command}), running since {started}"


def _clock(seconds: float | None = None) -> str:
    at = datetime.now() if seconds is None else datetime.fromtimestamp(seconds)
    return at.strftime("%Y-%m-%d %H:%M:%S")


def _write(descriptor: int, text: str) -> None:
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, text.encode(), 0)
    except OSError:  # a full disk, or not ours to write: a name is a comfort, the lock holds
        return


def written(descriptor: int) -> str:
    """Who has written its name into an open lock file."""
    text = os.pread(descriptor, 1000, 0).decode("utf-8", "replace")
    return printable(text) or "another process of the platform"
