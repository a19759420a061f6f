"""Copies of a study's warehouse: for readers who want the file for long, and to go back to.

``python -m im_resources.snapshot`` copies the warehouse of the study in ``IM_PROFILE`` to
``var/<name>/snapshot/warehouse.duckdb``; ``--parquet`` writes it as one file a table as well;
``--restore`` puts a copy back. A copy is one file and complete: DuckDB's write-ahead log, which
belongs to the warehouse's own file while it exists, is folded in. Never copy the file by hand while
a study runs. A lake keeps its own history: of it, there is ``--parquet`` only.
"""

import argparse
import contextlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import duckdb

from im_resources.deployment.making import warehouse_of
from im_resources.published import sync
from im_resources.study import Study
from im_resources.study.environment import environment
from im_resources.tables import SCHEMA, WarehouseError, qualified, text_literal
from im_resources.warehouse import Warehouse
from im_resources.warehouse_faults import explained, snapshot_path, write_ahead_log
from im_resources.warehouse_turns import Wait, bound, connect, turn
from im_resources.warehouse_versions import TABLE as VERSION


def snapshot(study: Study) -> Path:
    """Copy the study's warehouse, as it is between two writes, to its snapshot; return the path.

    Writers wait while the file is being copied (0.8 s a GB on an SSD). Then every block of the
    copy is read, and it takes the place of the last snapshot by a rename, so that a damaged
    warehouse never replaces a good copy.

    Raises:
        WarehouseError: there is no warehouse, it is damaged or stays in use, or no room for a copy.
    """
    _refuse_lake(study, "there is no file to copy")
    source, target = study.warehouse, snapshot_path(study.warehouse)
    if not source.is_file():
        raise WarehouseError(f"study {study.name!r} has not run: there is no {source}")
    with explained(target):
        target.parent.mkdir(exist_ok=True)
    new = target.with_name(f".{target.name}.new")
    wait = Wait(source, bound())
    try:
        # The connection keeps a notebook from writing meanwhile.
        with explained(source), turn(wait, reading=True), connect(wait, {}, read_only=True):
            _copy_open(source, new)
        with explained(source):
            _check(new)
        with explained(target):
            _publish(new, target)
    finally:
        for leftover in (new, write_ahead_log(new)):
            leftover.unlink(missing_ok=True)
    return target


def restore(study: Study, copy: Path | None = None) -> Path:
    """Put ``copy`` (default: the snapshot) in the place of the study's warehouse; return its path.

    What is there is kept beside it, as ``warehouse.duckdb.before-<time>``, with its log.

    Raises:
        WarehouseError: no such copy, it is damaged, or the warehouse stays in use.
    """
    _refuse_lake(study, "a copy of a file does not become one")
    target, copy = study.warehouse, copy or snapshot_path(study.warehouse)
    if not copy.is_file():
        raise WarehouseError(f"there is no copy {copy} to restore")
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(f".{target.name}.restored")
    wait = Wait(target, bound())
    try:
        with explained(target):
            for original, mine in _with_logs(copy, new):  # a copy by hand may have come with a log
                mine.unlink(missing_ok=True)
                if original.exists():
                    shutil.copyfile(original, mine)
        with explained(copy):
            _check(new)
        with explained(target), turn(wait):
            if target.exists():
                # Damaged, but used by nobody.
                with contextlib.suppress(duckdb.Error), connect(wait, {}, read_only=True):
                    pass
            before = target.with_name(f"{target.name}.before-{datetime.now():%Y%m%d-%H%M%S}")
            for original, kept in _with_logs(target, before):
                if original.exists():
                    original.rename(kept)
            _publish(new, target, mode=0o644)
    finally:
        for leftover in (new, write_ahead_log(new)):
            leftover.unlink(missing_ok=True)
    return target


def export_parquet(study: Study) -> Path:
    """Write a new snapshot as ``parquet/<table>.parquet`` beside it; return that folder.

    Of a lake, the tables as they are at one moment.

    Raises WarehouseError as ``snapshot`` does.
    """
    warehouse = warehouse_of(study)
    if not warehouse.is_lake:
        warehouse = Warehouse(snapshot(study))
    elif (now := warehouse.snapshot()) is None:
        raise WarehouseError(f"study {study.name!r} has not run: there is no {warehouse.name}")
    else:
        warehouse = warehouse.as_of(now)
    folder = snapshot_path(study.warehouse).parent / "parquet"
    new = folder.with_name(".parquet.new")
    shutil.rmtree(new, ignore_errors=True)
    with explained(folder):
        new.mkdir(parents=True)
        for table in [*warehouse.tables(), VERSION]:
            file = text_literal(str(new / f"{table}.parquet"))
            rows = f"SELECT * FROM {qualified(table)} ORDER BY rowid"
            with warehouse.place.reading(_copying(f"COPY ({rows}) TO {file} (FORMAT parquet)")):
                pass
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
    return folder


def _copying(statement: str) -> Callable[[duckdb.DuckDBPyConnection], object]:
    return lambda connection: connection.execute(statement)


def _refuse_lake(study: Study, why: str) -> None:
    if (warehouse := warehouse_of(study)).is_lake:
        raise WarehouseError(
            f"the tables are in the lake {warehouse.name}, and {why}. It keeps what was there "
            "before: `python -m im_assets.query --as-of N` reads it. `python -m "
            "im_resources.move --to-file` makes a file of it, and docs/warehouse.md says how to "
            "back it up"
        )


def _with_logs(source: Path, target: Path) -> tuple[tuple[Path, Path], tuple[Path, Path]]:
    return (source, target), (write_ahead_log(source), write_ahead_log(target))


def _copy_open(source: Path, target: Path) -> None:
    """Copy a file, with its log, that this process has open in DuckDB.

    By another process: closing any descriptor of a file gives up all POSIX locks that a process
    has on it (fcntl(2)), and with them DuckDB's.
    """
    for original, copy in _with_logs(source, target):
        copy.unlink(missing_ok=True)
        if original.exists():
            command = ["cp", str(original), str(copy)]
            done = subprocess.run(command, check=False, capture_output=True, text=True)
            if done.returncode:
                raise OSError(done.stderr.strip())


def _check(path: Path) -> None:
    """Fold the log into the file and read every block. Raises duckdb.Error if one is damaged."""
    with duckdb.connect(str(path)) as connection:
        connection.execute("FORCE CHECKPOINT")
        for table in _tables(connection):
            connection.execute(f"SELECT bit_xor(hash(t)) FROM {qualified(table)} AS t").fetchone()


def _tables(connection: duckdb.DuckDBPyConnection) -> list[str]:
    found = connection.execute(
        "SELECT table_name FROM duckdb_tables() "
        "WHERE database_name = current_database() AND schema_name = ? ORDER BY table_name",
        [SCHEMA],
    )
    return [name for (name,) in found.fetchall()]


def _publish(new: Path, target: Path, mode: int = 0o444) -> None:
    """Give the file its name once the disk has it."""
    new.chmod(mode)
    sync(new)
    new.replace(target)
    sync(target.parent)


def main(arguments: list[str] | None = None) -> int:
    """The command line; 1 with a message when it cannot be done."""
    parser = argparse.ArgumentParser(
        prog="python -m im_resources.snapshot", description="Copies of the warehouse of IM_PROFILE"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--parquet", action="store_true", help="as one Parquet file a table, too")
    what.add_argument(
        "--restore", nargs="?", type=Path, const=Path(), metavar="FILE",
        help="put FILE, or the snapshot, in the place of the warehouse, which is kept beside it",
    )  # fmt: skip
    chosen = parser.parse_args(arguments)
    study = environment()[0]
    try:
        if chosen.restore is not None:
            print(restore(study, chosen.restore if chosen.restore.name else None))
        else:
            print(export_parquet(study) if chosen.parquet else snapshot(study))
    except WarehouseError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
