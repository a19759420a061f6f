"""What has stopped ticking: daemons, sensors, schedules.

A watcher that runs inside the daemon cannot tell that the daemon is dead, so the same functions
serve the sensor ``alerts``, ``python -m im_assets.alerts --check-heartbeat`` for cron, and
``make doctor``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster import DagsterInstance

TICKS = 3  # a sensor may miss so many before it counts as silent


@dataclass(frozen=True)
class Silence:
    """Something that is overdue or fails at every tick; ``since``: seconds since the epoch."""

    name: str  # "sensor landing"
    since: float | None
    cause: str


def heartbeats(instance: DagsterInstance) -> dict[str, float | None]:
    """When each daemon that the instance needs was last alive, in seconds; None: never."""
    found = instance.get_daemon_heartbeats()
    return {
        kind: found[kind].timestamp if kind in found else None
        for kind in sorted(instance.get_required_daemon_types())
    }


def silent_daemons(instance: DagsterInstance, now: float, patience: float) -> list[Silence]:
    """The daemons that have been silent for longer than ``patience`` seconds.

    They are threads of one process: where all are silent, that is one silence.
    """
    known = heartbeats(instance)
    silent = {kind: t for kind, t in known.items() if t is None or now - t > patience}
    if silent and silent.keys() == known.keys():
        silent = {"": max((t for t in silent.values() if t is not None), default=None)}
    return [
        Silence(
            f"daemon {kind}".strip(),
            last,
            "has never run" if last is None else f"last alive {at(last)}",
        )
        for kind, last in silent.items()
    ]


def silent_ticks(
    instance: DagsterInstance, repository: dg.RepositoryDefinition, now: float, patience: float
) -> list[Silence]:
    """The sensors and schedules that are on, and are overdue or failed at their last tick.

    Only those that the code still has: Dagster remembers removed ones as running.
    """
    schedules = {schedule.name: schedule for schedule in repository.schedule_defs}
    kinds = {sensor.name: "sensor" for sensor in repository.sensor_defs}
    kinds |= dict.fromkeys(schedules, "schedule")
    found = []
    for state in instance.all_instigator_state():
        if not state.is_running or state.name not in kinds:
            continue
        name, data = f"{kinds[state.name]} {state.name}", state.instigator_data
        ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
        if ticks and ticks[0].status.value == "FAILURE":
            error = ticks[0].error
            cause = error.message.strip().splitlines()[-1] if error else "no reason is known"
            found.append(Silence(name, ticks[0].timestamp, f"its last tick failed: {cause}"))
            continue
        last = ticks[0].timestamp if ticks else None
        if state.name in schedules:
            started: float | None = getattr(data, "start_timestamp", None)
            due = last_due(schedules[state.name], now - patience)
            late = due is not None and max(last or 0, started or 0) < due
        else:
            started = getattr(data, "last_sensor_start_timestamp", None)
            interval = getattr(data, "min_interval", None) or 30
            seen = max(last or 0, started or 0)
            late = bool(seen) and now - seen > max(patience, TICKS * interval)
        if late:
            found.append(
                Silence(name, last, f"last tick {at(last)}" if last else "has never ticked")
            )
    return found


def last_due(schedule: dg.ScheduleDefinition, before: float) -> float | None:
    """When the schedule was last due before a time, in seconds; None where it never was."""
    crons = schedule.cron_schedule
    moment = datetime.fromtimestamp(before, UTC)
    windows = [
        dg.TimeWindowPartitionsDefinition(
            start=datetime(2000, 1, 1, tzinfo=UTC),
            fmt="%Y-%m-%d %H:%M",
            cron_schedule=cron,
            timezone=schedule.execution_timezone or "UTC",
        ).get_prev_partition_window(moment)
        for cron in ([crons] if isinstance(crons, str) else crons)
    ]
    return max((window.end.timestamp() for window in windows if window), default=None)


@dataclass(frozen=True)
class Watch:
    """What a watcher remembers from one look to the next: silences by name, and when it looked.

    ``first``: when each was first seen; ``told``: those that were posted.
    """

    first: Mapping[str, float]
    told: frozenset[str]
    looked: float

    @classmethod
    def of(cls, content: Any) -> "Watch":
        """From ``content()`` of an earlier one, or from None."""
        content = content or {}
        first = {str(name): float(when) for name, when in content.get("first", {}).items()}
        return cls(first, frozenset(content.get("told", ())), float(content.get("looked", 0)))

    def content(self) -> dict[str, Any]:
        """As JSON values."""
        return {"first": dict(self.first), "told": sorted(self.told), "looked": self.looked}

    def look(
        self, found: Sequence[Silence], now: float, patience: float
    ) -> tuple[list[Silence], "Watch"]:
        """What is due to be told, and the memory of this look (without what is about to be told).

        A silence is told once, when it has lasted over ``patience`` seconds of looking: after a
        night in which nothing ran, neither did the watcher, and everything gets time to tick. One
        that is over is forgotten.
        """
        rested = now - self.looked > patience
        first = {s.name: now if rested else self.first.get(s.name, now) for s in found}
        told = self.told & first.keys()
        due = [s for s in found if s.name not in told and now - first[s.name] >= patience]
        return due, Watch(first, told, now)

    def telling(self, name: str) -> "Watch":
        """The memory after it was told."""
        return Watch(self.first, self.told | {name}, self.looked)


def at(moment: float) -> str:
    """A time in words, in UTC."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
