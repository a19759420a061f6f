"""What has stopped ticking, on a real instance with the states that Dagster's daemon writes."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    InProcessCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._daemon.types import DaemonHeartbeat
from dagster_shared.error import SerializableErrorInfo

from im_assets.automation.heartbeats import (
    Silence,
    Watch,
    last_due,
    silent_daemons,
    silent_ticks,
)

MINUTE = 60.0
PATIENCE = 10 * MINUTE


@dg.job
def refit() -> None: ...


@dg.sensor(job=refit)
def landing() -> None: ...


weekly = dg.ScheduleDefinition(
    name="weekly", job=refit, cron_schedule="0 6 * * 1", execution_timezone="Europe/Berlin"
)
REPOSITORY = dg.Definitions(
    jobs=[refit], sensors=[landing], schedules=[weekly]
).get_repository_def()


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


def ticking(
    instance: dg.DagsterInstance,
    name: str,
    data: Any,
    ticked: float | None,
    status: TickStatus = TickStatus.SKIPPED,
    turned: InstigatorStatus = InstigatorStatus.RUNNING,
) -> None:
    """State and last tick of a sensor or schedule, as the daemon stores them."""
    location = InProcessCodeLocationOrigin(
        loadable_target_origin=LoadableTargetOrigin(module_name="im_assets.definitions"),
        location_name="demo",
    )
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "__repository__"), name)
    kind = (
        InstigatorType.SCHEDULE
        if isinstance(data, ScheduleInstigatorData)
        else InstigatorType.SENSOR
    )
    instance.add_instigator_state(InstigatorState(origin, kind, turned, data))
    if ticked is not None:
        error = SerializableErrorInfo("OSError: no such folder\n", [], "OSError")
        instance.create_tick(
            TickData(
                origin.get_id(),
                name,
                kind,
                status,
                ticked,
                selector_id=origin.get_selector().get_id(),
                error=error if status == TickStatus.FAILURE else None,
                run_ids=["a run"] if status == TickStatus.SUCCESS else [],
            )
        )


def sensor_data(started: float) -> SensorInstigatorData:
    return SensorInstigatorData(min_interval=30, last_sensor_start_timestamp=started)


@pytest.mark.parametrize(
    ("age", "interval", "silent"), [(1, 30, False), (30, 30, True), (30, 3600, False)]
)
def test_a_sensor_is_silent_when_it_is_overdue(
    instance: dg.DagsterInstance, age: float, interval: int, silent: bool
) -> None:
    now = time.time()
    data = SensorInstigatorData(min_interval=interval, last_sensor_start_timestamp=now - 9e5)
    ticking(instance, "landing", data, now - age * MINUTE)
    assert [s.name for s in silent_ticks(instance, REPOSITORY, now, PATIENCE)] == (
        ["sensor landing"] if silent else []
    )


def test_a_sensor_that_was_started_just_now_or_is_off_or_gone_is_not(
    instance: dg.DagsterInstance,
) -> None:
    now = time.time()
    ticking(instance, "landing", sensor_data(now - MINUTE), now - 100 * MINUTE)
    off = InstigatorStatus.STOPPED
    ticking(instance, "weekly", ScheduleInstigatorData("0 6 * * 1", 1.0), None, turned=off)
    ticking(instance, "removed", sensor_data(1.0), now - 100 * MINUTE)
    assert silent_ticks(instance, REPOSITORY, now, PATIENCE) == []


def test_a_tick_that_failed_is_told_with_its_cause(instance: dg.DagsterInstance) -> None:
    now = time.time()
    ticking(instance, "landing", sensor_data(now), now, TickStatus.FAILURE)
    (silence,) = silent_ticks(instance, REPOSITORY, now, PATIENCE)
    assert silence.cause == "its last tick failed: OSError: no such folder"


@pytest.mark.parametrize(("missed", "silent"), [(False, False), (True, True)])
def test_a_schedule_is_silent_when_it_missed_its_time(
    instance: dg.DagsterInstance, missed: bool, silent: bool
) -> None:
    now = datetime(2026, 3, 11, 12, tzinfo=UTC).timestamp()
    due = datetime(2026, 3, 9, 5, tzinfo=UTC).timestamp()  # Monday, 6 in Berlin
    assert last_due(weekly, now) == due
    started = due - 9e5
    ticking(instance, "weekly", ScheduleInstigatorData("0 6 * * 1", started),
            due - 7 * 86400 if missed else due, TickStatus.SUCCESS)  # fmt: skip
    found = silent_ticks(instance, REPOSITORY, now, PATIENCE)
    assert [s.name for s in found] == (["schedule weekly"] if silent else [])


def test_a_schedule_that_was_due_a_moment_ago_gets_time() -> None:
    due = datetime(2026, 3, 9, 5, tzinfo=UTC).timestamp()
    assert last_due(weekly, due + MINUTE - PATIENCE) == due - 7 * 86400


def test_a_daemon_is_silent_when_its_last_heartbeat_is_old(instance: dg.DagsterInstance) -> None:
    now = time.time()
    required = instance.get_required_daemon_types()
    (never,) = silent_daemons(instance, now, PATIENCE)
    assert (never.name, never.since) == ("daemon", None)
    for kind in required:
        age = 11 * MINUTE if kind == "SENSOR" else MINUTE
        instance.add_daemon_heartbeat(DaemonHeartbeat(now - age, kind, "1"))
    (silence,) = silent_daemons(instance, now, PATIENCE)
    assert silence.name == "daemon SENSOR"
    assert silence.cause.startswith("last alive ")
    assert len(silent_daemons(instance, now + PATIENCE, PATIENCE)) == 1


def test_a_watch_tells_a_silence_once_and_again_after_it_was_over() -> None:
    silence = Silence("sensor landing", 0.0, "last tick long ago")
    watch, told = Watch.of(None), []
    for minute in range(30):
        found = [] if 14 <= minute < 16 else [silence]
        due, watch = watch.look(found, 1000 + minute * MINUTE, PATIENCE)
        for silence in due:
            told.append(minute)
            watch = Watch.of(watch.telling(silence.name).content())
    assert told == [10, 26]


def test_a_watch_that_slept_gives_everything_time_again() -> None:
    silence = Silence("sensor landing", 0.0, "last tick long ago")
    _, watch = Watch.of(None).look([silence], 0.0, PATIENCE)
    due, watch = watch.look([silence], 8 * 3600.0, PATIENCE)
    assert due == []
    assert watch.first == {"sensor landing": 8 * 3600.0}


def test_what_could_not_be_told_is_due_again() -> None:
    silence = Silence("sensor landing", 0.0, "last tick long ago")
    watch = Watch({silence.name: 0.0}, frozenset(), PATIENCE)
    for moment in (PATIENCE + 1, PATIENCE + 2):
        due, watch = watch.look([silence], moment, PATIENCE)
        assert due == [silence]
