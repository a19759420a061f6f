"""``python -m im_assets.alerts``: the watcher outside of the daemon."""

import sys
import time
from pathlib import Path

import dagster as dg
import pytest
from dagster._daemon.types import DaemonHeartbeat

from im_assets import alerts
from im_resources.study import AlertSettings, Study, load_study
from im_resources.study.environment import STATE
from im_resources.webhook import WebhookError
from tests.webhook_for_tests import receiving

VARIABLE = "ALERTS_FOR_TESTS"


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setenv("IM_HOME", str(tmp_path))
    monkeypatch.setenv(STATE, str(tmp_path / "demo" / "dagster"))
    (tmp_path / "demo").mkdir()
    settings = AlertSettings(webhook=VARIABLE, silence_minutes=1)
    return load_study("demo").model_copy(update={"alerts": settings})


def beat(age: float) -> None:
    """Every daemon was last alive so many seconds ago."""
    with dg.DagsterInstance.get() as instance:
        for kind in instance.get_required_daemon_types():
            instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - age, kind, "1"))


def test_a_dead_daemon_is_told_at_once_and_once(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving() as receiver:
        monkeypatch.setenv(VARIABLE, receiver.url)
        beat(5)
        assert alerts.check_heartbeat(study)
        assert receiver.asked == 0
        beat(100)
        for _ in range(2):
            assert not alerts.check_heartbeat(study)
        (alert,) = receiver.alerts
        assert alert["title"] == "daemon does not work"
        beat(5)
        assert alerts.check_heartbeat(study)
        beat(100)
        assert not alerts.check_heartbeat(study)
        assert len(receiver.alerts) == 2


def test_what_could_not_be_posted_is_posted_at_the_next_look(
    study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    with receiving() as receiver:
        monkeypatch.setenv(VARIABLE, receiver.url)
        beat(100)
        receiver.status = 404
        with pytest.raises(WebhookError, match="404"):
            alerts.check_heartbeat(study)
        receiver.status = 200
        assert not alerts.check_heartbeat(study)
        assert receiver.alerts


def test_a_memory_that_is_not_whole_is_started_anew(tmp_path: Path) -> None:
    (tmp_path / "memory.json").write_text('{"first":', encoding="utf-8")
    assert alerts.remembered(tmp_path / "memory.json").told == frozenset()


def test_a_study_without_alerts_says_so(
    study: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("IM_PROFILE", "demo")
    monkeypatch.setattr(sys, "argv", ["alerts", "--check-heartbeat"])
    with pytest.raises(SystemExit):
        alerts.main()
    assert "no block `alerts`" in capsys.readouterr().err
