"""What sensors ask of the study's runs: what is going on, and when to try again what failed."""

from collections.abc import Iterable, Sequence
from itertools import takewhile

import dagster as dg
from dagster import DagsterRunStatus, RunRecord, RunsFilter

GOING_ON = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]
# Runs with this tag wait for one another: dagster.yaml lets one of them go on at a time. So data
# does not land in the middle of a refit, however the ticks of the sensors fall.
TURN = {"automation": "one at a time"}
FIRST_PAUSE, LONGEST_PAUSE = 60.0, 3600.0  # seconds after a failure; doubled with each further one
REMEMBERED = 12  # more failures in a row make no longer pause


def going_on(instance: dg.DagsterInstance) -> str | None:
    """The run that has waited or worked longest, in words; None when there is none."""
    records = instance.get_run_records(
        RunsFilter(statuses=GOING_ON), limit=1, order_by="create_timestamp", ascending=True
    )
    return f"run {records[0].dagster_run.run_id[:8]} of {_job(records[0])}" if records else None


def last_runs(instance: dg.DagsterInstance, job: str) -> Sequence[RunRecord]:
    """The last runs of a job, the newest first."""
    return instance.get_run_records(
        RunsFilter(job_name=job), limit=REMEMBERED, order_by="create_timestamp", ascending=False
    )


def in_vain(records: Iterable[RunRecord], tag: str, value: str) -> list[RunRecord]:
    """The newest runs, as far as they failed, or changed nothing: the tag has the same value."""

    def vain(record: RunRecord) -> bool:
        run = record.dagster_run
        return run.status == DagsterRunStatus.FAILURE or run.tags.get(tag) == value

    return list(takewhile(vain, records))


def pause_left(vain: Sequence[RunRecord], now: float) -> float:
    """Seconds until the next try: a minute after the first in vain, doubled up to an hour.

    Nothing is given up: a full disk may have room again after the week-end.
    """
    if not vain:
        return 0.0
    ended = vain[0].end_time or vain[0].update_timestamp.timestamp()
    pause = min(FIRST_PAUSE * 2 ** (len(vain) - 1), LONGEST_PAUSE)
    return max(0.0, ended + pause - now)


def _job(record: RunRecord) -> str:
    """The job's name; runs of assets chosen in the UI have one of Dagster's own."""
    name = record.dagster_run.job_name
    return "chosen assets" if name.startswith("__") else name
