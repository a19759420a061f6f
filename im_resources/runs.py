"""Runs that were killed: found by the lock that their process no longer holds, and cleared away.

A killed process leaves its run "started" for ever, and its slot in the pool taken: whatever needs
the pool waits. So the process of a run holds an advisory lock on ``<history>/running/<run id>``,
which the kernel frees when it dies, in whatever way: no process id that another has taken since, no
clock, and the same after a reboot or from a second container. A run whose file nobody holds is
over. Runs of another machine have their files there, and are never judged here.
"""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import dagster as dg

from im_resources.interrupts import ended_in_time

RUNNING = "running"  # the folder's name
PROCESS = "process"  # the run's tag that says where it runs
DIED = (
    "The process of this run ended without a word: it was killed, or the machine went down. What "
    "it had finished is kept; run it again."
)


def running(instance: dg.DagsterInstance) -> Path:
    """The folder with a file for each run of this machine that has begun and is not cleared."""
    return Path(instance.root_directory) / RUNNING


@contextmanager
def held(instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """Vouch for the run: while this lasts, it is alive. Afterwards its slots are free again.

    Dagster frees the slot of a step that succeeds or fails, but not of one that is interrupted.
    """
    with _lock(running(instance), run_id):
        try:
            yield
        finally:
            free(instance, run_id)
            run = instance.get_run_by_id(run_id)
            if run is None or run.is_finished:  # else the next look clears it as a dead one
                (running(instance) / run_id).unlink(missing_ok=True)


def process_name() -> str:
    """This process as a run's tag names it."""
    return f"{socket.gethostname()} pid {os.getpid()}"


def free(instance: dg.DagsterInstance, run_id: str) -> None:
    """Give the run's slots back, and its places in the queue for one."""
    if instance.event_log_storage.supports_global_concurrency_limits:
        instance.event_log_storage.free_concurrency_slots_for_run(run_id)


def clear_dead_runs(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """Mark the runs failed whose process is gone, free their slots; return those marked.

    Safe at any time, from any number of processes. Also frees what runs hold that were deleted.
    """
    cleared = []
    for path in sorted(running(instance).glob("[!.]*")):
        file = _unheld(path)
        if file is None:  # alive; or cleared by another process
            continue
        with file:
            run = instance.get_run_by_id(path.name)
            if run is not None and not run.is_finished:
                if run.status is dg.DagsterRunStatus.CANCELING:
                    instance.report_run_canceled(run, DIED)
                else:
                    instance.report_run_failed(run, DIED)
                cleared.append(run)
            free(instance, path.name)
            path.unlink(missing_ok=True)
    if instance.event_log_storage.supports_global_concurrency_limits:
        for run_id in instance.event_log_storage.get_concurrency_run_ids():
            if not instance.has_run(run_id):
                free(instance, run_id)
    return cleared


def dead(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether the run has begun on this machine, and its process is gone. Changes nothing."""
    file = _unheld(running(instance) / run_id)
    if file is not None:
        file.close()
    return file is not None


def tell_dead_runs(instance: dg.DagsterInstance) -> None:
    """Clear dead runs away, and say so on the terminal."""
    for run in clear_dead_runs(instance):
        print(f"run {run.run_id[:8]} ({run.job_name}) was killed earlier: marked as failed")


def _unheld(path: Path) -> IO[bytes] | None:
    """A run's file, locked; None where its process lives, or there is none."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def _lock(folder: Path, run_id: str) -> IO[bytes]:
    """The run's file, locked. It gets its name last: one that is seen is never one without."""
    folder.mkdir(parents=True, exist_ok=True)
    unnamed = folder / f".{run_id}-{os.getpid()}"
    file = unnamed.open("wb")
    fcntl.flock(file, fcntl.LOCK_EX)
    unnamed.rename(folder / run_id)
    return file


class _Vouching(dg.Executor):
    """An executor in whose process the run's lock is held; everything else is the inner one's."""

    def __init__(self, inner: dg.Executor) -> None:
        self._inner = inner

    @property
    def retries(self) -> Any:
        return self._inner.retries

    @property
    def step_dependency_config(self) -> Any:
        return self._inner.step_dependency_config

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[Any]:
        instance, run_id = plan_context.instance, plan_context.run_id
        # Until the process ends, for the run's last event is written after those from here. The
        # file is taken away by the next look at dead runs, which finds this one finished.
        _HELD.append(_lock(running(instance), run_id))
        instance.add_run_tags(run_id, {PROCESS: process_name()})
        clear_dead_runs(instance)
        try:
            with ended_in_time():
                yield from self._inner.execute(plan_context, execution_plan)
        finally:
            free(instance, run_id)


_HELD: list[IO[bytes]] = []


# Takes a definition's schema too; its annotation names only what users write by hand.
_CONFIG: Any = dg.in_process_executor.config_schema


@dg.executor(name="in_process", config_schema=_CONFIG)
def one_process_executor(context: dg.InitExecutorContext) -> dg.Executor:
    """All steps in the run's process, so that the base is loaded once; a killed run is noticed."""
    make = dg.in_process_executor.executor_creation_fn
    assert make is not None
    return _Vouching(make(context))


def dead_runs_sensor() -> dg.SensorDefinition:
    """Clears dead runs away while the daemon lives."""

    @dg.sensor(
        name="dead_runs",
        description="Marks runs as failed whose process was killed, and frees their slots in the "
        "pools, so that what waits for them goes on.",
        minimum_interval_seconds=20,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def dead_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        dead = clear_dead_runs(context.instance)
        if not dead:
            return dg.SkipReason("every run that has begun is over, or has its process")
        return dg.SkipReason(f"cleared away: {', '.join(run.run_id[:8] for run in dead)}")

    return dead_runs
