"""Real processes that start in no time, and waiting for what they do before they are killed."""

import multiprocessing
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from im_resources.study import PROJECT_ROOT

ROOMS = sorted((PROJECT_ROOT / "im_assets").glob("*/assets*"))
# What a run imports on its way: 8 s of processor time. Not the definitions, which read the profile.
PRELOADED = (
    *(f"im_assets.{room.parent.name}.assets" for room in ROOMS),
    "bitsandbytes",
    "peft",
    "transformers.modeling_utils",
    "transformers.models.llama.modeling_llama",
    "transformers.models.auto.tokenization_auto",
    "im_resources.language_model.finetuned",
    "im_resources.language_model.lora",
    "statsmodels.api",
)


class Child(Protocol):
    """What `wait_for` needs of a process."""

    def poll(self) -> int | None:
        """The exit code, once there is one."""


class Forked:
    """``python -m module arguments``, forked from a process that has imported `PRELOADED`.

    One such process serves all tests of a worker. What it forks is a process as any other: it has
    its own pid, takes signals, and can be killed.
    """

    def __init__(
        self, module: str, *arguments: str, log: Path, variables: Mapping[str, str] | None = None
    ) -> None:
        """Start it. ``log``: where its output goes; ``variables``: what differs from ours."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(list(PRELOADED))
        environment = {**os.environ, **(variables or {})}
        self._process = context.Process(
            target=_become, args=(module, arguments, str(log), environment)
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        """The exit code, negative of a signal, once there is one."""
        return self._process.exitcode

    def wait(self, seconds: float | None = None) -> int:
        """The exit code of the process, which has to end within so many seconds."""
        self._process.join(seconds)
        code = self._process.exitcode
        assert code is not None, f"process {self.pid} still runs after {seconds} s"
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _become(
    module: str, arguments: tuple[str, ...], log: str, environment: Mapping[str, str]
) -> None:
    assert "im_assets.definitions" not in sys.modules  # they are of one profile
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(PROJECT_ROOT)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def wait_for(happened: Callable[[], bool], child: Child) -> None:
    """Return as soon as ``happened()``; fails when the child ends first, or after three minutes."""
    deadline = time.monotonic() + 180
    while not happened():
        assert child.poll() is None, "the child process ended early"
        assert time.monotonic() < deadline, "the child process got nowhere within three minutes"
        time.sleep(0.005)
