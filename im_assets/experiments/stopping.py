"""What the assets of an experiment hold that is not made: nothing, and in the catalog why.

An experiment may have a gate: an asset that says, once what comes before it is measured, whether it
is made at all (rounds). Where it is not, its partitions are made all the same, without rows: a
finished step and no error, and no point.
"""

from collections.abc import Mapping, Sequence

import dagster as dg
import numpy as np
import pandas as pd

from im_assets.common.presentation import table
from im_assets.experiments.experiment import GOES_ON, WHY, Experiment, some
from im_assets.experiments.lineage import LineageError
from im_resources.study import fingerprint

Columns = Mapping[str, tuple[str, str]]
_DTYPES = {"bigint": "int64", "double": "float64", "boolean": "bool"}


def gate_of(experiment: Experiment) -> dict[str, dg.AssetIn]:
    """The gate as an input of an asset; none of an experiment without one."""
    return {} if experiment.gate is None else {experiment.gate: dg.AssetIn(experiment.gate)}


def rows_of(experiment: Experiment, asset: str) -> dg.AssetIn:
    """An asset of the experiment as input of another, which may find no rows behind a gate."""
    return dg.AssetIn(asset, metadata={"allow_missing_partitions": experiment.gate is not None})


def nothing(
    context: dg.AssetExecutionContext,
    experiment: Experiment,
    gate: Mapping[str, pd.DataFrame],
    columns: Columns,
) -> dg.Output[pd.DataFrame] | None:
    """What an asset gives of an experiment that is stopped; None where it goes on.

    Args:
        gate: tables by name, with that of the gate where there is one.
        columns: of the asset, beside the partition key.
    """
    why = stopped_by(experiment, gate)
    if why is None:
        return None
    for key in context.partition_keys:
        context.add_asset_metadata({"stopped": why}, partition_key=key)
    context.log.info(f"nothing is made: {why}")
    whole = {experiment.column: ("text", "Partition key"), **columns}
    return table(empty(whole), version=fingerprint("stopped", why))


def stopped_by(experiment: Experiment, gate: Mapping[str, pd.DataFrame]) -> str | None:
    """Why the experiment is not made; None where it is."""
    if experiment.gate is None or bool(gate[experiment.gate][GOES_ON].all()):
        return None
    return str(gate[experiment.gate][WHY].iloc[0])


def require_rows(
    frame: pd.DataFrame, experiment: Experiment, asset: str, keys: Sequence[str]
) -> None:
    """Refuse partitions without rows, which the input of an experiment with a gate lets through.

    Raises LineageError with their keys.
    """
    found = set(frame[experiment.column].astype(str))
    if missing := [key for key in keys if key not in found]:
        raise LineageError(
            f"{asset} has no rows for {some(missing)}; materialize {asset} for them first"
        )


def empty(columns: Columns) -> pd.DataFrame:
    """A table without rows, its columns of the types that the catalog names."""
    return pd.DataFrame(
        {
            name: pd.Series(dtype=np.dtype(_DTYPES[kind]) if kind in _DTYPES else "string")
            for name, (kind, _) in columns.items()
        }
    )
