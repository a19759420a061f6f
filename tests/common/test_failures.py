"""The one line that says why a step failed."""

import dagster as dg

from im_assets.common.failures import failures

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dg.asset
def broken() -> int:
    try:
        return int("not a number")
    except ValueError as error:
        raise RuntimeError("row 3 has no number;\n  mend the file") from error


@dg.asset
def fine() -> int:
    return 1


@dg.asset_check(asset=fine, blocking=True)
def large_enough() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=False, description="1 is below 2: raise it")


@dg.asset_check(asset=fine)
def odd() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=False, severity=dg.AssetCheckSeverity.WARN, description="only a warning"
    )


def run() -> dict[str, str]:
    job = dg.define_asset_job("all", selection=dg.AssetSelection.all())
    loaded = dg.Definitions([broken, fine], asset_checks=[large_enough, odd], jobs=[job])
    with dg.DagsterInstance.ephemeral() as instance:
        done = loaded.resolve_job_def("all").execute_in_process(
            instance=instance, raise_on_error=False, run_config=QUIET
        )
    return failures(done)


def test_a_step_is_told_with_the_exception_that_it_raised() -> None:
    assert run()["broken"] == "RuntimeError: row 3 has no number; mend the file"


def test_a_failed_blocking_check_is_told_with_what_it_found() -> None:
    told = run()
    assert told["fine_large_enough"] == (
        "the check large_enough of fine failed: 1 is below 2: raise it"
    )
    assert told.keys() == {"broken", "fine_large_enough"}
