"""Dead runs: known by a lock that nobody holds, whoever asks, and cleared once."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext

from im_resources import waiting
from im_resources.runs import clear_dead_runs, held, one_process_executor, running
from im_resources.study import PROJECT_ROOT

POOL = "gpu"
HOLD = """
import sys, time
import dagster as dg
from im_resources.runs import held
with dg.DagsterInstance.local_temp(sys.argv[1]) as instance, held(instance, sys.argv[2]):
    print("held", flush=True)
    time.sleep(600)
"""


@dg.op(pool=POOL)
def one() -> int:
    return 1


@dg.job(executor_def=one_process_executor)
def work() -> None:
    one()


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    limits = {"concurrency": {"pools": {"default_limit": 1}}}
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides=limits) as instance:
        yield instance


def started(instance: dg.DagsterInstance, step: str = "one") -> str:
    """A run that has begun and holds the slot of the pool."""
    run = instance.create_run_for_job(work, status=dg.DagsterRunStatus.STARTED)
    instance.event_log_storage.initialize_concurrency_limit_to_default(POOL)
    instance.event_log_storage.claim_concurrency_slot(POOL, run.run_id, step)
    return run.run_id


def status(instance: dg.DagsterInstance, run: str) -> dg.DagsterRunStatus:
    found = instance.get_run_by_id(run)
    assert found is not None
    return found.status


def slots(instance: dg.DagsterInstance) -> list[str]:
    info = instance.event_log_storage.get_concurrency_info(POOL)
    return [slot.run_id for slot in info.claimed_slots]


def test_a_run_is_dead_when_its_process_is_and_not_before(instance: dg.DagsterInstance) -> None:
    run = started(instance)
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, instance.root_directory, run],
        cwd=PROJECT_ROOT,
        stdout=subprocess.PIPE,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"held\n"
        assert clear_dead_runs(instance) == []
        assert status(instance, run) is dg.DagsterRunStatus.STARTED
        assert slots(instance) == [run]
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    assert [dead.run_id for dead in clear_dead_runs(instance)] == [run]
    assert status(instance, run) is dg.DagsterRunStatus.FAILURE
    assert slots(instance) == []
    assert clear_dead_runs(instance) == []
    assert not list(running(instance).iterdir())


def test_a_run_of_another_machine_is_left_alone(instance: dg.DagsterInstance) -> None:
    run = started(instance)  # it has no file here
    assert clear_dead_runs(instance) == []
    assert status(instance, run) is dg.DagsterRunStatus.STARTED
    assert slots(instance) == [run]


def test_a_dead_run_that_was_being_cancelled_is_cancelled(instance: dg.DagsterInstance) -> None:
    run = started(instance)
    running(instance).mkdir()
    (running(instance) / run).touch()
    found = instance.get_run_by_id(run)
    assert found is not None
    instance.report_run_canceling(found)
    clear_dead_runs(instance)
    assert status(instance, run) is dg.DagsterRunStatus.CANCELED


def test_what_a_deleted_run_held_is_freed(instance: dg.DagsterInstance) -> None:
    run = started(instance)
    instance.delete_run(run)
    clear_dead_runs(instance)
    assert slots(instance) == []


def test_an_interrupted_run_gives_its_slot_back(instance: dg.DagsterInstance) -> None:
    run = started(instance)
    with pytest.raises(KeyboardInterrupt), held(instance, run):
        raise KeyboardInterrupt
    assert slots(instance) == []
    # Its end was not written: the next look does that.
    assert [dead.run_id for dead in clear_dead_runs(instance)] == [run]


def test_a_run_that_dagster_executes_is_vouched_for_and_leaves_nothing(
    instance: dg.DagsterInstance,
) -> None:
    with dg.execute_job(dg.reconstructable(work), instance) as result:
        assert result.success
    # This process still holds its file; to any other it is one of a run that is over.
    child = "import sys, dagster as dg; from im_resources.runs import clear_dead_runs as clear\n"
    child += "with dg.DagsterInstance.local_temp(sys.argv[1]) as i: print(clear(i))"
    command = [sys.executable, "-c", child, instance.root_directory]
    done = subprocess.run(command, cwd=PROJECT_ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    assert slots(instance) == []


def test_who_waits_is_told_who_holds_the_slot(
    instance: dg.DagsterInstance, capsys: pytest.CaptureFixture[str]
) -> None:
    holder, waiter = started(instance), started(instance)
    with held(instance, holder):
        waiting.tell(instance, waiter)
    said = capsys.readouterr().err
    assert f"one waits for one of 1 slots of the pool 'gpu', held by run {holder[:8]}" in said
    logged = instance.all_logs(waiter, of_type=dg.DagsterEventType.ENGINE_EVENT)
    assert any(holder[:8] in record.message for record in logged)


def test_a_waiting_step_sleeps(instance: dg.DagsterInstance) -> None:
    """Fails when Dagster no longer asks the method that is replaced, or no longer needs it."""
    waiting.install()
    started(instance)
    run = instance.get_run_by_id(started(instance))
    assert run is not None
    with InstanceConcurrencyContext(instance, run) as claims:
        assert not claims.claim(POOL, "one")
        assert claims.has_pending_claims()
        assert 0 < claims.interval_to_next_pending_claim_check() <= waiting.NAP
