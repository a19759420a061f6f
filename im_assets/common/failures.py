"""Why a run failed, in one line a step: what a reader of the last line wants to know."""

from typing import Any

import dagster as dg


def failures(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    """The cause of each failed step, by its key, in the order in which they failed.

    A step that a blocking check stopped is told with what the check found.
    """
    refused: dict[str, list[str]] = {}
    for event in result.filter_events(
        lambda event: event.event_type is dg.DagsterEventType.ASSET_CHECK_EVALUATION
    ):
        check = event.asset_check_evaluation_data
        if not check.passed and check.severity is dg.AssetCheckSeverity.ERROR:
            what = f"the check {check.check_name} of {check.asset_key.to_user_string()} failed"
            refused.setdefault(str(event.step_key), []).append(f"{what}: {check.description}")
    found = {}
    for event in result.filter_events(lambda event: event.is_step_failure):
        key, error = str(event.step_key), event.step_failure_data.error
        said = cause(error) if error else str(event.message)
        if key in refused and said.startswith("DagsterAssetCheckFailedError"):
            said = "; ".join(refused[key])
        if said.endswith("DagsterExecutionInterruptedError"):
            said = "interrupted"
        found[key] = " ".join(said.split())
    return found


def cause(error: Any) -> str:
    """The type and message of the exception that the step raised, without Dagster's around it.

    Where that one names another as its cause, it says in its own words what went wrong.
    """
    while error.cause is not None and str(error.cls_name).startswith("Dagster"):
        error = error.cause
    _, _, message = str(error.message).partition(": ")
    return f"{error.cls_name}: {message}" if message else str(error.message)
