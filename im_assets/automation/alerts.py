"""The sensor ``alerts``: failed runs, failed checks and silent sensors, posted to a webhook.

Each failure is posted once, in order. A webhook that does not answer ends the tick within seconds:
what it did not take waits in the cursor, and is posted when it answers again.
"""

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster import DagsterInstance

from im_assets.automation.failures import (
    PAGE,
    Alert,
    failed_checks,
    failed_runs,
    last_failed_run,
)
from im_assets.automation.heartbeats import Silence, Watch, silent_daemons, silent_ticks
from im_resources.study import AlertSettings, Study
from im_resources.webhook import Webhook, WebhookError

NAME = "alerts"
INTERVAL = 30  # seconds between two looks
BUDGET = 20.0  # seconds after which a tick posts nothing more: the daemon has others to evaluate


class AlertError(RuntimeError):
    """Alerts cannot be posted; says what is not set."""


@dataclass
class Cursor:
    """What was told: the last failed run, failed evaluations by check, and silences."""

    run: int
    checks: dict[str, list[int]]
    watch: Watch

    @classmethod
    def read(cls, text: str) -> "Cursor":
        content = json.loads(text)
        return cls(content["run"], content["checks"], Watch.of(content["watch"]))

    def text(self) -> str:
        content = {"run": self.run, "checks": self.checks, "watch": self.watch.content()}
        return json.dumps(content, sort_keys=True)

    def told(self, check: str, evaluation: int) -> None:
        """A failed evaluation was told; the newest ones of each check are remembered."""
        self.checks[check] = sorted([*self.checks.get(check, []), evaluation])[-PAGE:]


def definitions(study: Study) -> dg.Definitions:
    """The sensor, where the profile has the block ``alerts``."""
    return dg.Definitions(sensors=[alerts_sensor(study)] if study.alerts else [])


def webhook_of(settings: AlertSettings) -> Webhook:
    """The webhook in the environment.

    Raises AlertError when the variable is not set, WebhookError when it holds no address.
    """
    url = os.environ.get(settings.webhook)
    if not url:
        raise AlertError(
            f"the environment variable {settings.webhook} (alerts.webhook), with the address that "
            "alerts are posted to, is not set"
        )
    return Webhook(url, settings.timeout)


def alerts_sensor(study: Study) -> dg.SensorDefinition:
    """The sensor; it is on from the start."""
    settings = study.alerts
    assert settings is not None

    @dg.sensor(
        name=NAME,
        minimum_interval_seconds=INTERVAL,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Posts failed runs, failed asset checks (their runs may have succeeded) and "
        "sensors, schedules or daemons that stopped ticking to the webhook whose address is in "
        f"${settings.webhook}.",
    )
    def alerts(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        repository = context.repository_def
        assert repository is not None
        keys = sorted(repository.asset_graph.asset_check_keys, key=str)
        if context.cursor is None:
            # What failed before anybody watched is history.
            context.update_cursor(_from_now_on(context.instance, keys, study.name).text())
            return dg.SkipReason("watches from now on")
        try:
            webhook = webhook_of(settings)
        except (AlertError, WebhookError) as error:
            return dg.SkipReason(f"{error}; nothing is posted")
        cursor = Cursor.read(context.cursor)
        now, patience = time.time(), 60.0 * settings.silence_minutes
        silent = [
            *silent_daemons(context.instance, now, patience),
            *silent_ticks(context.instance, repository, now, patience),
        ]
        silent = [s for s in silent if s.name != f"sensor {NAME}"]
        due, cursor.watch = cursor.watch.look(silent, now, patience)
        try:
            posted, problem = _post_all(
                _news(context.instance, keys, due, cursor, study), webhook, context.log.error
            )
        finally:
            context.update_cursor(cursor.text())
        return dg.SkipReason(f"{posted} alerts posted" + (f"; {problem}" if problem else ""))

    return alerts


def stopped(silence: Silence, study: Study) -> Alert:
    """A silence as it is told."""
    return Alert(
        id=f"stopped/{silence.name}/{silence.since or 0:.0f}",
        kind="stopped",
        title=f"{silence.name} does not work",
        cause=f"{silence.cause}; `make doctor` says more",
        study=study.name,
        link=f"{study.alerts.ui}/deployment/daemons" if study.alerts else None,
    )


News = tuple[Alert | None, Callable[[], None]]  # and what to remember once it was told


def _news(
    instance: DagsterInstance,
    keys: list[dg.AssetCheckKey],
    due: list[Silence],
    cursor: Cursor,
    study: Study,
) -> Iterator[News]:
    """What to tell, in order; an alert of None is only to be remembered."""
    settings = study.alerts
    assert settings is not None

    for silence in due:

        def told(name: str = silence.name) -> None:
            cursor.watch = cursor.watch.telling(name)

        yield stopped(silence, study), told
    for storage_id, alert in failed_runs(instance, cursor.run, study.name, settings.ui):

        def passed(storage_id: int = storage_id) -> None:
            cursor.run = storage_id

        yield alert, passed
    known = {name: list(ids) for name, ids in cursor.checks.items()}
    for name, evaluation, alert in failed_checks(instance, keys, known, study.name, settings.ui):

        def seen(name: str = name, evaluation: int = evaluation) -> None:
            cursor.told(name, evaluation)

        wanted = settings.severity == "WARN" or alert.severity == "ERROR"
        yield (alert if wanted else None), seen


def _post_all(
    news: Iterator[News], webhook: Webhook, log: Callable[[str], Any]
) -> tuple[int, str | None]:
    """Post in order until the webhook fails or the time is up; how many, and why no more."""
    start, posted = time.monotonic(), 0
    for alert, told in news:
        if alert is not None:
            if time.monotonic() - start > BUDGET:
                return posted, f"more wait, after {BUDGET:.0f} s"
            try:
                webhook.post(alert.message())
                posted += 1
            except WebhookError as error:
                if error.passing:
                    return posted, f"{error}; what was not posted waits for the next tick"
                # Refused as it is, for ever: it must not keep the others from being posted.
                log(f"{error}; not posted: {alert.title} ({alert.id})")
        told()
    return posted, None


def _from_now_on(instance: DagsterInstance, keys: list[dg.AssetCheckKey], study: str) -> Cursor:
    cursor = Cursor(last_failed_run(instance), {}, Watch.of(None))
    known: Mapping[str, list[int]] = {}
    for name, evaluation, _ in failed_checks(instance, keys, known, study, ""):
        cursor.told(name, evaluation)
    return cursor
