"""``python -m im_assets.run [job …]``: the whole study, into its own history, which the UI shows.

One run a job, in order: mixtures to selection, then each part of the evidence over its own
partitions. Names of jobs run these alone.
"""

import argparse
import os
import sys
import time

import dagster as dg

from im_assets.reporting.assets import FOLDER as REPORT_FOLDER
from im_assets.reporting.report import PAGE
from im_assets.rule.assets import RULE_FILE
from im_assets.selection.assets import selection_file
from im_resources.logs import FORMAT as LOG_FORMAT
from im_resources.study.environment import enter_study


def main() -> int:
    """Materialize the study in ``IM_PROFILE``; 1 if a step failed."""
    study = enter_study()
    from im_assets.definitions import defs  # reads the environment of the study
    from im_assets.mixtures.partitions import sync_study

    known = [job.name for job in defs.jobs or ()]
    parser = argparse.ArgumentParser(prog="python -m im_assets.run", description=__doc__)
    parser.add_argument("jobs", nargs="*", metavar="job", help=f"default: {', '.join(known)}")
    parser.add_argument(
        "--log-format",
        choices=["text", "json"],
        help="json: each event as a line, in the folder logs of the study",
    )
    arguments = parser.parse_args()
    if arguments.log_format:
        os.environ[LOG_FORMAT] = arguments.log_format
    chosen = arguments.jobs or known
    if unknown := [name for name in chosen if name not in known]:
        parser.error(f"no job {', '.join(unknown)}; this study has: {', '.join(known)}")
    size = study.mixtures.size
    print(f"study {study.name!r}: {len(study.mixtures.seed_numbers)} mixtures of {size} examples")
    start = time.monotonic()
    with dg.DagsterInstance.get() as instance:
        sync_study(instance, study)  # a range of partitions is of those that the instance knows
        # A job that fails (a rule that ranks nothing, a judge that cannot be reached) does not keep
        # the others from being reported on.
        failed = [name for name in chosen if not run_job(defs, name, instance)]
    seconds = time.monotonic() - start
    if failed:
        print(f"FAILED: {', '.join(failed)}; after {seconds:.0f} s")
        return 1
    print(f"done after {seconds:.0f} s")
    print(f"rule:      {study.folder / RULE_FILE}")
    for pool in study.pools:
        print(f"selection: {selection_file(study, pool)}")
    print(f"report:    {study.folder / REPORT_FOLDER / PAGE}")
    print(f"look at it with: make dev IM_PROFILE={os.environ['IM_PROFILE']}")
    return 0


def run_job(defs: dg.Definitions, name: str, instance: dg.DagsterInstance) -> bool:
    """Run one job over all its partitions, in one run; False when a step failed, which is told."""
    job = defs.resolve_job_def(name)
    partitions = job.partitions_def
    keys = (
        list(partitions.get_partition_keys(dynamic_partitions_store=instance)) if partitions else []
    )
    tags = (
        {
            "dagster/asset_partition_range_start": keys[0],
            "dagster/asset_partition_range_end": keys[-1],
        }
        if keys
        else {}
    )
    print(f"{name}:" + (f" {len(keys)} partitions" if keys else ""))
    result = job.execute_in_process(
        instance=instance,
        raise_on_error=False,
        run_config={"loggers": {"console": {"config": {"log_level": "WARNING"}}}},
        tags=tags,
    )
    for event in result.get_step_success_events():
        seconds = event.step_success_data.duration_ms / 1000
        print(f"  {event.step_key:<32} {seconds:8.1f} s", flush=True)
    for event in result.filter_events(lambda e: e.is_step_failure):
        print(f"{event.step_key}: {event.message}", file=sys.stderr)
    return result.success


if __name__ == "__main__":
    sys.exit(main())
