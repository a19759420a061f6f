"""Dagster's side: pools and who holds them, the last runs, and what should be ticking."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import yaml

from im_assets.automation.failures import step_causes
from im_assets.automation.heartbeats import at, heartbeats, silent_daemons, silent_ticks
from im_assets.doctor.findings import Finding
from im_resources.runs import dead
from im_resources.study import Study
from im_resources.study.environment import STATE, HistoryError, check_history, in_a_new_shell

SHOWN = 5  # runs
PATIENCE = 300.0  # seconds that a heartbeat may be old


def location(study: Study, profile: str) -> tuple[dg.RepositoryDefinition | None, Finding]:
    """What Dagster loads of the study, if it can be loaded."""
    area = "code location"
    try:
        from im_assets.definitions import definitions

        found = definitions(study, profile).get_repository_def()
    except Exception as error:
        # Of whatever kind: a plugin is the user's own code.
        said = str(error).strip() or type(error).__name__
        return None, Finding("error", area, f"it does not load: {said}", "mend what it names")
    assets = len(found.asset_graph.get_all_asset_keys())
    return found, Finding(
        "ok", area, f"{assets} assets, {len(found.asset_graph.asset_check_keys)} checks"
    )


def history(study: Study, repository: dg.RepositoryDefinition | None) -> Iterator[Finding]:
    """Findings on the study's history; nothing is made where there is none."""
    area = "history"
    try:
        check_history(study)
    except HistoryError as error:
        yield Finding("error", area, str(error), "the line above")
        return
    folder = Path(os.environ[STATE])
    if on_disk() and not (folder / "history").is_dir():
        yield Finding("note", area, f"{folder} is not there yet: nothing has run")
        return
    try:
        with dg.DagsterInstance.get() as instance:
            yield from runs(instance)
            yield from pools(instance)
            if repository is not None:
                yield from ticking(instance, study, repository)
    except Exception as error:
        # Whatever a damaged or unreachable storage raises is what there is to be told.
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        yield Finding(
            "error",
            area,
            f"Dagster's history in {folder} cannot be read: {said}",
            "restore a backup, or move the folder away: results stay, the UI forgets past runs",
        )


def runs(instance: dg.DagsterInstance) -> Iterator[Finding]:
    """The last runs, and those that are on but cannot be."""
    area, records = "runs", instance.get_run_records(limit=SHOWN)
    if not records:
        yield Finding("note", area, "nothing has run yet")
    for record in records:
        run = record.dagster_run
        started = record.start_time
        when = f", started {at(started)}" if started else ""
        what = f"{run.run_id[:8]} {run.job_name}: {run.status.value}{when}"
        if run.status is dg.DagsterRunStatus.FAILURE:
            causes = step_causes(instance, run.run_id)
            cause = f"; {causes[0].splitlines()[0]}" if causes else ""
            yield Finding("note", area, what + cause, "mend the cause, and run the job again")
        else:
            yield Finding("ok", area, what)
    on = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING])
    for record in instance.get_run_records(on, limit=100):
        run = record.dagster_run
        if dead(instance, run.run_id):
            what = f"{run.run_id[:8]} {run.job_name} counts as running, but its process is gone"
            yield Finding("warning", area, what, "the next run marks it as failed; start one")


def pools(instance: dg.DagsterInstance) -> Iterator[Finding]:
    """Who holds the pools' slots and who waits for one."""
    storage = instance.event_log_storage
    if not storage.supports_global_concurrency_limits:
        return
    for key in sorted(storage.get_concurrency_keys()):
        info = storage.get_concurrency_info(key)
        free = info.slot_count - len(info.claimed_slots)
        waiting = f", {info.pending_step_count} steps wait" if info.pending_step_count else ""
        yield Finding("ok", "pools", f"{key}: {free} of {info.slot_count} slots free{waiting}")
        for slot in info.claimed_slots:
            run = instance.get_run_by_id(slot.run_id)
            whose = f"{key}: a slot is held by {slot.step_key} of run {slot.run_id[:8]}"
            if run is not None and not run.is_finished and not dead(instance, run.run_id):
                yield Finding("ok", "pools", f"{whose}, {run.status.value}")
                continue
            state = "which is no more" if run is None else f"which is over ({run.status.value})"
            if run is not None and not run.is_finished:
                state = "whose process is gone"
            yield Finding(
                "warning",
                "pools",
                f"{whose}, {state}",
                "the next run, or a running daemon, frees it within a minute",
            )


def ticking(
    instance: dg.DagsterInstance, study: Study, repository: dg.RepositoryDefinition
) -> Iterator[Finding]:
    """Daemons, sensors and schedules."""
    area, now = "automation", time.time()
    known = heartbeats(instance)
    if not any(known.values()):
        yield Finding(
            "note",
            area,
            "the daemon has never run: no sensor, schedule or backfill does",
            in_a_new_shell("make dev"),
        )
    elif silent := silent_daemons(instance, now, PATIENCE):
        told = "; ".join(f"{s.name}: {s.cause}" for s in silent)
        yield Finding(
            "warning",
            area,
            f"the daemon is not running, or not all of it ({told})",
            f"{in_a_new_shell('make dev')}, or start the service again; until then nothing is "
            "scheduled",
        )
    else:
        yield Finding("ok", area, f"the daemon is alive ({len(known)} kinds)")
    late = silent_ticks(instance, repository, now, PATIENCE)
    for silence in late:
        remedy = "its page in the UI shows the ticks; a running daemon is needed"
        yield Finding("warning", area, f"{silence.name}: {silence.cause}", remedy)
    on = [s.name for s in instance.all_instigator_state() if s.is_running]
    total = len(repository.sensor_defs) + len(repository.schedule_defs)
    if not late:
        names = f": {', '.join(sorted(on))}" if on else ""
        yield Finding("ok", area, f"{len(on)} of {total} sensors and schedules have ticked{names}")
    if study.alerts is not None and not os.environ.get(study.alerts.webhook):
        yield Finding(
            "warning",
            area,
            f"alerts are on, but {study.alerts.webhook} is not set here: nothing is posted",
            "export it with the webhook's address where the daemon and the code location run",
        )


def on_disk() -> bool:
    """Whether Dagster keeps its history in files (and not in a database elsewhere)."""
    try:
        config = yaml.safe_load(
            (Path(os.environ["DAGSTER_HOME"]) / "dagster.yaml").read_text(encoding="utf-8")
        )
    except (KeyError, OSError, yaml.YAMLError):
        return True
    return "postgres" not in (config.get("storage") or {})
