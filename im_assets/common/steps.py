"""What ``python -m im_assets.run`` tells of its steps: each as it ends, and that one is still on.

Dagster hands every event of a run to the run's loggers, so a logger is what can tell of a step the
moment it ends (https://docs.dagster.io/guides/log-debug/logging/custom-logging). The UI's runs have
none of this: there the run's own page shows it.
"""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import dagster as dg

from im_assets.common.measuring import COMPUTED, FOUND
from im_assets.common.progress import QUIET, TERMINAL, Progress, clock
from im_assets.common.tracking import listening
from im_resources.texts import one_line

LOGGER = "steps"
ROWS = "dagster/row_count"
SAID = ("plan", "formula")  # metadata that says in a line what came out


class Steps:
    """The step that is on, and what it has made so far. Prints a line for each that ends."""

    def __init__(self) -> None:
        self.key: str | None = None
        self.start = 0.0
        self._made: list[dict[str, Any]] = []

    def started(self, key: str) -> None:
        """A step begins."""
        self.key, self.start, self._made = key, time.monotonic(), []
        TERMINAL.progress = None

    def made(self, metadata: dict[str, Any]) -> None:
        """The step has materialized an asset, or one partition of it."""
        self._made.append(metadata)

    def ended(self, key: str, seconds: float) -> None:
        """A step ends well."""
        print(f"  {key:<32} {seconds:8.1f} s  {outcome(self._made)}".rstrip(), flush=True)
        self.key, TERMINAL.at = None, time.monotonic()

    def failed(self, key: str) -> None:
        """A step fails; why is told at the end of the run."""
        seconds = time.monotonic() - self.start if self.key == key else 0.0
        print(f"  {key:<32} {seconds:8.1f} s  FAILED", flush=True)
        self.key = None

    def beat(self) -> None:
        """A line if none was written for ten seconds: that the step is on, and how far it was."""
        key, now = self.key, time.monotonic()
        if key is None or now - max(self.start, TERMINAL.at) < QUIET:
            return
        progress = TERMINAL.progress
        state = f" · {progress.state}" if progress is not None else ""
        TERMINAL.say(f"{key}: {clock(now - self.start)} so far{state}")


def outcome(made: list[dict[str, Any]]) -> str:
    """What came out of a step, from the metadata of its materializations."""
    if not made:
        return ""
    last, parts = made[-1], []
    if len(made) > 1:
        parts.append(f"{len(made)} partitions")
    elif isinstance(rows := last.get(ROWS), int):
        parts.append(f"{rows:,} rows")
    if COMPUTED in last:
        parts.append(f"{last[COMPUTED]:,} computed, {last[FOUND]:,} found")
    parts += [one_line(last[name], 160) for name in SAID if isinstance(last.get(name), str)]
    return " · ".join(parts)


class StepLines(logging.Handler):
    """Hands the events of a run to Steps."""

    def __init__(self, steps: Steps) -> None:
        super().__init__(logging.DEBUG)
        self.steps = steps

    def emit(self, record: logging.LogRecord) -> None:
        """An event of the run; other records pass by."""
        event = getattr(record, "dagster_meta", {}).get("dagster_event")
        if event is None or event.step_key is None:
            return
        kind, data = event.event_type, event.event_specific_data
        if kind is dg.DagsterEventType.STEP_START:
            self.steps.started(event.step_key)
        elif kind is dg.DagsterEventType.ASSET_MATERIALIZATION:
            found = data.materialization.metadata
            self.steps.made({name: value.value for name, value in found.items()})
        elif kind is dg.DagsterEventType.STEP_SUCCESS:
            self.steps.ended(event.step_key, data.duration_ms / 1000)
        elif kind is dg.DagsterEventType.STEP_FAILURE:
            self.steps.failed(event.step_key)


def telling() -> AbstractContextManager[None]:
    """Loops that are long tell on the terminal how far they are, until the end of the block."""
    return listening(lambda *what: Progress(None, *what).advance)


@contextmanager
def told(steps: Steps, every: float = 1.0) -> Iterator[dg.LoggerDefinition]:
    """The logger of runs whose steps are told until the end of the block.

    Args:
        every: seconds between two looks whether something is to be said.
    """
    done = threading.Event()

    def watch() -> None:
        while not done.wait(every):
            steps.beat()

    @dg.logger
    def logger(_: dg.InitLoggerContext) -> logging.Logger:
        found = logging.Logger(LOGGER, logging.DEBUG)
        found.addHandler(StepLines(steps))
        return found

    watcher = threading.Thread(target=watch, daemon=True, name="heartbeat")
    watcher.start()
    try:
        with telling():  # checks have no log of an asset
            yield logger
    finally:
        done.set()
        watcher.join()
