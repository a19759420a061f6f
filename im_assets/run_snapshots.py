"""The tables of a lake as a run has left them."""

import os
from pathlib import Path

import dagster as dg

from im_assets.doctor.history import on_disk
from im_resources.lake_address import SNAPSHOT
from im_resources.study.environment import STATE
from im_resources.tables import WarehouseError


def snapshot_of_run(run_id: str) -> int:
    """The last snapshot that a run of this process's history has made.

    Args:
        run_id: or its beginning, as the UI shows it.

    Raises WarehouseError: no such run, or it has written to no lake.
    """
    # Opening a history makes one where there is none.
    if on_disk() and not (Path(os.environ[STATE]) / "history").is_dir():
        raise WarehouseError(f"there is no run {run_id}: nothing has run yet")
    with dg.DagsterInstance.get() as instance:
        whole = _whole(instance, run_id)
        made = [
            int(found.value)
            for entry in instance.all_logs(whole, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
            if (event := entry.get_dagster_event().step_materialization_data.materialization)
            if isinstance(found := event.metadata.get(SNAPSHOT), dg.IntMetadataValue)
            if found.value is not None
        ]
    if not made:
        raise WarehouseError(
            f"run {whole} has no snapshot: it materialized nothing, or wrote to a file and not to "
            "a lake"
        )
    return max(made)


def _whole(instance: dg.DagsterInstance, run_id: str) -> str:
    if run_id and instance.get_run_by_id(run_id) is not None:
        return run_id
    found = [run.run_id for run in instance.get_runs() if run_id and run.run_id.startswith(run_id)]
    if len(found) == 1:
        return found[0]
    raise WarehouseError(
        f"there are {len(found)} runs that begin with {run_id!r}: give more of it"
        if found
        else f"there is no run {run_id!r} in the history of this study"
    )
