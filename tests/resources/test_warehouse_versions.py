"""A file knows its schema's version: older ones are migrated, newer ones refused."""

from pathlib import Path

import duckdb
import pandas as pd
import pytest

from im_resources import warehouse_versions as versions
from im_resources.warehouse import Warehouse, WarehouseError

ROWS = pd.DataFrame({"seed": ["a"], "value": [1]})


def raw(path: Path, *statements: str) -> list[tuple[object, ...]]:
    with duckdb.connect(str(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        return connection.fetchall()


@pytest.fixture
def old(tmp_path: Path) -> Warehouse:
    """As files were before they had a version."""
    path = tmp_path / "warehouse.duckdb"
    raw(
        path,
        "CREATE TABLE losses (seed VARCHAR, value BIGINT)",
        "INSERT INTO losses VALUES ('a', 1)",
    )
    return Warehouse(path)


VERSION = f"SELECT version FROM {versions.TABLE}"


def test_a_new_file_has_todays_version(tmp_path: Path) -> None:
    warehouse = Warehouse(tmp_path / "warehouse.duckdb")
    warehouse.replace_rows("losses", ROWS, {"seed": "a"})
    assert raw(warehouse.path, VERSION) == [(len(versions.MIGRATIONS),)]


@pytest.mark.parametrize("reading_first", [True, False])
def test_a_file_without_a_version_is_migrated_and_keeps_its_rows(
    old: Warehouse, reading_first: bool
) -> None:
    if reading_first:
        assert old.read_table("losses").equals(ROWS)
    else:
        old.replace_rows("losses", ROWS, {"seed": "a"})
    assert raw(old.path, VERSION) == [(len(versions.MIGRATIONS),)]
    assert old.read_table("losses").equals(ROWS)


def test_migrations_run_once_in_order(old: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    def doubled(connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute("UPDATE losses SET value = value * 2")

    def renamed(connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute("ALTER TABLE losses RENAME value TO twice")

    monkeypatch.setattr(versions, "MIGRATIONS", (*versions.MIGRATIONS, doubled, renamed))
    for _ in range(2):
        assert old.read_table("losses").to_dict("list") == {"seed": ["a"], "twice": [2]}
    assert raw(old.path, VERSION) == [(3,)]


def test_a_migration_that_fails_leaves_the_file_as_it_was(
    old: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(connection: duckdb.DuckDBPyConnection) -> None:
        connection.execute("UPDATE losses SET value = 7")
        connection.execute("SELECT nothing FROM nowhere")

    monkeypatch.setattr(versions, "MIGRATIONS", (*versions.MIGRATIONS, broken))
    with pytest.raises(WarehouseError, match="from schema version 1 to 2, and is as it was"):
        old.replace_rows("losses", ROWS, {"seed": "a"})
    assert raw(old.path, "SELECT table_name FROM duckdb_tables()") == [("losses",)]
    assert raw(old.path, "SELECT value FROM losses") == [(1,)]


def test_a_file_from_the_future_is_refused_with_what_to_do(old: Warehouse) -> None:
    old.read_table("losses")
    raw(old.path, f"UPDATE {versions.TABLE} SET version = 99")
    for use in (
        lambda: old.has_table("losses"),
        lambda: old.replace_rows("losses", ROWS, {"seed": "a"}),
    ):
        with pytest.raises(WarehouseError, match=r"has schema version 99.*update the code"):
            use()
    assert raw(old.path, "SELECT value FROM losses") == [(1,)]
