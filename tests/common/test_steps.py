"""What a terminal shows of a run: each step as it ends, and that one is still on."""

from itertools import pairwise

import dagster as dg
import pytest

from im_assets.common.measuring import measured
from im_assets.common.progress import TERMINAL, Progress
from im_assets.common.steps import LOGGER, Steps, outcome, told
from im_assets.common.tracking import tracked


def test_a_step_that_is_silent_is_told_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(TERMINAL, "at", 0.0)
    monkeypatch.setattr("im_assets.common.steps.time.monotonic", lambda: clock[0])
    steps = Steps()
    for _ in range(60):  # nothing is on
        clock[0] += 1
        steps.beat()
    assert not capsys.readouterr().err
    steps.started("quality_rule")
    for second in range(35):
        clock[0] += 1
        if second == 12:
            Progress(None, "searching subsets", 512, "subsets")
        steps.beat()
    assert capsys.readouterr().err.splitlines() == [
        "  quality_rule: 0:10 so far",
        "  quality_rule: 0:20 so far · searching subsets: 0/512 subsets",
        "  quality_rule: 0:30 so far · searching subsets: 0/512 subsets",
    ]


def test_a_step_that_tells_of_itself_is_not_told_twice(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr(TERMINAL, "at", 0.0)
    monkeypatch.setattr("im_assets.common.steps.time.monotonic", lambda: clock[0])
    steps = Steps()
    steps.started("candidate_datasets")
    at: list[float] = []
    progress = Progress(None, "reading", 36_000, "rows")
    for second in range(36_000):  # ten hours
        clock[0] += 1
        progress.advance(second + 1)
        steps.beat()
        if TERMINAL.at == clock[0]:
            at.append(clock[0])
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith("  reading: ") for line in lines)
    assert max(b - a for a, b in pairwise(at)) <= 10


def test_each_step_is_told_as_it_ends_with_what_came_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    shown: list[str] = []

    @dg.asset
    def first() -> dg.MaterializeResult[None]:
        list(tracked("abc", "spelling", "letters"))
        return dg.MaterializeResult(metadata={"dagster/row_count": 1234})

    @dg.asset(deps=[first])
    def second() -> None:
        shown.append(capsys.readouterr().out)
        raise ValueError("its own error")

    with dg.DagsterInstance.ephemeral() as instance, told(Steps()) as logger:
        definitions = dg.Definitions(
            assets=measured([first, second]),
            jobs=[dg.define_asset_job("both")],
            loggers={LOGGER: logger},
            executor=dg.in_process_executor,
        )
        definitions.resolve_job_def("both").execute_in_process(
            instance=instance, raise_on_error=False, run_config={"loggers": {LOGGER: {}}}
        )
    [line] = shown[0].splitlines()
    assert line.startswith("  first ")
    assert line.endswith(" s  1,234 rows")
    assert capsys.readouterr().out.rstrip().endswith("FAILED")


def test_what_came_out_of_partitions() -> None:
    made = {"step results computed": 3, "step results found in caches": 5, "dagster/row_count": 99}
    assert outcome([made] * 8) == "8 partitions · 3 computed, 5 found"
    assert outcome([{"formula": "log_loss = 1"}]) == "log_loss = 1"
    assert outcome([]) == ""
