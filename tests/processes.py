"""Waiting for what a child process does, before it is killed."""

import subprocess
import time
from collections.abc import Callable


def wait_for(happened: Callable[[], bool], child: subprocess.Popen[bytes]) -> None:
    """Return as soon as ``happened()``; fails when the child ends first, or after three minutes."""
    deadline = time.monotonic() + 180
    while not happened():
        assert child.poll() is None, "the child process ended early"
        assert time.monotonic() < deadline, "the child process got nowhere within three minutes"
        time.sleep(0.005)
