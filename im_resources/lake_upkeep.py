"""``python -m im_resources.lake_upkeep``: gives back the room that a lake's history takes.

Every write adds a snapshot and, mostly, a Parquet file; what is deleted stays readable in the
snapshots before. This merges small files, gives up snapshots that are older than ``--keep`` days,
and deletes the files that none of the others need. It may run while a study runs: who writes to a
table waits while that table's files are merged, and nobody else does.
"""

import argparse
import sys
from datetime import timedelta

import duckdb
import pandas as pd

from im_resources.deployment.making import warehouse_of
from im_resources.lake import Lake
from im_resources.lake_address import NAME
from im_resources.study.environment import environment
from im_resources.tables import WarehouseError, quoted, text_literal
from im_resources.warehouse import TABLES, Warehouse

KEEP_DAYS = 30
# A file of a write that is under way is named nowhere yet. No write takes that long.
ORPHAN_DAYS = 2


def tidy(lake: Lake, keep_days: float) -> None:
    """Merge small files, and give up what no snapshot of the last ``keep_days`` needs.

    Args:
        keep_days: of snapshots, at least; 0: none but the last, and nobody else writes meanwhile,
            so that nothing of what was deleted is left anywhere. Who reads then reads anew.

    Raises WarehouseError as every write does.
    """
    if not lake.exists():
        return
    with lake.reading(lambda connection: connection.execute(TABLES).fetchall()) as found:
        names = [name for (name,) in found]
    if keep_days <= 0:

        def all_of_it(connection: duckdb.DuckDBPyConnection) -> None:
            for name in names:
                _merge(connection, name)
            _forget(connection, timedelta(0), timedelta(0))

        lake.alone(all_of_it, None)
        return
    for name in names:
        lake.alone(lambda connection, name=name: _merge(connection, name), name)  # type: ignore[misc]
    keep, orphans = timedelta(days=keep_days), timedelta(days=ORPHAN_DAYS)
    lake.alone(lambda connection: _forget(connection, keep, orphans), None)


def _merge(connection: duckdb.DuckDBPyConnection, table: str) -> None:
    quoted(table)
    name = text_literal(table)
    for call in (
        f"ducklake_flush_inlined_data('{NAME}', table_name => {name})",
        f"ducklake_rewrite_data_files('{NAME}', {name}, delete_threshold => 0)",
        f"ducklake_merge_adjacent_files('{NAME}', {name})",
    ):
        connection.execute(f"CALL {call}").fetchall()


def _forget(
    connection: duckdb.DuckDBPyConnection, snapshots: timedelta, orphans: timedelta
) -> None:
    """Give up snapshots, and files that none needs or that a killed writer left."""
    for call in (
        f"ducklake_expire_snapshots('{NAME}', older_than => {_ago(snapshots)})",
        f"ducklake_cleanup_old_files('{NAME}', older_than => {_ago(min(snapshots, orphans))})",
        f"ducklake_delete_orphaned_files('{NAME}', older_than => {_ago(orphans)})",
    ):
        connection.execute(f"CALL {call}").fetchall()


def _ago(span: timedelta) -> str:
    return f"now() - INTERVAL {span.total_seconds():.0f} SECONDS"


def snapshots(warehouse: Warehouse) -> pd.DataFrame:
    """The snapshots that there are: number, time, author (a process), changes.

    Raises WarehouseError: the warehouse is a file.
    """
    lake = _lake(warehouse)
    if not lake.exists():
        return pd.DataFrame(columns=["snapshot_id", "snapshot_time", "author", "changes"])
    return warehouse.query(
        "SELECT snapshot_id, snapshot_time, author, changes::VARCHAR AS changes "
        f"FROM ducklake_snapshots('{NAME}') ORDER BY snapshot_id"
    )


def _lake(warehouse: Warehouse) -> Lake:
    if not isinstance(warehouse.place, Lake):
        raise WarehouseError(
            f"the warehouse {warehouse.name} is a file and not a lake; it needs no upkeep"
        )
    return warehouse.place


def main(arguments: list[str] | None = None) -> int:
    """The command line; 1 with a message when it cannot be done."""
    parser = argparse.ArgumentParser(
        prog="python -m im_resources.lake_upkeep",
        description="Upkeep of the lake of IM_PROFILE in IM_DEPLOYMENT",
    )
    parser.add_argument(
        "--keep", type=float, default=KEEP_DAYS, metavar="DAYS",
        help=f"snapshots younger than that stay readable ({KEEP_DAYS}); 0: the last one only",
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="the snapshots that there are; no more")
    chosen = parser.parse_args(arguments)
    if chosen.keep < 0:
        parser.error(f"--keep: {chosen.keep:g}; 0 days or more")
    try:
        warehouse = warehouse_of(environment()[0])
        if chosen.list:
            print(snapshots(warehouse).to_string(index=False))
            return 0
        tidy(_lake(warehouse), chosen.keep)
        left = snapshots(warehouse)
        print(f"{warehouse.name}: {len(left)} snapshots, the oldest {left['snapshot_id'].min()}")
    except WarehouseError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
