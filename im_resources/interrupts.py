"""Ctrl-C, SIGTERM and a closed terminal: a command ends within seconds, and knows why it ended.

Dagster exchanges the handlers while a job runs, so that a step is interrupted only where it may be,
and ends the job; which signal came, and that one came at all, is then forgotten. Python also writes
the number of every signal into a file descriptor, whoever handles it: a thread reads it there.
"""

import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from types import TracebackType

PATIENCE = 15.0  # seconds in which an interrupted step has to end
ONE_PRESS = 0.5  # seconds in which several signals are one wish: make passes on what we got too


@contextmanager
def ended_in_time() -> Iterator[None]:
    """While entered, an interrupt ends this process after ``PATIENCE`` at the latest.

    Python drops an exception that a signal's handler raises while an object is being deleted, and
    the step goes on as if nobody had asked. Nothing is added to an `Interrupts` that is entered
    already, and outside of the main thread no signal can be watched.
    """
    watched = Interrupts.entered or threading.current_thread() is not threading.main_thread()
    with nullcontext() if watched else Interrupts():
        yield


class Interrupts:
    """While entered, SIGINT, SIGTERM and SIGHUP interrupt this process; a second one kills it."""

    entered = False

    def __init__(self) -> None:
        self.signal: int | None = None  # the first that came
        self._seen = threading.Event()
        self._read, self._write = socket.socketpair()

    def __enter__(self) -> "Interrupts":
        for number in (signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is signal.SIG_DFL:  # nohup's stays ignored
                signal.signal(number, lambda *_: signal.raise_signal(signal.SIGINT))
        self._write.setblocking(False)
        signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._watch, daemon=True).start()
        Interrupts.entered = True
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        Interrupts.entered = False
        signal.set_wakeup_fd(-1)
        self._write.close()

    @property
    def code(self) -> int:
        """The exit code of a process that ends because of it: 130 for SIGINT, 143 for SIGTERM."""
        return 128 + (self.signal or signal.SIGINT)

    def came(self) -> bool:
        """Whether one came, also one that the thread is only about to read."""
        if self.signal is None and select.select([self._read], [], [], 0)[0]:
            self._seen.wait(1)
        return self.signal is not None

    def _watch(self) -> None:
        while self.signal is None:
            # It stays to be read until it is known: `came` sees the one or the other.
            number = self._read.recv(1, socket.MSG_PEEK)
            if not number:  # left without one
                return
            if number[0] in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                self.signal = number[0]
                self._seen.set()
            self._read.recv(1)
        _say(f"{signal.Signals(self.signal).name}: ending the run; once more kills it")
        begun = time.monotonic()
        self._read.settimeout(PATIENCE)
        with suppress(TimeoutError):
            while time.monotonic() - begun < PATIENCE:
                number = self._read.recv(1)
                if not number:  # ended in time
                    return
                again = number[0] in (signal.SIGINT, signal.SIGTERM)
                if again and time.monotonic() - begun > ONE_PRESS:
                    break
        _say("killed; the next run clears up after this one, and goes on where it was")
        os._exit(self.code)


def _say(line: str) -> None:
    with suppress(OSError):  # the terminal may be gone
        print(line, file=sys.stderr, flush=True)
