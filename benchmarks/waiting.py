"""Work that only waits, for ``benchmarks.cluster``: a trainer, and a task that writes to tables.

A plugin of the benchmark's profile, so that nodes import it too.
"""

import time
from collections.abc import Iterator, Mapping

import pandas as pd

from im_assets.experiments.trainers import TrainingJob, trainer
from im_resources.lake_usage import USAGE
from im_resources.language_model.side_by_side import stop_point
from im_resources.language_model.training import Training
from im_resources.workplace import Workplace

STEPS = 10


@trainer("waiting", version=1)
def waiting(job: TrainingJob, seconds: float = 1.0) -> Training:
    """Wait, telling of ten steps, and write an empty adapter."""
    from safetensors.numpy import save_file

    for step in range(1, STEPS + 1):
        _wait(seconds / STEPS)
        if job.on_step is not None:
            job.on_step(step, STEPS, 100)
    save_file({}, job.folder / "adapter_model.safetensors")
    return Training([1.0], 100 * STEPS, seconds)


def writes(
    items: Mapping[str, int], here: Workplace, seconds: float, rows: int
) -> Iterator[tuple[str, tuple[int, int, int, float]]]:
    """A task: wait, and append rows to a table that all append to, as shards of scores do.

    Yields what each write took: (commits, conflicts, transactions done again,
    seconds).
    """
    for name, number in items.items():
        _wait(seconds)
        before = (USAGE.writes, USAGE.conflicts, USAGE.retries)
        ids = [f"{number}-{row}" for row in range(rows)]
        table = pd.DataFrame({"example_id": ids, "indicator": "waited", "fingerprint": "waited",
                              "value": float(number)})  # fmt: skip
        start = time.monotonic()
        here.tables.append("waited", table, key=["example_id", "indicator", "fingerprint"])
        took = time.monotonic() - start
        after = (USAGE.writes, USAGE.conflicts, USAGE.retries)
        w, c, r = (int(b - a) for a, b in zip(before, after, strict=True))
        yield name, (w, c, r, took)


def _wait(seconds: float) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        stop_point()
        time.sleep(min(0.2, left))
