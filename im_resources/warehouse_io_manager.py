"""Assets as tables of the warehouse: dagster-duckdb's IO manager, with our client and handler.

The stock one commits its delete apart from its insert, so a failure in between loses the partition
(https://github.com/dagster-io/dagster/issues/14091), inserts by position, and gives up on a file in
use after ten tries and 102 s. Here all writing is left to Warehouse.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd

# The only private names of Dagster's in the platform. dagster-duckdb exports its manager to be
# built upon, but not the three classes that it is made of, nor what it hands to them.
# tests/resources/test_warehouse_io_manager.py fails when these move.
from dagster._core.storage.db_io_manager import DbClient, DbIOManager, DbTypeHandler, TableSlice
from dagster_duckdb import DuckDBIOManager

from im_resources.lake_address import NAME, SNAPSHOT, LakeAddress
from im_resources.spooled import Spooled
from im_resources.tables import SCHEMA, MissingTableError, WarehouseError, qualified
from im_resources.warehouse import Warehouse


class _Client(DbClient[Warehouse]):
    """Hands the Warehouse to the type handler; creating and deleting belong to its one write."""

    @staticmethod
    @contextmanager
    def connect(
        context: dg.OutputContext | dg.InputContext, table_slice: TableSlice
    ) -> Iterator[Warehouse]:
        config: Any = context.resource_config
        yield Warehouse(config["database"], config["connection_config"])

    @staticmethod
    def ensure_schema_exists(
        context: dg.OutputContext, table_slice: TableSlice, connection: Warehouse
    ) -> None: ...

    @staticmethod
    def delete_table_slice(
        context: dg.OutputContext, table_slice: TableSlice, connection: Warehouse
    ) -> None: ...

    @staticmethod
    def get_select_statement(table_slice: TableSlice) -> str:
        return f"SELECT * FROM {qualified(table_slice.table)}"

    @staticmethod
    def get_table_name(table_slice: TableSlice) -> str:
        database = table_slice.database or ""
        name = NAME if LakeAddress.parse(database) else Path(database).stem
        return f"{name}.{SCHEMA}.{table_slice.table}"


class _FrameHandler(DbTypeHandler[pd.DataFrame]):
    """pandas frames to and from partitions of a table."""

    @property
    def supported_types(self) -> Sequence[type[object]]:
        return [pd.DataFrame]

    def handle_output(
        self,
        context: dg.OutputContext,
        table_slice: TableSlice,
        obj: pd.DataFrame,
        connection: Warehouse,
    ) -> dict[str, Any]:
        table, column = table_slice.table, _partition_column(table_slice)
        if column is None:
            connection.replace_table(table, obj)
            return {"dagster/row_count": len(obj), **_made(connection)}
        if column not in obj:
            raise WarehouseError(f"asset {table!r}: its rows have no partition column {column!r}")
        keys = list(context.asset_partition_keys)
        connection.replace_rows(table, obj, {column: keys})
        total = connection.query(f"SELECT count(*) AS total FROM {qualified(table)}")
        counts = {"dagster/row_count": int(total["total"].iloc[0]), **_made(connection)}
        return counts if len(keys) > 1 else {**counts, "dagster/partition_row_count": len(obj)}

    def load_input(
        self, context: dg.InputContext, table_slice: TableSlice, connection: Warehouse
    ) -> pd.DataFrame:
        table, columns = table_slice.table, table_slice.columns
        column = _partition_column(table_slice)
        keys = [] if column is None else list(context.asset_partition_keys)
        wanted = columns
        if columns is not None and column is not None:
            wanted = list(dict.fromkeys([*columns, column]))
        try:
            rows = {} if column is None else {column: keys}
            asked = context.definition_metadata or {}
            categories, without = asked.get("categories", False), asked.get("without", ())
            frame = connection.read_table(table, wanted, rows, categories, without)
        except MissingTableError:
            raise WarehouseError(
                f"asset {table!r} is not in the warehouse {connection.name}: materialize it first"
            ) from None
        if column is None:
            return frame
        missing = sorted(set(keys) - set(frame[column]))
        if missing and not _may_miss(context):
            raise WarehouseError(
                f"asset {table!r} has no rows for the partitions {missing}: materialize them "
                "first, or set allow_missing_partitions in the input's metadata"
            )
        # By key, so that no result depends on which was written last; Dagster's order is a set's.
        frame = frame.sort_values(column, kind="stable", ignore_index=True)
        return frame if columns is None else frame[list(columns)]


def _made(warehouse: Warehouse) -> dict[str, int]:
    """The snapshot that a write to a lake has made, or found where it changed nothing."""
    made = warehouse.written if warehouse.written is not None else warehouse.snapshot()
    return {} if made is None else {SNAPSHOT: made}


def _partition_column(table_slice: TableSlice) -> str | None:
    dimensions = table_slice.partition_dimensions or []
    if len(dimensions) > 1:
        raise WarehouseError(f"asset {table_slice.table!r}: only one partition dimension is stored")
    return dimensions[0].partition_expr if dimensions else None


def _may_miss(context: dg.InputContext) -> bool:
    """An input may ask for it; an unpartitioned asset reads the partitions that there are."""
    try:
        fan_in = context.step_context.entity_partitions_def is None
    except dg.DagsterInvariantViolationError:  # a value loaded outside a run
        fan_in = False
    return bool((context.definition_metadata or {}).get("allow_missing_partitions", fan_in))


class _SpooledHandler(DbTypeHandler[Spooled]):
    """Rows in files to a whole table; it is read as a frame, or by SQL."""

    @property
    def supported_types(self) -> Sequence[type[object]]:
        return [Spooled]

    def handle_output(
        self,
        context: dg.OutputContext,
        table_slice: TableSlice,
        obj: Spooled,
        connection: Warehouse,
    ) -> dict[str, Any]:
        if _partition_column(table_slice) is not None:
            raise WarehouseError(f"asset {table_slice.table!r}: rows in files are a whole table")
        connection.replace_from(table_slice.table, obj)
        return {"dagster/row_count": obj.rows, **_made(connection)}

    def load_input(
        self, context: dg.InputContext, table_slice: TableSlice, connection: Warehouse
    ) -> Spooled:
        raise WarehouseError(f"asset {table_slice.table!r} is read as a frame, or by SQL")


class WarehouseIOManager(DuckDBIOManager):
    """Stores assets as tables of a Warehouse, a partition being the rows with its key in a column.

    Partitioned assets name that column, of text, in ``metadata={"partition_expr": …}``; one key or
    many are rewritten together, and an empty frame leaves a partition without rows. Others replace
    their whole table. An input's metadata may set ``columns``, ``categories`` (see
    `Warehouse.read_table`) and ``allow_missing_partitions``.

    Raises:
        WarehouseError: rows outside the keys being written, or an input not materialized yet.
    """

    @staticmethod
    def type_handlers() -> Sequence[DbTypeHandler]:
        return [_FrameHandler(), _SpooledHandler()]

    def create_io_manager(self, context: dg.InitResourceContext) -> DbIOManager:
        return DbIOManager(
            type_handlers=self.type_handlers(),
            db_client=_Client(),
            database=self.database,
            schema=SCHEMA,
            io_manager_name=type(self).__name__,
            default_load_type=pd.DataFrame,
        )
