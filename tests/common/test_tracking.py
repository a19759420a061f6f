"""What loops far below an asset tell of themselves, and to whom."""

from contextlib import AbstractContextManager

import dagster as dg
import pandas as pd
import pytest

from im_assets.candidates.cleaning import clean
from im_assets.candidates.reading import REJECTED_COLUMNS, ROW_COLUMNS
from im_assets.common.measuring import measured
from im_assets.common.tracking import Advance, listening, tracked, work
from im_resources.study import CleaningSettings

Heard = dict[str, tuple[int | None, int, str]]


def hearing(heard: Heard) -> AbstractContextManager[None]:
    """A listener that keeps (total, done, unit) of each piece of work by its label."""

    def listener(label: str, total: int | None, unit: str) -> Advance:
        heard[label] = (total, 0, unit)

        def advance(done: int) -> None:
            heard[label] = (total, done, unit)

        return advance

    return listening(listener)


def test_work_is_told_to_the_newest_listener_and_to_nobody_where_there_is_none() -> None:
    outer: Heard = {}
    inner: Heard = {}
    assert list(tracked("abc", "spelling", "letters")) == ["a", "b", "c"]
    with hearing(outer):
        list(tracked("ab", "spelling", "letters"))
        with hearing(inner):
            list(tracked(iter("abc"), "reading", "rows"))
        work("covering", 5, "examples")(3)
    assert outer == {"spelling": (2, 2, "letters"), "covering": (5, 3, "examples")}
    assert inner == {"reading": (None, 3, "rows")}


def test_cleaning_tells_how_far_it_is() -> None:
    rows = pd.DataFrame(
        [("a", n, f"What is {n} times two?", "", f"It is {2 * n}.", "") for n in range(7)],
        columns=ROW_COLUMNS,
    )
    heard: Heard = {}
    with hearing(heard):
        clean(rows, pd.DataFrame(columns=REJECTED_COLUMNS), CleaningSettings(), None)
    assert heard["normalizing"] == (7, 7, "rows")
    assert heard["looking for duplicates"] == (0, 0, "rows")  # none is like another
    assert heard["storing"] == (7, 7, "rows")


def test_a_step_hears_its_own_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("im_assets.common.progress.time.monotonic", lambda: clock[0])

    @dg.asset
    def slow() -> None:
        for _ in tracked(range(60), "reading", "rows"):
            clock[0] += 1

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize(measured([slow]), instance=instance)
        said = [r.user_message for r in instance.all_logs(result.run_id)]
    lines = [line for line in said if line.startswith("reading: ")]
    assert lines[0] == "reading: 5/60 rows · 1.0 rows/s · 0:55 left"
    assert len(lines) == 12
