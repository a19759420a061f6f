"""The landing sensor, tick by tick: what it starts, and what waits."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterRunStatus
from dagster._core.test_utils import create_run_for_test

from im_assets.automation.landing import definitions, landing_sensor
from im_resources.study import Study, load_study
from tests.landing.places import landing_study, local, rows


@dg.op(config_schema={"fails": bool})
def admit(context: dg.OpExecutionContext) -> None:
    assert not context.op_config["fails"]


@dg.job
def data() -> None:
    admit()


class Watched:
    """A landing folder with its sensor, and runs that end as a test says."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        self.place, self.instance, self.later = local(folder), instance, 0.0
        self.study: Study = landing_study(self.place)
        assert self.study.landing is not None
        clock = lambda: time.time() + self.later  # noqa: E731
        self.sensor = landing_sensor(self.study, self.study.landing, clock)
        self.cursor: str | None = None

    def tick(self) -> dg.RunRequest | str:
        """The run that the next tick asks for, or why it asks for none."""
        with dg.build_sensor_context(instance=self.instance, cursor=self.cursor) as context:
            found = self.sensor.evaluate_tick(context)
        self.cursor = found.cursor
        requests = list(found.run_requests or ())
        assert len(requests) < 2
        return requests[0] if requests else str(found.skip_message)

    def request(self) -> dg.RunRequest:
        request = self.tick()
        assert isinstance(request, dg.RunRequest), request
        return request

    def run(self, request: dg.RunRequest, fails: bool = False) -> None:
        """A run of the job, as the daemon would make it of the request; it does not land anything,
        as one does not that is killed."""
        data.execute_in_process(
            instance=self.instance,
            run_config={
                "ops": {"admit": {"config": {"fails": fails}}},
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
            },
            tags=dict(request.tags),
            raise_on_error=False,
        )


def taken(request: dg.RunRequest) -> int:
    """How many files a run is to take."""
    return len(request.run_config["ops"]["landed_files"]["config"]["signatures"])


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    monkeypatch.setenv("IM_HOME", str(tmp_path / "home"))
    with dg.DagsterInstance.ephemeral() as instance:
        yield Watched(tmp_path / "landing", instance)


def test_a_file_is_complete_when_it_was_the_same_in_two_ticks(watched: Watched) -> None:
    assert watched.tick() == "nothing there"
    for size in (1, 2, 3):
        watched.place.put("terse/a.jsonl", b"x" * size)
        assert watched.tick() == "1 files are not complete yet"
    request = watched.request()
    assert taken(request) == 1
    assert "a.jsonl" not in str(request)


def test_a_marked_file_is_complete_at_once_and_partial_ones_never(watched: Watched) -> None:
    watched.place.put("terse/b.jsonl.part", b"x")
    watched.place.put("terse/.c.jsonl", b"x")
    assert [watched.tick(), watched.tick()] == ["nothing there"] * 2
    watched.place.put("terse/a.jsonl", b"x")
    watched.place.put("terse/a.jsonl.done", b"")
    assert taken(watched.request()) == 1


def test_ten_files_make_one_run_and_those_that_come_meanwhile_one_more(watched: Watched) -> None:
    for number in range(10):
        watched.place.put(f"terse/{number}.jsonl", rows(str(number)))
    watched.tick()
    assert taken(watched.request()) == 10
    going_on = create_run_for_test(
        watched.instance, job_name="data", status=DagsterRunStatus.STARTED
    )
    for number in range(10):
        os.unlink(f"{watched.place.url}/terse/{number}.jsonl")  # admitted
        watched.place.put(f"howto/{number}.jsonl", rows(str(number)))
        assert isinstance(watched.tick(), str)
    watched.tick()
    waits = f"10 files are complete, and wait for run {going_on.run_id[:8]} of data"
    assert watched.tick() == waits
    watched.instance.report_run_canceled(going_on)
    assert taken(watched.request()) == 10


@pytest.mark.parametrize("status", ["STARTING", "STARTED", "CANCELING"])
def test_files_wait_while_a_refit_is_going_on(watched: Watched, status: str) -> None:
    watched.place.put("terse/a.jsonl", rows("a"))
    watched.tick()
    create_run_for_test(watched.instance, job_name="study", status=DagsterRunStatus[status])
    assert "wait for run" in str(watched.tick())


def test_no_file_is_skipped_for_its_time_or_name(watched: Watched) -> None:
    watched.place.put("terse/new.jsonl", rows("new"))
    watched.tick()
    watched.run(watched.request())
    os.unlink(f"{watched.place.url}/terse/new.jsonl")
    watched.place.put("terse/new.jsonl", rows("another under the same name"))
    watched.place.put("terse/old.jsonl", rows("old"))
    os.utime(f"{watched.place.url}/terse/old.jsonl", (1, 1))
    watched.tick()
    assert taken(watched.request()) == 2


def test_a_run_that_failed_is_tried_again_and_ever_more_seldom(watched: Watched) -> None:
    watched.place.put("terse/a.jsonl", rows("a"))
    watched.tick()
    keys = set()
    for pause in (60, 120, 240, 480, 960, 1920, 3600, 3600):
        request = watched.request()
        keys.add(request.run_key)
        watched.run(request, fails=True)
        watched.later = pause - 30
        assert "runs in vain; the next starts in" in str(watched.tick())
        watched.later = pause + 1
    assert len(keys) == 8  # a key that was used would be skipped for ever


def test_a_failed_run_is_tried_again_although_its_files_have_landed(watched: Watched) -> None:
    watched.place.put("terse/a.jsonl", rows("a"))
    watched.tick()
    watched.run(watched.request(), fails=True)
    os.unlink(f"{watched.place.url}/terse/a.jsonl")
    watched.later = 61
    request = watched.request()
    assert taken(request) == 0
    watched.run(request)
    assert watched.tick() == "nothing there"


def test_a_file_that_stays_although_the_run_succeeded_is_not_tried_at_every_tick(
    watched: Watched,
) -> None:
    watched.place.put("terse/stuck.jsonl", rows("a"))
    watched.tick()
    watched.run(watched.request())
    assert "after 1 runs in vain" in str(watched.tick())
    watched.place.put("terse/b.jsonl", rows("b"))
    watched.place.put("terse/b.jsonl.done", b"")
    assert taken(watched.request()) == 2


def test_a_tick_that_is_repeated_asks_for_the_same_run(watched: Watched) -> None:
    watched.place.put("terse/a.jsonl", rows("a"))
    watched.tick()
    cursor = watched.cursor
    first = watched.request()
    watched.cursor = cursor  # the daemon died before it kept the tick's end
    assert watched.request().run_key == first.run_key


def test_a_lost_cursor_costs_one_tick(watched: Watched) -> None:
    watched.place.put("terse/a.jsonl", rows("a"))
    watched.tick()
    watched.cursor = None
    assert watched.tick() == "1 files are not complete yet"
    assert taken(watched.request()) == 1


def test_the_sensor_is_off_unless_the_profile_says_automation(watched: Watched) -> None:
    assert watched.sensor.default_status == dg.DefaultSensorStatus.STOPPED
    assert watched.sensor.minimum_interval_seconds == 1
    assert not list(definitions(load_study("demo")).sensors or ())
