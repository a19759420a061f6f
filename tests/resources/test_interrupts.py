"""Which signal ends a command is known, whoever handles it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from im_resources.interrupts import Interrupts
from im_resources.study import PROJECT_ROOT

# Where a test runs in the background of a shell, it was started with interrupts ignored.
STUBBORN = """
import signal
import time
signal.signal(signal.SIGINT, signal.default_int_handler)
from im_resources.interrupts import Interrupts
with Interrupts():
    while True:
        try:
            print("up", flush=True)
            time.sleep(600)
        except KeyboardInterrupt:
            print("held on", flush=True)
"""


@pytest.fixture(autouse=True)
def handlers() -> object:
    kept = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    for number in (signal.SIGTERM, signal.SIGHUP):  # as in a command that has just started
        signal.signal(number, signal.SIG_DFL)
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
def test_a_signal_that_another_handler_swallowed_is_known(sent: int, code: int) -> None:
    with Interrupts() as interrupts:
        assert not interrupts.came()
        signal.signal(signal.SIGINT, lambda *_: None)  # as Dagster does while a job runs
        os.kill(os.getpid(), sent)
        assert interrupts.came()
        assert interrupts.code == code


def test_a_second_interrupt_kills(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", STUBBORN], cwd=PROJECT_ROOT, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"up\n"
    child.send_signal(signal.SIGINT)
    assert child.stdout.readline() == b"held on\n"
    time.sleep(1)  # sooner, it would be the same key press
    child.send_signal(signal.SIGINT)
    assert child.wait(60) == 130


# What deletes an object at the wrong moment: Python tells of the exception and drops it.
DEAF = """
import signal
import time
signal.signal(signal.SIGINT, signal.default_int_handler)
from im_resources import interrupts
interrupts.PATIENCE = 1.0
class Deleted:
    def __del__(self):
        print("up", flush=True)
        time.sleep(2)
with interrupts.ended_in_time():
    while True:
        Deleted()
"""


def test_an_interrupt_that_was_dropped_ends_the_process_all_the_same() -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", DEAF], cwd=PROJECT_ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    assert child.stdout is not None
    assert child.stdout.readline() == b"up\n"
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130
    assert b"KeyboardInterrupt" in said  # it was raised, and dropped
