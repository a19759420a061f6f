"""Several Dagster services as one: they start one after the other, and end together.

Each is a process in a session of its own, with the code servers and runs that it starts. Its
standard input is a pipe that nothing is written to: when that closes, because the services are
ended or because the process that started them was killed, the session gets what Ctrl-C would send.
So nothing stays behind, whatever ends the first process; on every Unix, which Linux' "signal on the
parent's death" would not be.

``python -m im_resources.services MODULE ARGUMENT…`` is one such process.
"""

import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType

from im_resources.study import PROJECT_ROOT

GRACE = 30  # seconds from the interrupt to SIGKILL


class ServiceError(RuntimeError):
    """A service ended that was not asked to; says which."""


class Services:
    """The services that were started; ends them all when left."""

    def __init__(self) -> None:
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *command: str) -> None:
        """Start a Python module with arguments, as ``python -m`` would."""
        self._started[name] = subprocess.Popen(
            [sys.executable, "-m", "im_resources.services", *command],
            cwd=PROJECT_ROOT,
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def wait(self, until: Callable[[], bool] = lambda: False) -> None:
        """Return when ``until()`` holds. Raises ServiceError when a service ends before."""
        while not until():
            for name, process in self._started.items():
                if process.poll() is not None:
                    raise ServiceError(f"the {name} ended, with status {process.returncode}")
            time.sleep(0.1)

    def __enter__(self) -> "Services":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        for process in self._started.values():
            assert process.stdin is not None
            process.stdin.close()
        deadline = time.monotonic() + GRACE
        for process in self._started.values():
            while _alive(process) and time.monotonic() < deadline:
                time.sleep(0.1)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _alive(process: subprocess.Popen[bytes]) -> bool:
    """Whether anything of the service's session is left."""
    process.poll()  # takes its status: a process that nobody asked for it stays in its group
    with suppress(ProcessLookupError):
        os.killpg(process.pid, 0)
        return True
    return False


def _end_with_input() -> None:
    while os.read(0, 1024):
        pass
    os.killpg(0, signal.SIGINT)
    time.sleep(GRACE)
    os.killpg(0, signal.SIGKILL)


def main() -> None:
    """Run the module that the arguments name, until standard input ends."""
    # A shell has it ignored in what it starts in the background, and so would all that is started.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_end_with_input, daemon=True).start()
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
