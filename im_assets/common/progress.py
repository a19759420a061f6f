"""Progress of long steps: a line on the terminal and in the run's log, with rate and time left."""

import sys
import threading
import time

import dagster as dg


class Progress:
    """Counts work done and reports it at most every ``every`` seconds. Thread-safe."""

    def __init__(
        self, context: dg.AssetExecutionContext, label: str, total: int, unit: str, every: float = 5
    ) -> None:
        self.context, self.label, self.total, self.unit, self.every = (
            context,
            label,
            total,
            unit,
            every,
        )
        self.done = self.tokens = 0
        self.fraction: dict[str, float] = {}
        self.start = self.last = time.monotonic()
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
        if now - self.last < self.every or not done:
            return
        self.last = now
        elapsed = now - self.start
        left = int(elapsed * (self.total - done) / done)
        rate = (
            f"{self.tokens / elapsed:,.0f} tokens/s" if self.tokens else f"{done / elapsed:.1f}/s"
        )
        parts = [
            f"{self.done}/{self.total} {self.unit}",
            detail,
            rate,
            f"{left // 60}:{left % 60:02} left",
        ]
        line = f"{self.label}: " + " · ".join(part for part in parts if part)
        self.context.log.info(line)
        print(f"  {line}", file=sys.stderr, flush=True)
