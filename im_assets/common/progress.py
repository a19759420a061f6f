"""Progress of long steps: on the terminal, in the run's log, and as a plot on the asset's page."""

import sys
import threading
import time
from typing import Any

import dagster as dg

LINE, POINT = 5.0, 30.0  # seconds between two lines, and between two points of the plot
QUIET = 10.0  # the terminal is never silent for longer while something is worked on
# The longer a step lasts, the rarer it reports to the history, or that would grow with every hour:
# from an hour of work to two, and from a day to two, it is so many lines or points and a half more.
LINES, POINTS = 100, 20


class Terminal:
    """What this process told on the terminal last, and when."""

    def __init__(self) -> None:
        self.at = 0.0
        self.progress: Progress | None = None  # of what was begun last

    def say(self, line: str) -> None:
        """Write a line of progress."""
        self.at = time.monotonic()
        print(f"  {line}", file=sys.stderr, flush=True)


TERMINAL = Terminal()


class Progress:
    """Counts work done and reports it. Thread-safe.

    A line goes to the terminal, and to the log that the run's page shows while it runs. An
    observation of the asset, with the same figures as numbers, is plotted over time on its page.
    """

    def __init__(
        self,
        context: dg.AssetExecutionContext | None,
        label: str,
        total: int | None,
        unit: str,
        every: float = LINE,
        observe_every: float = POINT,
    ) -> None:
        """Begin.

        Args:
            context: of the asset; None: it is told on the terminal alone.
            total: how much there is to do; None: nobody knows before the end.
        """
        self.context, self.label, self.total, self.unit = context, label, total, unit
        self.every, self.observe_every = every, observe_every
        self.done = self.tokens = 0
        self.fraction: dict[str, float] = {}
        self.start = self.shown = self.last = self.observed = time.monotonic()
        self.lock = threading.Lock()
        TERMINAL.progress = self

    def step(self, key: str, step: int, steps: int, tokens: int) -> None:
        """One step of item ``key`` is done: ``step`` of ``steps``, having computed ``tokens``."""
        with self.lock:
            self.fraction[key] = step / steps
            self.tokens += tokens
            self.done = sum(share == 1 for share in self.fraction.values())
            self._report(sum(self.fraction.values()), f"step {step}/{steps} of {key}")

    def advance(self, done: int) -> None:
        """``done`` of ``total`` are finished."""
        with self.lock:
            self.done = done
            self._report(done)

    @property
    def rates(self) -> dict[str, float]:
        """What was done a second, as metadata: tokens if they were counted; nothing if nothing."""
        number, unit = (self.tokens, "tokens") if self.tokens else (self.done, self.unit)
        elapsed = max(time.monotonic() - self.start, 1e-9)
        return {f"{unit}/s": float(f"{number / elapsed:.3g}")} if number else {}

    @property
    def state(self) -> str:
        """What is done, without a rate."""
        return f"{self.label}: {self._count}"

    @property
    def _count(self) -> str:
        of = "" if self.total is None else f"/{self.total}"
        return f"{self.done}{of} {self.unit}"

    def _report(self, done: float, detail: str = "") -> None:
        now = time.monotonic()
        elapsed = now - self.start
        rare = max(self.every, elapsed / LINES)
        show, log = now - self.shown >= min(rare, QUIET), now - self.last >= rare
        if not done or not (show or log):
            return
        left = None if self.total is None else elapsed * (self.total - done) / done
        rate = (
            f"{self.tokens / elapsed:,.0f} tokens/s"
            if self.tokens
            else f"{done / elapsed:.1f} {self.unit}/s"
        )
        parts = [self._count, detail, rate, "" if left is None else f"{clock(left)} left"]
        line = f"{self.label}: " + " · ".join(part for part in parts if part)
        if show:
            self.shown = now
            TERMINAL.say(line)
        if log and self.context is not None:
            self.last = now
            self.context.log.info(line)
            if now - self.observed >= max(self.observe_every, elapsed / POINTS):
                self.observed = now
                self._observe(done, elapsed, left)

    def _observe(self, done: float, elapsed: float, left: float | None) -> None:
        assert self.context is not None
        figures: dict[str, Any] = {}
        if self.total is not None and left is not None:
            figures["done, percent"] = round(100 * done / self.total, 2)
            figures["minutes left"] = round(left / 60, 2)
        if self.tokens:
            figures["tokens/s now"] = round(self.tokens / elapsed, 1)
        else:
            figures[f"{self.unit}/s now"] = round(done / elapsed, 2)
        self.context.log_event(dg.AssetObservation(self.context.asset_key, metadata=figures))


def clock(seconds: float) -> str:
    """Minutes and seconds: 75 → 1:15."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
