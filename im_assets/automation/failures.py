"""What has failed since the last look: runs, and asset checks, whose runs may have succeeded.

A failed check does not fail its run, and hooks of a job do not fire under automation
(https://github.com/dagster-io/dagster/issues/29896), so both are read from the event log, by the
ids under which it stores them and never by the time: nothing that comes late is skipped.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

import dagster as dg
from dagster import DagsterEventType, DagsterInstance, RunStatusChangeRecordsFilter
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

PAGE = 25  # failed evaluations of a check that are read at once, and remembered
RUNS = 100  # failed runs that are read at once
LONGEST = 600  # characters of a cause
FAILED = {AssetCheckExecutionRecordStatus.FAILED}


@dataclass(frozen=True)
class Alert:
    """One failure as it is told. ``id`` is the same whenever the same failure is told again."""

    id: str
    kind: str  # run failed, check failed, stopped, test
    title: str
    cause: str
    study: str
    run_id: str | None = None
    job: str | None = None
    asset: str | None = None
    check: str | None = None
    partition: str | None = None
    severity: str | None = None
    link: str | None = None

    def message(self) -> dict[str, Any]:
        """As a webhook takes it: ``text``, which Slack shows, and the same as fields."""
        fields = {name: value for name, value in asdict(self).items() if value is not None}
        # Escaped as Slack asks for: a cause that quotes data must not name people or links.
        text = escape(f"[{self.study}] {self.title}\n{self.cause}".strip(), quote=False)
        return {"text": f"{text}\n{self.link}" if self.link else text, "alert": fields}


def failed_runs(
    instance: DagsterInstance, after: int, study: str, ui: str
) -> Iterator[tuple[int, Alert]]:
    """(storage id, alert) of each run that failed after a storage id, oldest first."""
    records = instance.fetch_run_status_changes(
        RunStatusChangeRecordsFilter(DagsterEventType.RUN_FAILURE, after_storage_id=after),
        limit=RUNS,
        ascending=True,
    ).records
    for record in records:
        run_id = record.run_id
        run = instance.get_run_by_id(run_id)
        job = run.job_name if run else None
        message = record.event_log_entry.message or record.event_log_entry.user_message
        causes = step_causes(instance, run_id) or [message]
        yield (
            record.storage_id,
            Alert(
                id=f"run/{run_id}",
                kind="run failed",
                title=f"run of {job or 'a job'} failed",
                cause=shortened("\n".join(causes)),
                study=study,
                run_id=run_id,
                job=job,
                link=f"{ui}/runs/{run_id}",
            ),
        )


def last_failed_run(instance: DagsterInstance) -> int:
    """The storage id of the last run that failed; 0 where none has."""
    records = instance.fetch_run_status_changes(DagsterEventType.RUN_FAILURE, limit=1).records
    return records[0].storage_id if records else 0


def step_causes(instance: DagsterInstance, run_id: str) -> list[str]:
    """What each failed step of a run says, the innermost error of each."""
    connection = instance.get_records_for_run(run_id, of_type=DagsterEventType.STEP_FAILURE)
    causes = []
    for record in connection.records:
        event = record.event_log_entry.dagster_event
        if event is None:
            continue
        error = event.step_failure_data.error
        while error is not None and error.cause is not None:
            error = error.cause
        causes.append(f"{event.step_key}: {error.message.strip() if error else event.message}")
    return causes


def failed_checks(
    instance: DagsterInstance,
    keys: Iterable[dg.AssetCheckKey],
    known: Mapping[str, list[int]],
    study: str,
    ui: str,
) -> Iterator[tuple[str, int, Alert]]:
    """(check, id, alert) of each failed evaluation that is not known yet, oldest first.

    Args:
        known: the ids of failed evaluations that were told, by check; the newest ``PAGE`` of each.
    """
    for key in keys:
        name = key.to_user_string()
        for record in reversed(_unknown(instance, key, known.get(name, []))):
            event = record.event.dagster_event if record.event else None
            if event is None:
                continue
            found = event.asset_check_evaluation_data
            asset = key.asset_key.to_user_string()
            yield (
                name,
                record.id,
                Alert(
                    id=f"check/{name}/{record.id}",
                    kind="check failed",
                    title=f"check {key.name} of {asset} failed",
                    cause=shortened(found.description or ""),
                    study=study,
                    run_id=record.run_id or None,
                    asset=asset,
                    check=key.name,
                    partition=record.partition,
                    severity=found.severity.value,
                    link=f"{ui}/runs/{record.run_id}" if record.run_id else None,
                ),
            )


def _unknown(instance: DagsterInstance, key: dg.AssetCheckKey, known: list[int]) -> list[Any]:
    """The failed evaluations that are not known, newest first.

    An evaluation has its id since it was planned, so one with a lower id may end later: ids are
    compared one by one, and not with the highest.
    """
    oldest = min(known) if len(known) >= PAGE else 0
    unknown: list[Any] = []
    before = None
    while True:
        page = instance.event_log_storage.get_asset_check_execution_history(
            key, limit=PAGE, cursor=before, status=FAILED
        )
        new = [record for record in page if record.id not in known and record.id > oldest]
        unknown += new
        if len(new) < PAGE:
            return unknown
        before = page[-1].id


def shortened(text: str) -> str:
    """A cause, cut where it is longer than a message should be."""
    text = text.strip()
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
