"""What a user who watches a long step sees, and that it does not fill the history."""

from typing import Any

import dagster as dg
import pytest

from im_assets.common.progress import Progress


def shown(
    monkeypatch: pytest.MonkeyPatch, hours: float
) -> tuple[list[str], list[dg.AssetObservation]]:
    """Lines of the log and observations of a step that makes a step of work every second."""
    clock = [0.0]
    monkeypatch.setattr("im_assets.common.progress.time.monotonic", lambda: clock[0])
    total = int(hours * 3600)

    @dg.asset
    def slow(context: dg.AssetExecutionContext) -> None:
        progress = Progress(context, "finetuning", 2, "mixtures")
        for second in range(1, total + 1):
            clock[0] += 1
            progress.step("seed-001", second, total, tokens=500)

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([slow], instance=instance)
        lines = [
            record.user_message
            for record in instance.all_logs(result.run_id)
            if record.user_message.startswith("finetuning: ")
        ]
        seen = instance.fetch_observations(dg.AssetKey("slow"), limit=1000).records
    return lines, [r.asset_observation for r in seen if r.asset_observation is not None]


def test_the_log_tells_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    lines, _ = shown(monkeypatch, 0.1)
    assert (
        lines[0] == "finetuning: 0/2 mixtures · step 5/360 of seed-001 · 500 tokens/s · 11:55 left"
    )


def test_the_asset_gets_points_to_plot(monkeypatch: pytest.MonkeyPatch) -> None:
    _, points = shown(monkeypatch, 0.1)
    newest: dict[str, Any] = {name: value.value for name, value in points[0].metadata.items()}
    assert newest["tokens/s now"] == 500
    assert 40 < newest["done, percent"] <= 50
    assert 0 < newest["minutes left"] < 10
    assert 5 <= len(points) <= 12


def test_a_day_of_work_leaves_hundreds_of_lines_and_not_thousands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines, points = shown(monkeypatch, 10)
    assert 100 < len(lines) < 600
    assert 50 < len(points) < 150


def test_what_is_advanced_has_a_rate_in_its_own_unit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = [0.0]
    monkeypatch.setattr("im_assets.common.progress.time.monotonic", lambda: clock[0])
    progress = Progress(None, "scoring", 400, "examples")
    assert progress.rates == {}
    clock[0] = 20.0
    progress.advance(100)
    assert "scoring: 100/400 examples · 5.0 examples/s · 1:00 left" in capsys.readouterr().err
    assert progress.rates == {"examples/s": 5.0}
    progress.step("one", 1, 2, tokens=3000)
    assert progress.rates == {"tokens/s": 150.0}
