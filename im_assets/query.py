"""``python -m im_assets.query "SELECT …"``: reads the warehouse of the study in ``IM_PROFILE``.

Read-only, one statement long, so it is safe while the study runs. ``SHOW TABLES`` lists what there
is, ``SELECT count(*) FROM mixed_samples`` counts a table's rows. Of a lake, ``--as-of N`` and
``--as-of-run RUN_ID`` read what the tables held at a snapshot, or after a run.
"""

import argparse
import os
import sys
from pathlib import Path

import duckdb
import pandas as pd

from im_assets.run_snapshots import snapshot_of_run
from im_resources.deployment.making import warehouse_of
from im_resources.study.environment import environment
from im_resources.texts import printable
from im_resources.warehouse import WarehouseError


def as_table(frame: pd.DataFrame, rows: int, width: int = 60) -> str:
    """The first ``rows`` as columns of text, each value on one line and safe for a terminal."""

    def cell(value: object) -> str:
        text = printable(str(value))
        return text if len(text) <= width else text[: width - 1] + "…"

    shown = frame.head(rows)
    cells = [[cell(name) for name in shown.columns]]
    cells += [[cell(value) for value in row] for row in shown.itertuples(index=False, name=None)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(text.ljust(size) for text, size in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    lines.insert(1, "  ".join("-" * size for size in widths))
    more = f", the first {rows} shown (--rows)" if len(frame) > rows else ""
    return "\n".join([*lines, f"{len(frame)} rows{more}"])


def main(arguments: list[str] | None = None) -> int:
    """The command line; 1 with a message when the statement cannot be answered."""
    parser = argparse.ArgumentParser(prog="python -m im_assets.query", description=__doc__)
    parser.add_argument("statement", help="SQL that reads")
    when = parser.add_mutually_exclusive_group()
    when.add_argument(
        "--as-of", type=int, metavar="N", help="the tables as of snapshot N, of a lake"
    )
    when.add_argument(
        "--as-of-run", metavar="RUN_ID", help="the tables as that run has left them, of a lake"
    )
    parser.add_argument("--rows", type=int, default=40, help="rows of the table to show (40)")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--csv", action="store_true", help="all rows, as CSV")
    how.add_argument("--json", action="store_true", help="all rows, one JSON object a line")
    how.add_argument("--parquet", type=Path, metavar="FILE", help="all rows, into a Parquet file")
    chosen = parser.parse_args(arguments)
    study, variables = environment()
    try:
        warehouse = warehouse_of(study)
        if not warehouse.exists():
            print(
                f"study {study.name!r} has not run: there is no {warehouse.name}", file=sys.stderr
            )
            return 1
        snapshot = chosen.as_of
        if chosen.as_of_run is not None:
            os.environ |= variables
            snapshot = snapshot_of_run(chosen.as_of_run)
        if snapshot is not None:
            warehouse = warehouse.as_of(snapshot)
        frame = warehouse.query(chosen.statement)
    except (WarehouseError, duckdb.Error) as error:
        print("\n".join(map(printable, str(error).splitlines())), file=sys.stderr)
        return 1
    if chosen.parquet:
        frame.to_parquet(chosen.parquet)
    elif chosen.json:  # escapes all that is not ASCII
        frame.to_json(sys.stdout, orient="records", lines=True, date_format="iso")
    elif chosen.csv:
        text = frame.to_csv(index=False)
        # As it is into a file or a pipe; a terminal would obey it.
        safe = "\n".join(map(printable, text.split("\n"))) if sys.stdout.isatty() else text
        sys.stdout.write(safe)
    else:
        print(as_table(frame, chosen.rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
