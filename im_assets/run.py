"""``python -m im_assets.run [job …]``: the whole study, into its own history, which the UI shows.

With ``--plan`` only what it would compute is told.

One run a job, in order: mixtures to selection, then each part of the evidence over its own
partitions. Names of jobs run these alone.
"""

import argparse
import errno
import json
import os
import sys
import time
import uuid
from sqlite3 import OperationalError

import dagster as dg

from im_assets.common.failures import failures
from im_assets.common.partitions import range_tags
from im_assets.common.steps import LOGGER, Steps, telling, told
from im_assets.reporting.assets import FOLDER as REPORT_FOLDER
from im_assets.reporting.report import PAGE
from im_assets.rule.document import RULE_FILE
from im_assets.selection.assets import selection_file
from im_resources.deployment import load_deployment
from im_resources.interrupts import Interrupts
from im_resources.logs import FORMAT as LOG_FORMAT
from im_resources.runs import PROCESS, held, process_name, tell_dead_runs
from im_resources.study import Study
from im_resources.study.environment import enter_study, in_a_new_shell
from im_resources.study.places import DEPLOYMENT

DATA = "data"
AGAIN = "what was finished is kept: run the same command again to go on"


def main() -> int:
    """Materialize the study in ``IM_PROFILE``; 1 if a step failed, 128 + n on signal n."""
    plan = "--plan" in sys.argv[1:]
    if plan:  # read once, when the hub's client is imported: a plan downloads nothing
        os.environ["HF_HUB_OFFLINE"] = "1"
    study = enter_study(make=not plan)
    with Interrupts() as interrupts:
        try:
            return run_study(study, interrupts)
        except KeyboardInterrupt:
            interrupts.came()
        except Exception as error:
            if (reason := unwritable(error)) is None:
                raise
            raise SystemExit(
                f"the history {study.history} cannot be written ({reason}): make room there; "
                f"{AGAIN}"
            ) from error
    print(f"INTERRUPTED; {AGAIN}", file=sys.stderr)
    return interrupts.code


def run_study(study: Study, interrupts: Interrupts) -> int:
    """Run the jobs that the command line names. Raises KeyboardInterrupt after a signal."""
    from im_assets.definitions import defs  # reads the environment of the study
    from im_assets.mixtures.partitions import sync_study
    from im_assets.planning.command import probe_first

    known = [job.name for job in defs.jobs or ()]
    parser = argparse.ArgumentParser(prog="python -m im_assets.run", description=__doc__)
    parser.add_argument("jobs", nargs="*", metavar="job", help=f"default: {', '.join(known)}")
    parser.add_argument(
        "--log-format",
        choices=["text", "json"],
        help="json: each event as a line, in the folder logs of the study",
    )
    parser.add_argument(
        "--plan",
        action="store_true",
        help="only say what a run would compute, what is there, and how long it takes",
    )
    parser.add_argument("--json", action="store_true", help="the plan as JSON, for other programs")
    parser.add_argument(
        "--deployment",
        metavar="NAME|FILE",
        help="with --plan: also what it takes there (docs/scale.md); default: $IM_DEPLOYMENT, "
        "where that is set",
    )
    arguments = parser.parse_args()
    if arguments.plan:
        return tell_plan(study, arguments.json, arguments.deployment)
    if arguments.json or arguments.deployment:
        parser.error(f"--{'json' if arguments.json else 'deployment'} goes with --plan")
    if arguments.log_format:
        os.environ[LOG_FORMAT] = arguments.log_format
    chosen = arguments.jobs or known
    if unknown := [name for name in chosen if name not in known]:
        parser.error(f"no job {', '.join(unknown)}; this study has: {', '.join(known)}")
    size = study.mixtures.size
    what = f"{len(study.mixtures.seed_numbers)} mixtures of {size} examples"
    if study.fits_nothing:
        ready = f"in {study.rule.path}" if study.rule.path else study.rule.source
        what = f"the rule {ready}, applied to {', '.join(study.pools)}"
    if study.runs is not None:
        what = f"a rule of the runs in {study.runs.path}, applied to {', '.join(study.pools)}"
    print(f"study {study.name!r}: {what}")
    start = time.monotonic()
    failed = {}
    with dg.DagsterInstance.get() as instance:
        tell_dead_runs(instance)
        sync_study(instance, study)  # a range of partitions is of those that the instance knows
        if not arguments.jobs and not _others_run(instance) and (said := probe_first(study)):
            print(said)
        # A job that fails (a rule that ranks nothing, a judge that cannot be reached) does not keep
        # the others from being reported on.
        for name in chosen:
            reason = run_job(defs, name, instance, Steps())
            if interrupts.came():
                raise KeyboardInterrupt
            if reason is not None:
                failed[name] = reason
                if name == DATA:
                    break  # everything else is made from the data
    seconds = time.monotonic() - start
    if failed:
        print(f"FAILED after {seconds:.0f} s; {AGAIN}", file=sys.stderr)
        for name, reason in failed.items():
            print(f"FAILED: {name}: {reason}", file=sys.stderr)
        return 1
    print(f"done after {seconds:.0f} s")
    made = [("rule", study.folder / RULE_FILE)]
    made += [("selection", selection_file(study, pool)) for pool in study.pools]
    made += [("report", study.folder / REPORT_FOLDER / PAGE)]
    for what, path in made:
        if path.exists():  # some jobs alone do not make all of them
            print(f"{what + ':':<10} {path}")
    print(f"look at it with: {in_a_new_shell('make dev')}")
    return 0


def _others_run(instance: dg.DagsterInstance) -> bool:
    """Whether a run of this study is on, which may hold the GPU."""
    on = dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED])
    return bool(instance.get_run_records(on, limit=1))


def tell_plan(study: Study, as_values: bool, place: str | None = None) -> int:
    """Print what a run would compute, and what it takes in the deployment ``place`` (default:
    that of this process, where it has one). Changes nothing, but that a probe is kept."""
    from im_assets.planning import telling as words
    from im_assets.planning.command import plan_now
    from im_assets.planning.scale import deployed as there

    try:
        asked = place or os.environ.get(DEPLOYMENT)
        deployment = load_deployment(asked) if asked else None  # before anything is measured
        with telling():
            plan = plan_now(study)
        found = there.deployed(plan, study, deployment) if deployment else None
    except (ValueError, RuntimeError) as error:
        raise SystemExit(f"no plan can be made: {error}") from error
    if as_values:
        more = {} if found is None else {"deployment": there.values(found)}
        print(json.dumps(words.values(plan) | more, ensure_ascii=False, indent=1))
        return 0
    print(words.text(plan))
    if found is not None:
        print(there.text(found))
    return 0


def run_job(
    defs: dg.Definitions, name: str, instance: dg.DagsterInstance, steps: Steps
) -> str | None:
    """Run one job over all its partitions, in one run; why it failed, or None.

    Tells of each step as it ends, and the cause of each that failed.
    """
    with told(steps) as logger:
        loggers = {"console": dg.colored_console_logger, LOGGER: logger}
        job = dg.Definitions.merge(defs, dg.Definitions(loggers=loggers)).resolve_job_def(name)
        result = _run(job, name, instance)
    causes = [f"{step}: {cause}" for step, cause in failures(result).items()]
    for line in causes:
        print(line, file=sys.stderr)
    return None if result.success else (causes or ["the run ended early"])[0]


def _run(
    job: dg.JobDefinition, name: str, instance: dg.DagsterInstance
) -> dg.ExecuteInProcessResult:
    partitions = job.partitions_def
    keys = (
        list(partitions.get_partition_keys(dynamic_partitions_store=instance)) if partitions else []
    )
    tags = {PROCESS: process_name(), **range_tags(keys)}
    print(f"{name}:" + (f" {len(keys)} partitions" if keys else ""), flush=True)
    run_id = str(uuid.uuid4())
    with held(instance, run_id):
        return job.execute_in_process(
            instance=instance,
            run_id=run_id,
            raise_on_error=False,
            run_config={
                "loggers": {"console": {"config": {"log_level": "WARNING"}}, LOGGER: {}},
            },
            tags=tags,
        )


def unwritable(error: BaseException | None) -> str | None:
    """What SQLite or the system said where a file cannot be written; None for any other error."""
    full = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
    while error is not None:
        if isinstance(error, OperationalError) or getattr(error, "errno", None) in full:
            return str(error)
        error = error.__cause__ or error.__context__
    return None


if __name__ == "__main__":
    sys.exit(main())
