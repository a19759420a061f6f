"""refit_sensor and refit_schedule: the rule follows the data.

A refit is the job ``study`` over all mixtures: what was trained, scored or measured before is
found, not made again. It is due when the rule's tables were made from another content than the data
has now. The catalog tells, where every table carries the versions of what it was made from. So a
pool that was written again with the same rows is no reason, and several landings are one.
"""

import time
from collections.abc import Callable, Mapping

import dagster as dg

from im_assets.automation.runs import (
    TURN,
    going_on,
    in_vain,
    last_runs,
    pause_left,
)
from im_assets.automation.switch import schedule_status, sensor_status
from im_assets.common.partitions import range_tags
from im_assets.mixtures.experiment import SERIES
from im_assets.own_runs import RUNS
from im_resources.study import Study, fingerprint

JOB = "study"
TAG = "refit/data"  # on a run: the fingerprint of the data that it was started for
# How Dagster records versions on a materialization.
VERSION, MADE_FROM = "dagster/data_version", "dagster/input_data_version/"


def changed_since_fit(instance: dg.DagsterInstance, study: Study) -> dict[str, str]:
    """The data that is not what the rule, or the selections, were made from: asset → its version.

    Empty also when there is no rule yet: the first fit is started by hand.
    """
    if not _tags(instance, "quality_rule"):
        return {}
    fitted = {
        "quality_rule": (SERIES,),
        "indicator_table": ("candidate_datasets", "eval_set"),
    }
    of_runs = {"indicator_table": (RUNS,)}
    made_from = {
        **({} if study.trains_nothing else fitted),
        **({} if study.runs is None else of_runs),
        **{f"{pool}_scores": (f"{pool}_dataset",) for pool in study.pools},
    }
    found = {}
    for child, parents in made_from.items():
        made = _tags(instance, child)
        for parent in parents:
            version = _tags(instance, parent).get(VERSION)
            if made and version is not None and made.get(MADE_FROM + parent) != version:
                found[parent] = version
    return found


def refit_sensor(study: Study, clock: Callable[[], float] = time.time) -> dg.SensorDefinition:
    """The sensor that refits as soon as it is due, or tries again what the schedule started."""

    @dg.sensor(
        name="refit_sensor",
        job_name=JOB,
        minimum_interval_seconds=30,
        default_status=sensor_status(study),
        description="Refits the rule when the data is ahead of it, once for all that has landed; "
        "with a ready rule, scores and selects anew. With `refit.cron` it only tries again a refit "
        "that failed.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        changed = changed_since_fit(context.instance, study)
        records = last_runs(context.instance, JOB)
        newest = records[0].dagster_run if records else None
        failed = (
            newest is not None
            and newest.status == dg.DagsterRunStatus.FAILURE
            and TAG in newest.tags
        )
        if not changed and not failed:
            return dg.SkipReason("the rule is fitted on the data as it is, or not fitted yet")
        what = f"{', '.join(sorted(changed))} changed" if changed else "the last refit failed"
        if study.refit.cron is not None and not failed:
            return dg.SkipReason(f"{what}: the next refit is at {_when(study)}")
        if run := going_on(context.instance):
            return dg.SkipReason(f"{what}, and waits for {run}")
        if seconds := pause_left(in_vain(records, TAG, fingerprint(changed)), clock()):
            return dg.SkipReason(
                f"{what}, after refits in vain; the next starts in {seconds:.0f} s. To try now, "
                f"launch the job {JOB} over all partitions"
            )
        last = newest.run_id if newest is not None else ""
        return _refit(context.instance, study, changed, fingerprint(changed, last))

    return sensor


def refit_schedule(study: Study, cron: str) -> dg.ScheduleDefinition:
    """The schedule that refits when it is due. Raises ValueError for what is no cron expression."""
    try:

        @dg.schedule(
            cron,
            name="refit_schedule",
            job_name=JOB,
            execution_timezone=study.refit.timezone,
            default_status=schedule_status(study),
            description=f"Refits the rule at {_when(study)}, if the data is ahead of it.",
        )
        def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
            changed = changed_since_fit(context.instance, study)
            if not changed:
                return dg.SkipReason("the rule is fitted on the data as it is, or not fitted yet")
            return _refit(context.instance, study, changed, None)

    except dg.DagsterInvalidDefinitionError as error:
        raise ValueError(
            f"refit.cron: {cron!r} is no cron expression of five fields, such as '0 3 * * 0'"
        ) from error
    return schedule


def _refit(
    instance: dg.DagsterInstance, study: Study, changed: Mapping[str, str], run_key: str | None
) -> dg.RunRequest | dg.SkipReason:
    """One run over all mixtures; where nothing is finetuned, without partitions."""
    keys = () if study.trains_nothing else instance.get_dynamic_partitions(SERIES)
    if not keys and not study.trains_nothing:
        return dg.SkipReason("no mixtures are known: materialize mixture_seeds")
    return dg.RunRequest(
        run_key=run_key,
        tags={
            **range_tags(keys),
            TAG: fingerprint(changed),
            **TURN,
        },
    )


def _tags(instance: dg.DagsterInstance, asset: str) -> Mapping[str, str]:
    """The versions of an asset's last materialization; none where there is none."""
    event = instance.get_latest_materialization_event(dg.AssetKey(asset))
    materialization = event.asset_materialization if event else None
    return materialization.tags or {} if materialization else {}


def _when(study: Study) -> str:
    return f"`{study.refit.cron}`, {study.refit.timezone}"


def definitions(study: Study) -> dg.Definitions:
    """The sensors, and the schedule where the profile has a cron expression."""
    cron = study.refit.cron
    return dg.Definitions(
        sensors=[refit_sensor(study)],
        schedules=[] if cron is None else [refit_schedule(study, cron)],
    )
