"""Structured logs of real runs: one file a run, one JSON object a line, nothing where not asked."""

import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml

from im_resources import logs
from im_resources.study import PROJECT_ROOT

CONFIG = yaml.safe_load((PROJECT_ROOT / "dagster.yaml").read_text(encoding="utf-8"))["python_logs"]
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["seed-000"]))
def adapters(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
    context.log.info("half of it\nis done: Größe")
    return dg.MaterializeResult(metadata={"step seconds": 1.5, "preview": "a text"})


@dg.asset_check(asset=adapters)
def finite() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN)


@dg.asset
def fails() -> None:
    try:
        Path("/no/such/file").read_bytes()
    except OSError as error:
        raise RuntimeError("no result") from error


def run(folder: Path, *assets: Any) -> tuple[str, list[dict[str, Any]]]:
    """Run with the handler that dagster.yaml names; the run's id and the lines of its file."""
    overrides = {"python_logs": CONFIG}
    with dg.instance_for_test(temp_dir=str(folder), overrides=overrides) as instance:
        result = dg.materialize(
            assets, instance=instance, partition_key="seed-000" if adapters in assets else None,
            raise_on_error=False, run_config=QUIET,
        )  # fmt: skip
    path = folder / "logs" / f"{result.run_id}.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return result.run_id, [json.loads(line) for line in lines]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DAGSTER_STATE", str(tmp_path / "dagster"))
    monkeypatch.setenv(logs.FORMAT, "json")
    return tmp_path


def test_a_run_is_a_file_of_lines_with_what_its_events_say(folder: Path) -> None:
    run_id, lines = run(folder, adapters, finite)
    assert {line["run_id"] for line in lines} == {run_id}
    events = [line.get("event") for line in lines]
    assert events[0] == "RUN_START"
    assert events[-1] == "RUN_SUCCESS"
    (message,) = [line for line in lines if "half" in line["message"]]
    assert (message["message"], message["step"]) == ("half of it\nis done: Größe", "adapters")
    (made,) = [line for line in lines if line.get("event") == "ASSET_MATERIALIZATION"]
    assert (made["asset"], made["partition"]) == ("adapters", "seed-000")
    assert made["metadata"] == {"step seconds": 1.5}
    (check,) = [line for line in lines if line.get("event") == "ASSET_CHECK_EVALUATION"]
    assert (check["check"], check["passed"], check["severity"]) == ("finite", False, "WARN")


def test_a_failure_names_its_innermost_cause(folder: Path) -> None:
    _, lines = run(folder, fails)
    (failed,) = [line for line in lines if line.get("event") == "STEP_FAILURE"]
    assert failed["error"]["kind"] == "FileNotFoundError"
    assert "/no/such/file" in failed["error"]["message"]
    assert failed["level"] == "ERROR"


def test_nothing_is_written_where_nobody_asks(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(logs.FORMAT)
    assert run(folder, fails)[1] == []
    assert not (folder / "logs").exists()


def test_an_unknown_format_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(logs.FORMAT, "xml")
    with pytest.raises(ValueError, match="'xml'; it can be text or json"):
        logs.JsonLines()


def test_a_log_that_cannot_be_written_fails_no_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "logs").write_text("in the way", encoding="utf-8")
    monkeypatch.setattr(logging, "raiseExceptions", False)
    with dg.instance_for_test(temp_dir=str(folder), overrides={"python_logs": CONFIG}) as instance:
        assert dg.materialize(
            [adapters], instance=instance, partition_key="seed-000", run_config=QUIET
        ).success


def test_the_newest_runs_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "KEPT_RUNS", 2)
    for age, name in enumerate(["new", "old", "older", "oldest"]):
        for part in ("", ".1"):
            path = tmp_path / f"{name}.jsonl{part}"
            path.write_text("{}", encoding="utf-8")
            os.utime(path, (time.time() - age, time.time() - age))
    logs.prune(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {
        "new.jsonl", "new.jsonl.1", "old.jsonl", "old.jsonl.1",
    }  # fmt: skip
