"""Partitions of a run: the range it is over, and those that a step made before others failed."""

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg
import pandas as pd

from im_resources.warehouse import Warehouse

DATA_VERSION = "dagster/data_version"


def range_tags(keys: Sequence[str]) -> dict[str, str]:
    """The tags of one run over all partitions from the first of ``keys`` to the last; none: none.

    What lies between goes by the order that the partitions' definition has.
    """
    if not keys:
        return {}
    return {
        "dagster/asset_partition_range_start": keys[0],
        "dagster/asset_partition_range_end": keys[-1],
    }


def record_partitions(
    context: dg.AssetExecutionContext,
    warehouse: Warehouse,
    frame: pd.DataFrame,
    column: str,
    version: str,
    metadata: Mapping[str, Mapping[str, Any]],
) -> None:
    """Write the rows of the partitions that were made, and tell the catalog of each.

    A step over several partitions records all of them or none, when it returns
    (https://github.com/dagster-io/dagster/issues/21072): one that raises has to do it itself.

    Args:
        frame: the rows, with the partition key in ``column``.
        version: their data version.
        metadata: of each partition that was made, by its key.
    """
    if not len(frame):
        return
    table = context.asset_key.to_python_identifier()
    frame = frame.sort_values(column, kind="stable", ignore_index=True)  # whoever was done first
    warehouse.replace_rows(table, frame, {column: list(metadata)})
    for key, facts in metadata.items():
        context.log_event(
            dg.AssetMaterialization(
                context.asset_key, partition=key, metadata=dict(facts), tags={DATA_VERSION: version}
            )
        )
