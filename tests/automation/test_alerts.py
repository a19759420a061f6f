"""Alerts, with a real instance and a webhook on this machine: what failed is told, once."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from im_assets.automation import alerts as alerts_module
from im_assets.automation.alerts import NAME, alerts_sensor
from im_assets.definitions import definitions as whole
from im_resources.study import AlertSettings, Study, load_study
from tests.webhook_for_tests import SECRET, Receiver, receiving

VARIABLE = "ALERTS_FOR_TESTS"
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with receiving() as receiver:
        monkeypatch.setenv(VARIABLE, receiver.url)
        yield receiver


class Watched:
    """A code location with alerts: an asset, its check, and a job that fails."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        folder.mkdir(exist_ok=True)
        self.instance = dg.DagsterInstance.local_temp(str(folder))
        chosen = AlertSettings.model_validate({"webhook": VARIABLE, "timeout": 0.5, **settings})
        self.study = load_study("demo").model_copy(update={"alerts": chosen})
        self.passes, self.severity = True, dg.AssetCheckSeverity.ERROR
        self.cursor: str | None = None
        self.definitions = self._definitions()

    def _definitions(self) -> dg.Definitions:
        @dg.asset
        def rule() -> None: ...

        @dg.asset_check(asset=rule)
        def rule_still_holds() -> dg.AssetCheckResult:
            return dg.AssetCheckResult(
                passed=self.passes, severity=self.severity, description="rank correlation <0.1>"
            )

        @dg.op
        def divide() -> None:
            try:
                _ = 1 / 0
            except ZeroDivisionError as error:
                raise RuntimeError("no result") from error

        @dg.job
        def failing() -> None:
            divide()

        return dg.Definitions(
            assets=[rule],
            asset_checks=[rule_still_holds],
            jobs=[dg.define_asset_job("assets"), failing],
            sensors=[alerts_sensor(self.study)],
        )

    def run(self, job: str, passes: bool = True) -> dg.ExecuteInProcessResult:
        self.passes = passes
        found = self.definitions.resolve_job_def(job)
        return found.execute_in_process(
            instance=self.instance, raise_on_error=False, run_config=QUIET
        )

    def tick(self) -> str:
        """One tick of the sensor with the cursor of the one before; what it says."""
        context = dg.build_sensor_context(
            instance=self.instance, cursor=self.cursor, definitions=self.definitions
        )
        data = self.definitions.resolve_sensor_def(NAME).evaluate_tick(context)
        assert data.run_requests == []
        self.cursor = data.cursor
        return str(data.skip_message)


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def test_what_failed_before_anybody_watched_is_history(
    watched: Watched, receiver: Receiver
) -> None:
    watched.run("failing")
    watched.run("assets", passes=False)
    watched.tick()
    assert watched.tick() == "0 alerts posted"
    assert receiver.asked == 0


def test_a_failed_run_is_told_once_with_its_cause(watched: Watched, receiver: Receiver) -> None:
    watched.tick()
    run_id = watched.run("failing").run_id
    assert watched.tick() == "1 alerts posted"
    assert watched.tick() == "0 alerts posted"
    (message,) = receiver.taken
    assert message["text"].startswith("[demo] run of failing failed\ndivide: ZeroDivisionError")
    alert = message["alert"]
    assert (alert["kind"], alert["run_id"], alert["job"]) == ("run failed", run_id, "failing")
    assert alert["link"] == f"http://127.0.0.1:3000/runs/{run_id}"


def test_a_failed_check_of_a_run_that_succeeds_is_told(
    watched: Watched, receiver: Receiver
) -> None:
    watched.tick()
    for passes in (True, False, True):
        assert watched.run("assets", passes).success
    assert watched.tick() == "1 alerts posted"
    watched.run("assets", passes=False)
    watched.tick()
    first, second = receiver.alerts
    assert (first["kind"], first["asset"], first["check"], first["severity"]) == (
        "check failed", "rule", "rule_still_holds", "ERROR",
    )  # fmt: skip
    assert first["cause"] == "rank correlation <0.1>"
    # Slack reads < and > as a link or a mention, and a cause may quote data.
    assert "rank correlation &lt;0.1&gt;" in receiver.taken[0]["text"]
    assert first["id"] != second["id"]


def test_warnings_are_told_where_the_profile_says_so(tmp_path: Path, receiver: Receiver) -> None:
    for severity, told in (("WARN", 1), ("ERROR", 0)):
        watched = Watched(tmp_path / severity, severity=severity)
        watched.severity = dg.AssetCheckSeverity.WARN
        watched.tick()
        watched.run("assets", passes=False)
        assert watched.tick() == f"{told} alerts posted"
        assert watched.tick() == "0 alerts posted"


def test_more_failures_than_are_read_at_once_are_all_told(
    watched: Watched, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("failures", "alerts"):
        monkeypatch.setattr(f"im_assets.automation.{module}.PAGE", 2)
    watched.tick()
    for _ in range(5):
        watched.run("assets", passes=False)
    assert watched.tick() == "5 alerts posted"
    assert watched.tick() == "0 alerts posted"
    assert len({alert["id"] for alert in receiver.alerts}) == 5


def test_what_a_dead_webhook_did_not_take_is_posted_when_it_is_back(
    watched: Watched, receiver: Receiver
) -> None:
    watched.tick()
    receiver.status = 503
    watched.run("failing")
    watched.run("assets", passes=False)
    said = watched.tick()
    assert "503" in said
    assert "waits for the next tick" in said
    assert SECRET not in said + str(watched.cursor)
    receiver.status = 200
    assert watched.tick() == "2 alerts posted"
    assert [alert["kind"] for alert in receiver.alerts] == ["run failed", "check failed"]


def test_a_slow_webhook_ends_the_tick_after_its_first_alert(
    watched: Watched, receiver: Receiver
) -> None:
    watched.tick()
    for _ in range(4):
        watched.run("failing")
    receiver.delay = 2
    said = watched.tick()
    assert said.startswith("0 alerts posted")
    assert receiver.asked <= 2
    receiver.delay = 0
    assert watched.tick() == "4 alerts posted"


def test_a_tick_ends_when_its_time_is_up(
    watched: Watched, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts_module, "BUDGET", 0.0)
    watched.tick()
    watched.run("failing")
    assert "more wait" in watched.tick()
    assert receiver.asked == 0
    monkeypatch.setattr(alerts_module, "BUDGET", 20.0)
    assert watched.tick() == "1 alerts posted"


def test_an_alert_that_is_refused_for_good_does_not_hold_up_the_others(
    watched: Watched, receiver: Receiver
) -> None:
    watched.tick()
    watched.run("failing")
    receiver.status = 400
    assert watched.tick() == "0 alerts posted"
    receiver.status = 200
    watched.run("assets", passes=False)
    assert watched.tick() == "1 alerts posted"


def test_without_an_address_nothing_is_posted_and_nothing_is_lost(
    watched: Watched, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched.tick()
    watched.run("failing")
    monkeypatch.delenv(VARIABLE)
    assert f"{VARIABLE} (alerts.webhook)" in watched.tick()
    monkeypatch.setenv(VARIABLE, SECRET)
    said = watched.tick()
    assert "not an http(s) URL" in said
    assert SECRET not in said
    monkeypatch.setenv(VARIABLE, receiver.url)
    assert watched.tick() == "1 alerts posted"


def test_a_daemon_that_has_stopped_is_told_once(watched: Watched, receiver: Receiver) -> None:
    watched.tick()
    assert watched.tick() == "0 alerts posted"  # it gets time to come up
    content = json.loads(str(watched.cursor))
    content["watch"]["first"] = {n: time.time() - 601 for n in content["watch"]["first"]}
    watched.cursor = json.dumps(content)
    watched.tick()
    assert watched.tick() == "0 alerts posted"
    (alert,) = receiver.alerts
    assert (alert["kind"], alert["title"]) == ("stopped", "daemon does not work")


def test_the_sensor_is_there_where_the_profile_asks_for_it() -> None:
    study: Study = load_study("demo")
    asked = study.model_copy(update={"alerts": AlertSettings()})
    usual = {sensor.name for sensor in whole(study, "demo").sensors or ()}
    assert NAME not in usual
    (sensor,) = [s for s in whole(asked, "demo").sensors or () if s.name not in usual]
    assert sensor.name == NAME
    assert isinstance(sensor, dg.SensorDefinition)
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
