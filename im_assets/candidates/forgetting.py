"""Erasing what was made of examples that are to be forgotten.

An example leaves traces: its texts and scores, the sets that it was drawn into, the finetunes that
saw it with all that was measured of them, and files. Its id stays, in the pool's history and in the
list of the withdrawn, so that it never comes back and every mixture that held it stays retired.
Measurements of other sets hold nothing of it and stay.
"""

import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from im_assets.candidates.versions import HISTORY
from im_resources.adapter_store import AdapterStore
from im_resources.tables import condition, qualified
from im_resources.warehouse import Warehouse


@dataclass(frozen=True)
class Erased:
    """What was erased: finetunes, rows by table, and files."""

    trials: tuple[str, ...]
    rows: dict[str, int]
    files: tuple[Path, ...]


def erase(
    ids: Collection[str],
    warehouse: Warehouse,
    store: AdapterStore,
    exports: Sequence[Path],
    forget: Callable[[], object] = lambda: None,
) -> Erased:
    """Erase what was made of these examples; repeatable.

    A finetune of which no table tells any more which set it saw is erased too: it may have seen
    one, and nothing refers to it. Rows go last: what dies before that finds them again, and erases
    the rest.

    Args:
        ids: example_ids.
        exports: files and folders with texts of examples that a run makes again. They go when
            anything was erased.
        forget: erases these exports elsewhere; called when anything is erased.
    """
    columns = _columns(warehouse)
    known = {"ids": sorted(ids)}
    sets: set[str] = set()
    every: set[str] = set()
    for table in _with(columns, "example_id", "set_id"):
        hit = "SELECT DISTINCT set_id, list_contains($ids, example_id) AS hit FROM "
        found = warehouse.query(hit + qualified(table), known)
        every |= set(found["set_id"].astype(str))
        sets |= set(found.loc[found["hit"].astype(bool), "set_id"].astype(str))
    trials = [t for t, set_id in store.sets().items() if set_id in sets or set_id not in every]
    answers: set[str] = set()
    for table in _with(columns, "trial_id", "fingerprint") if trials else ():
        rows = warehouse.read_table(table, ["fingerprint"], {"trial_id": trials})
        answers |= set(rows["fingerprint"].astype(str))
    hits: list[tuple[str, str, Collection[Any], int]] = []
    for table, names in columns.items():
        for column, values in (
            ("example_id", ids),
            ("set_id", sets),
            ("trial_id", trials),
            ("fingerprint", answers),
        ):
            if column in names and table != HISTORY and values:
                hits.append((table, column, values, _count(warehouse, table, column, values)))
    if not trials and not any(count for *_, count in hits):
        return Erased((), {}, ())
    for trial in trials:
        store.remove(trial)
    store.remove_checkpoints()  # of finetunes under way, which may have seen them
    files = [path for path in exports if path.exists()]
    for path in files:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    forget()
    counts: dict[str, int] = {}
    for table, column, values, found_before in hits:
        # Rows that were hit twice are gone by the second time.
        count = _count(warehouse, table, column, values) if found_before else 0
        if count:
            warehouse.replace_rows(table, pd.DataFrame(), {column: sorted(values)})
            counts[table] = counts.get(table, 0) + count
    warehouse.compact()  # a deleted row's bytes would stay in the file
    return Erased(tuple(sorted(trials)), counts, tuple(files))


def _columns(warehouse: Warehouse) -> dict[str, set[str]]:
    found = warehouse.query(
        "SELECT table_name, column_name FROM duckdb_columns() "
        "WHERE database_name = current_database() AND NOT internal"
    )
    return {
        str(table): set(rows["column_name"].astype(str))
        for table, rows in found.groupby("table_name")
    }


def _with(columns: dict[str, set[str]], *wanted: str) -> list[str]:
    return sorted(table for table, names in columns.items() if set(wanted) <= names)


def _count(warehouse: Warehouse, table: str, column: str, values: Collection[Any]) -> int:
    """How many rows have one of these values."""
    rows, bound = condition({column: sorted(values)})
    found = warehouse.query(f"SELECT count(*) AS n FROM {qualified(table)} WHERE {rows}", bound)
    return int(found["n"].iloc[0])
