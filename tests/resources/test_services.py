"""Whatever ends ``make dev`` ends all that it started."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from im_resources.services import ServiceError, Services
from im_resources.study import PROJECT_ROOT
from tests.processes import wait_for

# A service with a child of its own, as the code server has: it writes both ids, and goes on.
SERVICE = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
with open(sys.argv[1] + ".part", "w") as file:
    file.write(f"{os.getpid()} {child.pid}")
os.replace(sys.argv[1] + ".part", sys.argv[1])
time.sleep(600)
"""
PARENT = """
import sys
from im_resources.services import Services
with Services() as services:
    services.start("one", "a_service", sys.argv[1])
    services.wait()
"""


def processes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[subprocess.Popen[bytes], Path]:
    (folder / "a_service.py").write_text(SERVICE, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{PROJECT_ROOT}")
    ids = folder / "ids"
    return subprocess.Popen([sys.executable, "-c", PARENT, str(ids)], cwd=PROJECT_ROOT), ids


def running(pid: int) -> bool:
    """Whether the process is there; one that is over and that nobody asked for is not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_nothing_stays_behind(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent, ids = processes(tmp_path, monkeypatch)
    wait_for(ids.exists, parent)
    started = [int(pid) for pid in ids.read_text(encoding="utf-8").split()]
    assert all(map(running, started))
    os.kill(parent.pid, number)
    parent.wait(60)
    deadline = time.monotonic() + 60
    while any(map(running, started)):
        assert time.monotonic() < deadline, "a process went on"
        time.sleep(0.05)


def test_a_service_that_ends_is_told() -> None:
    with Services() as services:
        services.start("clock", "timeit", "--no-such-option")
        with pytest.raises(ServiceError, match="the clock ended, with status"):
            services.wait()
