"""landing_sensor: looks into the landing folder, and starts a run for what is complete.

It remembers what it saw only to see that a file is the same twice. What is new needs no memory: it
is what lies in the folder, since admitted and rejected files leave it. So no file is ever skipped
for its time or name, and a lost cursor costs one tick.
"""

import json
import time
from collections.abc import Callable

import dagster as dg

from im_assets.automation.runs import (
    TURN,
    going_on,
    in_vain,
    last_runs,
    pause_left,
)
from im_assets.automation.switch import sensor_status
from im_assets.landing.assets import targets
from im_assets.landing.folder import open_folder
from im_assets.landing.ledger import TABLE
from im_assets.landing.watching import settled
from im_resources.study import LandingSettings, Study, fingerprint

JOB = "data"
TAG = "landing/files"  # on a run: the fingerprint of the files that it was started for


def landing_sensor(
    study: Study, settings: LandingSettings, clock: Callable[[], float] = time.time
) -> dg.SensorDefinition:
    """The sensor of a study with a landing folder; ``clock``: seconds since the epoch."""

    @dg.sensor(
        name="landing_sensor",
        job_name=JOB,
        minimum_interval_seconds=settings.settle_seconds,
        default_status=sensor_status(study),
        description="Watches the landing folder: complete new files become part of their source's "
        "next version. They wait while a run is going on, and are then admitted together.",
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        arrivals = open_folder(settings.folder).look(targets(study)).arrivals
        ready = settled(arrivals, json.loads(context.cursor or "[]"))
        signatures = sorted(arrival.signature for arrival in ready)
        files = fingerprint(signatures)
        records = last_runs(context.instance, JOB)
        vain = in_vain(records, TAG, files)
        failed = bool(records) and records[0].dagster_run.status == dg.DagsterRunStatus.FAILURE
        cursor = json.dumps(sorted(arrival.signature for arrival in arrivals))
        if not ready and not failed:
            waiting = f"{len(arrivals)} files are not complete yet" if arrivals else "nothing there"
            return dg.SensorResult(skip_reason=waiting, cursor=cursor)
        what = f"{len(ready)} files are complete" if ready else f"the last run of {JOB} failed"
        if run := going_on(context.instance):
            reason = f"{what}, and wait for {run}" if ready else f"{what}; {run} is going on"
            return dg.SensorResult(skip_reason=reason, cursor=cursor)
        if seconds := pause_left(vain, clock()):
            return dg.SensorResult(
                skip_reason=f"{what}, after {len(vain)} runs in vain; the next starts in "
                f"{seconds:.0f} s. To try now, launch the job {JOB}",
                cursor=cursor,
            )
        # A run that has ended makes another key, so that nothing is skipped for having been tried;
        # a tick that is repeated makes the same one.
        last = records[0].dagster_run.run_id if records else ""
        request = dg.RunRequest(
            run_key=fingerprint(files, last),
            run_config={"ops": {TABLE: {"config": {"signatures": signatures}}}},
            tags={TAG: files, **TURN},
        )
        return dg.SensorResult(run_requests=[request], cursor=cursor)

    return sensor


def definitions(study: Study) -> dg.Definitions:
    """The sensor, where the profile names a landing folder."""
    if study.landing is None:
        return dg.Definitions()
    return dg.Definitions(sensors=[landing_sensor(study, study.landing)])
