"""Progress of long steps: on the terminal, in the run's log, and as a plot on the asset's page."""

import sys
import threading
import time
from typing import Any

import dagster as dg

LINE, POINT = 5.0, 30.0  # seconds between two lines, and between two points of the plot
# The longer a step lasts, the rarer it reports, or the history would grow with every hour: from an
# hour of work to two, and from a day to two, it is so many lines or points and a half more.
LINES, POINTS = 100, 20


class Progress:
    """Counts work done and reports it. Thread-safe.

    A line goes to the terminal and to the log that the run's page shows while it runs. An
    observation of the asset, with the same figures as numbers, is plotted over time on its page.
    """

    def __init__(
        self,
        context: dg.AssetExecutionContext,
        label: str,
        total: int,
        unit: str,
        every: float = LINE,
        observe_every: float = POINT,
    ) -> None:
        self.context, self.label, self.total, self.unit = context, label, total, unit
        self.every, self.observe_every = every, observe_every
        self.done = self.tokens = 0
        self.fraction: dict[str, float] = {}
        self.start = self.last = self.observed = time.monotonic()
        self.lock = threading.Lock()

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

    def _report(self, done: float, detail: str = "") -> None:
        now = time.monotonic()
        elapsed = now - self.start
        if not done or now - self.last < max(self.every, elapsed / LINES):
            return
        self.last = now
        left = elapsed * (self.total - done) / done
        rate = (
            f"{self.tokens / elapsed:,.0f} tokens/s" if self.tokens else f"{done / elapsed:.1f}/s"
        )
        parts = [
            f"{self.done}/{self.total} {self.unit}",
            detail,
            rate,
            f"{int(left) // 60}:{int(left) % 60:02} left",
        ]
        line = f"{self.label}: " + " · ".join(part for part in parts if part)
        self.context.log.info(line)
        print(f"  {line}", file=sys.stderr, flush=True)
        if now - self.observed >= max(self.observe_every, elapsed / POINTS):
            self.observed = now
            self._observe(done, elapsed, left)

    def _observe(self, done: float, elapsed: float, left: float) -> None:
        figures: dict[str, Any] = {
            "done, percent": round(100 * done / self.total, 2),
            "minutes left": round(left / 60, 2),
        }
        if self.tokens:
            figures["tokens/s now"] = round(self.tokens / elapsed, 1)
        else:
            figures[f"{self.unit}/s now"] = round(done / elapsed, 2)
        self.context.log_event(dg.AssetObservation(self.context.asset_key, metadata=figures))
